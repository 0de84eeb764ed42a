package launcher

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// fairShare makes sure that this process and what it starts are scheduled like
// anybody: a caller's nice value, real-time or idle class, I/O priority and
// standing with the OOM killer are not handed on. The first three were reset
// when the process began (priority.c).
func fairShare() error {
	refuse := func(what string) error {
		return fault.New(fault.Unavailable, "launch.priority", "the caller's "+what+" cannot be reset", "start it with the normal priority")
	}
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || nice != 20 { // the call itself answers 20-nice
		return refuse("nice value")
	}
	if attr, err := unix.SchedGetAttr(0, 0); err != nil || attr.Policy != unix.SCHED_NORMAL {
		return refuse("scheduling class")
	}
	if prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0); errno != 0 || prio>>13 > 0 && prio != 2<<13|4 {
		return refuse("I/O priority") // 0, or what the kernel makes of 0
	}
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(b)) != "0" {
		err = os.WriteFile(file, []byte("0"), 0)
	}
	if err != nil {
		return fmt.Errorf("OOM score: %w", err)
	}
	return nil
}
