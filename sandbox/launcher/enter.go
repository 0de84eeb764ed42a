package launcher

// extern int ward_host_proc;
import "C"

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// entered checks that this process is where enter.c was to bring it: beside
// the first process of another PID namespace than its caller's, in that one's
// mount namespace, and sees its /proc. Whether that process is the container's
// monitor shows when it answers (sandbox.Monitor.OpenExec).
func entered() (*hostProc, error) {
	refuse := func(cause string) error {
		return fault.New(fault.Denied, "launch.namespace", cause, "start processes through ward")
	}
	if C.ward_host_proc < 0 {
		return nil, refuse("the launcher has not entered a container's namespaces")
	}
	host := &hostProc{os.NewFile(uintptr(C.ward_host_proc), "/proc")}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, err
	}
	if self != strconv.Itoa(os.Getpid()) || self == "1" {
		return nil, refuse("the launcher does not see the /proc of its PID namespace")
	}
	for _, ns := range []string{"pid", "mnt"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			return nil, err
		}
		if monitors, err := os.Readlink("/proc/1/ns/" + ns); err != nil || mine != monitors {
			return nil, refuse("the launcher is not in the namespaces of the process it was to enter")
		}
	}
	// What a caller leaked must not reach the container.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("close_range: %w", err)
	}
	return host, nil
}
