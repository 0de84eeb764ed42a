package launcher

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	// Its C constructor enters the namespaces before the Go runtime starts.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

// initExecuted is pipes.executed in the container's init: the first of
// libcontainer's extra files.
const initExecuted = 3

// Reexec runs libcontainer's init if this process was started as that, and
// then does not return. It must be called first thing in main's init.
func Reexec() {
	if len(os.Args) < 2 || os.Args[1] != "init" {
		return
	}
	debug.SetGCPercent(-1)
	// libcontainer leaves this descriptor open for the payload. Closing on
	// exec makes it what it is for instead: the launcher sees the end of file
	// when, and only when, the payload's execve has succeeded or init died.
	if _, err := unix.FcntlInt(initExecuted, unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "ward-launch init:", err)
		os.Exit(255)
	}
	// What libcontainer has to say when execve fails goes to the launcher and
	// not into the payload's output.
	os.Stderr = os.NewFile(initExecuted, "executed")
	libcontainer.Init()
}
