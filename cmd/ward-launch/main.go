// The runtime would otherwise read the cgroup's processor limit at each of this
// program's three starts, and keep the files open in the monitor.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Ward-launch starts one container and stays as its monitor. It is started by
// ward with a sealed plan and receipt on inherited descriptors, and is of no
// use on a command line.
package main

import (
	"fmt"
	"os"

	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/launcher"
)

// init comes before main and after the initialisation of every package: as the
// container's init this program must do nothing else.
func init() { launcher.Reexec() }

func main() {
	switch {
	case len(os.Args) == 1:
		launcher.Launch()
	case len(os.Args) == 3 && os.Args[1] == "monitor":
		launcher.Monitor(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == sandbox.CommandExec:
		launcher.Exec()
	case len(os.Args) == 2 && os.Args[1] == sandbox.OCICommandLaunch:
		launcher.OCI()
	case len(os.Args) == 2 && os.Args[1] == sandbox.OCICommandMonitor:
		launcher.OCIMonitor()
	case len(os.Args) == 3 && os.Args[1] == sandbox.OCICommandWatch:
		launcher.OCIWatch(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == sandbox.OCICommandOperate:
		launcher.OCIOperate()
	case len(os.Args) == 3 && os.Args[1] == sandbox.CommandFiles:
		launcher.Files()
	case len(os.Args) == 2 && os.Args[1] == sandbox.CommandStoppedFiles:
		launcher.StoppedFiles()
	case len(os.Args) == 4 && os.Args[1] == launcher.CommandFilesInside:
		launcher.Files()
	case len(os.Args) == 2 && os.Args[1] == "version":
		fmt.Println(sandbox.Build)
	default:
		fmt.Fprintln(os.Stderr, "ward-launch is started by ward; its one command is version")
		os.Exit(2)
	}
}
