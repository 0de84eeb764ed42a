package engine

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// stopSignal reads a signal as Docker writes it: TERM, SIGTERM or 15.
func stopSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fault.New(fault.Invalid, "run.signal", fmt.Sprintf("%.32q is not a signal", s), "give a name such as TERM or a number from 1 to 64")
}
