// The runtime would otherwise read this program's cgroup at its start, and
// look again each second: it waits most of its life.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command ward runs containers that have been let in: signed by somebody the
// host trusts, allowed by its policy, and on record before they start.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	_ "github.com/ward-project/ward/internal/early" // sets the collector's pace
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without its process: arguments in, exit code out.
func run(args []string, out, errs io.Writer) int {
	// Commands end themselves on these; a foreground run passes them on.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	root := newRoot(args)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	return report(errs, cmd, err)
}

// exitCode is an error that only carries a code: everything was said already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// gateVerb marks the commands whose exit code is an answer: 0 allow, 1 deny,
// 2 usage, 3 indeterminate.
const gateVerb = "gate"

// runVerb marks the commands that run something: 125 when nothing ran.
const runVerb = "run"

// report prints an error for a person and returns the exit code it stands for.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	f := fault.As(err)
	fmt.Fprintln(w, "ward: "+printable(f.Report()))
	switch cmd.Annotations["exit"] {
	case runVerb:
		return fault.RunExit
	case gateVerb:
		return fault.GateExit(err)
	default:
		return 1
	}
}

func newRoot(args []string) *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "ward",
		Short: "Run containers that have been let in",
		Long: "ward runs containers that have been let in: verified by signature, allowed by\n" +
			"policy, recorded before they start, and held with the least the kernel can give.",
		SilenceUsage:  true,
		SilenceErrors: true,
		// Without a command there is nothing to do, and nothing to succeed at.
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q is not a ward command", args[0])
			}
			return cmd.Help()
		},
		Args:    cobra.ArbitraryArgs,
		Version: sandbox.Build,
	}
	root.SetVersionTemplate("ward version {{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&a.root, "root", os.Getenv("WARD_ROOT"), "keep all state, keys and configuration below this `directory`")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(commands(a, args)...)
	return root
}

func usage(format string, args ...any) error {
	return fault.New(fault.Invalid, "usage", fmt.Sprintf(format, args...), "see ward --help")
}

// exactly is cobra.ExactArgs with an error of ours.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fault.New(fault.Invalid, "usage", fmt.Sprintf("%s needs %s", cmd.CommandPath(), what), "see "+cmd.CommandPath()+" --help")
		}
		return nil
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return exactly(-1, what)(cmd, args)
		}
		return nil
	}
}
