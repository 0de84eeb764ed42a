package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// rlimits are the resource limits a plan may set and their numbers.
var rlimits = [...]struct {
	name   string
	number int
}{
	{"RLIMIT_AS", unix.RLIMIT_AS}, {"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_CPU", unix.RLIMIT_CPU}, {"RLIMIT_DATA", unix.RLIMIT_DATA},
	{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE}, {"RLIMIT_LOCKS", unix.RLIMIT_LOCKS}, {"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK},
	{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", unix.RLIMIT_NICE}, {"RLIMIT_NOFILE", unix.RLIMIT_NOFILE},
	{"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_RSS", unix.RLIMIT_RSS}, {"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", unix.RLIMIT_RTTIME}, {"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING}, {"RLIMIT_STACK", unix.RLIMIT_STACK},
}

// RlimitNumber is the kernel's number of a resource limit ("RLIMIT_NOFILE").
func RlimitNumber(name string) (int, bool) {
	for _, r := range rlimits {
		if r.name == name {
			return r.number, true
		}
	}
	return 0, false
}

// ClampRlimit lowers a limit to this process's own hard one: without
// CAP_SYS_RESOURCE raising it is refused, and a container needs no more than
// its starter has.
func ClampRlimit(want Rlimit) (Rlimit, error) {
	n, ok := RlimitNumber(want.Type)
	if !ok {
		return want, fmt.Errorf("resource limit %.32q is not known", want.Type)
	}
	var own unix.Rlimit
	if err := unix.Prlimit(0, n, nil, &own); err != nil {
		return want, fmt.Errorf("%s: %w", want.Type, err)
	}
	want.Soft, want.Hard = min(want.Soft, own.Max), min(want.Hard, own.Max)
	return want, nil
}
