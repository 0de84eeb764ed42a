package launcher

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// clampedRlimits lowers each limit to this process's own hard one: without
// CAP_SYS_RESOURCE raising it is refused, and a container needs no more than
// its starter has.
func clampedRlimits(want []sandbox.Rlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, w := range want {
		n, ok := rlimitNumbers[w.Type]
		if !ok {
			return nil, fmt.Errorf("resource limit %s is not known", w.Type)
		}
		var own unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &own); err != nil {
			return nil, fmt.Errorf("%s: %w", w.Type, err)
		}
		out = append(out, configs.Rlimit{Type: n, Soft: min(w.Soft, own.Max), Hard: min(w.Hard, own.Max)})
	}
	return out, nil
}
