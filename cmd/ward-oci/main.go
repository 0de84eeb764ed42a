// Ward-oci is ward behind the command line of an OCI runtime: for containerd,
// CRI-O, podman and Docker in the place of runc. Each container and each
// further process in one passes ward's gate (docs/oci.md); what is started is
// what the caller's specification says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	_ "github.com/ward-project/ward/internal/early" // sets the collector's pace
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func main() {
	a := &app{}
	root := newRoot(a)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	a.report(describe(cmd, err))
	if cmd.Name() == "exec" {
		os.Exit(255)
	}
	os.Exit(1)
}

// exitCode is an error that only carries the payload's code.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// describe is the one line that callers log and show. The runtime's own errors
// keep their text: callers look for it.
func describe(cmd *cobra.Command, err error) string {
	f := fault.As(err)
	text := f.Cause
	switch cmd.Name() {
	case "create", "run":
		text = "ward-oci " + cmd.Name() + " failed: " + text
	case "exec":
		text = "exec failed: " + text
	}
	if f.Rule == "" || f.Rule == "oci.runtime" {
		return text
	}
	text += " (" + f.Rule
	if f.Remedy != "" {
		text += "; " + f.Remedy
	}
	return text + ")"
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "ward-oci", Short: "Run the containers of other programs that have been let in",
		SilenceUsage: true, SilenceErrors: true, Version: sandbox.Build,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q is not a ward-oci command", args[0])
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.open(cmd) },
	}
	root.SetVersionTemplate("ward-oci version {{.Version}}\nspec: 1.3.0\n")
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.PersistentFlags()
	f.BoolVar(&a.debug, "debug", false, "enable debug logging")
	f.StringVar(&a.logFile, "log", "", "write log messages to this `file`")
	f.StringVar(&a.logFormat, "log-format", "text", "format of the log: text or json")
	f.StringVar(&a.root, "root", "", "`directory` of the containers' state")
	f.BoolVar(&a.systemd, "systemd-cgroup", false, "use systemd's cgroups (cgroupsPath is slice:prefix:name)")
	f.StringVar(&a.rootless, "rootless", "auto", "ignore cgroup permission errors: true, false or auto")
	f.StringVar(&a.ward, "ward-root", os.Getenv("WARD_ROOT"), "`directory` of the ward that decides and records")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	root.AddCommand(newCreate(a), newRun(a), newStart(a), newState(a), newKill(a), newDelete(a), newList(a), newExec(a),
		newPs(a), newPause(a), newResume(a), newUpdate(a), newEvents(a), newFeatures(a), newSpec(a))
	return root
}

func usage(format string, args ...any) error {
	return fault.New(fault.Invalid, "usage", fmt.Sprintf(format, args...), "see ward-oci --help")
}

// exactly refuses another number of arguments, in the words callers know.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s: %q requires exactly %d argument(s)", filepath.Base(os.Args[0]), cmd.Name(), n)
		}
		return nil
	}
}

func atLeast(n, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage("%s: %q requires a minimum of %d argument(s)", filepath.Base(os.Args[0]), cmd.Name(), n)
		}
		if most > 0 && len(args) > most {
			return usage("%s: %q requires a maximum of %d argument(s)", filepath.Base(os.Args[0]), cmd.Name(), most)
		}
		return nil
	}
}
