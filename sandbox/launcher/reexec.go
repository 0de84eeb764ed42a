package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"

	// Its C constructor enters the namespaces before the Go runtime starts.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

// payloadSlack is the kernel's own default, in nanoseconds.
const payloadSlack = 50_000

// Reexec runs libcontainer's init if this process was started as that, and
// then does not return. It must be called first thing in main's init.
func Reexec() {
	if len(os.Args) < 2 || os.Args[1] != "init" {
		return
	}
	debug.SetGCPercent(-1)
	// This thread becomes the payload, whose timers are to be as exact as
	// anybody's (slack.c), whatever the caller's are.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, payloadSlack, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "ward-launch init: timer slack:", err)
		os.Exit(255)
	}
	if filepath.Base(os.Args[0]) == sandbox.OCIName {
		// An OCI caller's container: its descriptors are the caller's.
		if err := ociAwaitSources(); err != nil {
			ociInitFailed(err)
		}
		libcontainer.Init()
	}
	if err := staged(); err != nil {
		fmt.Fprintln(os.Stderr, "ward-launch init:", err)
		os.Exit(255)
	}
	// What libcontainer has to say when execve fails goes to the launcher and
	// not into the payload's output.
	os.Stderr = os.NewFile(stageExecuted, "executed")
	libcontainer.Init()
}
