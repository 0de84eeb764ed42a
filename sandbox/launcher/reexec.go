package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/ward-project/ward/sandbox"

	// Its C constructor enters the namespaces before the Go runtime starts.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

// Reexec runs libcontainer's init if this process was started as that, and
// then does not return. It must be called first thing in main's init.
func Reexec() {
	if len(os.Args) < 2 || os.Args[1] != "init" {
		return
	}
	debug.SetGCPercent(-1)
	if filepath.Base(os.Args[0]) == sandbox.OCIName {
		// An OCI caller's container: its descriptors are the caller's.
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
