package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

// withEngine runs fn with an open engine and closes the log after it.
func (a *app) withEngine(ctx context.Context, fn func(*engine.Engine) error) error {
	eng, log, err := a.engine(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(eng), log.Close())
}

// each runs fn for every container named and goes on after a failure, so that
// one unknown name does not leave the others running. As Docker's, commands
// print what they were given, not the container's name.
func (a *app) each(cmd *cobra.Command, names []string, fn func(eng *engine.Engine, c engine.Container, asked string) error) error {
	return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
		failed := false
		for _, name := range names {
			c, err := eng.Find(cmd.Context(), name)
			if err == nil {
				err = fn(eng, c, name)
			}
			if err != nil {
				report(cmd.ErrOrStderr(), cmd, err)
				failed = failed || !forgiven(cmd, err)
			}
		}
		if failed {
			return exitCode(1)
		}
		return nil
	})
}

// forgiven is, as for Docker, rm -f of what is not there: it is said, and what
// was wanted all the same.
func forgiven(cmd *cobra.Command, err error) bool {
	return cmd.Name() == "rm" && cmd.Flags().Changed("force") && fault.As(err).Rule == "container.unknown"
}

func newStop(a *app) *cobra.Command {
	var grace int
	cmd := &cobra.Command{
		Use: "stop [OPTIONS] CONTAINER [CONTAINER...]", Short: "Stop containers: their stop signal, then SIGKILL", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Stop(cmd.Context(), audit.Caller(), c, stopGrace(cmd, c, grace)); err != nil {
					return err
				}
				return say(cmd, asked)
			})
		},
	}
	cmd.Flags().IntVarP(&grace, "time", "t", 10, "`seconds` to wait before SIGKILL; -1 for ever")
	cmd.Flags().IntVar(&grace, "timeout", 10, "same as --time")
	return cmd
}

// stopGrace is how long to wait before SIGKILL: as said now, else as said when
// the container was made.
func stopGrace(cmd *cobra.Command, c engine.Container, seconds int) time.Duration {
	if said := cmd.Flags().Changed("time") || cmd.Flags().Changed("timeout"); !said && c.Request.StopTimeout != nil {
		seconds = *c.Request.StopTimeout
	}
	return time.Duration(seconds) * time.Second
}

func newKill(a *app) *cobra.Command {
	var sig string
	cmd := &cobra.Command{
		Use: "kill [OPTIONS] CONTAINER [CONTAINER...]", Short: "Send a signal, SIGKILL unless another is named", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Signal(cmd.Context(), audit.Caller(), c, sig); err != nil {
					return err
				}
				return say(cmd, asked)
			})
		},
	}
	cmd.Flags().StringVarP(&sig, "signal", "s", "KILL", "`signal` to send")
	return cmd
}

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Wait until containers have ended, print their exit codes", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				exit, err := eng.Wait(cmd.Context(), c)
				if err != nil {
					return err
				}
				return say(cmd, strconv.Itoa(exit.Code))
			})
		},
	}
}

func newRm(a *app) *cobra.Command {
	var force, volumes bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] CONTAINER [CONTAINER...]", Short: "Remove containers; their records stay", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Remove(cmd.Context(), audit.Caller(), c, engine.RemoveOptions{Force: force, Volumes: volumes}); err != nil {
					return err
				}
				return say(cmd, asked)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it first if it runs")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "and the volumes that nobody named")
	return cmd
}

// say prints one line of result.
func say(cmd *cobra.Command, line string) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}
