package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine/oci"
	"github.com/ward-project/ward/sandbox"
)

// simple is a command that names a container and nothing else.
func simple(a *app, verb sandbox.OCIVerb, short string) *cobra.Command {
	return &cobra.Command{
		Use: string(verb) + " ID", Short: short, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.operate(cmd, sandbox.OCIRequest{Op: verb, ID: args[0]})
		},
	}
}

// gated is such a command that does something to the container: it is decided
// about and on record.
func gated(a *app, verb sandbox.OCIVerb, short string, do func(*oci.Gate) func(context.Context, string, string, sandbox.OCIFiles) error) *cobra.Command {
	return &cobra.Command{
		Use: string(verb) + " ID", Short: short, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := a.gate()
			if err != nil {
				return err
			}
			return do(g)(cmd.Context(), a.root, args[0], a.files())
		},
	}
}

func newState(a *app) *cobra.Command {
	return simple(a, sandbox.OCIState, "print the state of a container")
}

func newStart(a *app) *cobra.Command {
	return gated(a, sandbox.OCIStart, "start the payload of a created container",
		func(g *oci.Gate) func(context.Context, string, string, sandbox.OCIFiles) error { return g.Start })
}

func newPause(a *app) *cobra.Command {
	return gated(a, sandbox.OCIPause, "suspend all processes of a container",
		func(g *oci.Gate) func(context.Context, string, string, sandbox.OCIFiles) error { return g.Pause })
}

func newResume(a *app) *cobra.Command {
	return gated(a, sandbox.OCIResume, "let the processes of a paused container go on",
		func(g *oci.Gate) func(context.Context, string, string, sandbox.OCIFiles) error { return g.Resume })
}

func newKill(a *app) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "kill [flags] ID [SIGNAL]", Short: "send a signal (SIGTERM) to a container's first process", Args: atLeast(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "SIGTERM"
			if len(args) == 2 {
				name = args[1]
			}
			sig, err := signalNumber(name)
			if err != nil {
				return err
			}
			c, err := a.cleaner(cmd.Context(), sandbox.OCIKill, args[0])
			if err != nil {
				return err
			}
			return c.Kill(cmd.Context(), sandbox.OCIRequest{Root: a.root, ID: args[0], Signal: sig, All: all}, a.files())
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "")
	_ = cmd.Flags().MarkHidden("all")
	return cmd
}

func signalNumber(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if s := unix.SignalNum(full); s != 0 {
		return int(s), nil
	}
	return 0, usage("unknown signal %q", name)
}

func newList(a *app) *cobra.Command {
	req := sandbox.OCIRequest{Op: sandbox.OCIList}
	cmd := &cobra.Command{
		Use: "list [flags]", Short: "list the containers below --root", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Format != "table" && req.Format != "json" {
				return usage("invalid format option")
			}
			return a.operate(cmd, req)
		},
	}
	cmd.Flags().StringVarP(&req.Format, "format", "f", "table", "table or json")
	cmd.Flags().BoolVarP(&req.Quiet, "quiet", "q", false, "print the ids alone")
	return cmd
}

func newPs(a *app) *cobra.Command {
	req := sandbox.OCIRequest{Op: sandbox.OCIPs}
	cmd := &cobra.Command{
		Use: "ps [flags] ID [PS-OPTION...]", Short: "list the processes of a container", Args: atLeast(1, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Format != "table" && req.Format != "json" {
				return usage("invalid format option")
			}
			req.ID, req.Args = args[0], args[1:]
			return a.operate(cmd, req)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&req.Format, "format", "f", "table", "table or json")
	return cmd
}

func newEvents(a *app) *cobra.Command {
	req := sandbox.OCIRequest{Op: sandbox.OCIEvents}
	every := 5 * time.Second
	cmd := &cobra.Command{
		Use: "events [flags] ID", Short: "print the usage of a container, and when it runs out of memory", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if every <= 0 {
				return usage("duration interval must be greater than 0")
			}
			req.ID, req.Interval = args[0], int64(every)
			return a.operate(cmd, req)
		},
	}
	cmd.Flags().DurationVar(&every, "interval", every, "time between two reports")
	cmd.Flags().BoolVar(&req.Stats, "stats", false, "report once")
	return cmd
}

func newFeatures(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "features", Short: "print what this runtime can do, as JSON", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.operate(cmd, sandbox.OCIRequest{Op: sandbox.OCIFeatures})
		},
	}
}

func newSpec(a *app) *cobra.Command {
	req := sandbox.OCIRequest{Op: sandbox.OCISpec}
	bundle := ""
	cmd := &cobra.Command{
		Use: "spec [flags]", Short: "write a config.json to begin with", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := bundleDir(bundle)
			if err != nil {
				return fmt.Errorf("spec: %w", err)
			}
			req.Root = dir
			return a.operate(cmd, req)
		},
	}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", "", "`directory` of the bundle")
	cmd.Flags().BoolVar(&req.Rootless, "rootless", false, "for a container without root")
	return cmd
}
