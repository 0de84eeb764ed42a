package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
)

func newCreate(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:         "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:       "Verify and decide, and make a container to be started later",
		Args:        atLeast(1, "an IMAGE"),
		Annotations: map[string]string{"exit": runVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd.Flags(), args)
			if err != nil {
				return a.refuseUnread(cmd.Context(), args, err)
			}
			return a.withGate(cmd, req, func(eng *engine.Engine) error {
				keepID, err := f.host.reserveCID()
				if err != nil {
					return a.refuseUnread(cmd.Context(), args, err)
				}
				c, err := eng.Create(cmd.Context(), req)
				if err != nil {
					return errors.Join(err, keepID(""))
				}
				if err := keepID(c.ID); err != nil {
					return err
				}
				return say(cmd, c.ID)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newStart(a *app) *cobra.Command {
	var attach, interactive bool
	var f attachFlags
	cmd := &cobra.Command{
		Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Short: "Start containers that do not run, through the whole gate", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if attach || interactive {
				if len(args) != 1 {
					return invalid("start.attach", "only one container can be attached to", "start the others without -a and -i")
				}
				return a.startAttached(cmd, args[0], f, interactive)
			}
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if c.Running() {
					return say(cmd, asked) // as Docker: it is what was wanted
				}
				return a.startAgain(cmd, eng, c, asked)
			})
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "pass its output on, and signals to it")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "pass standard input on")
	return cmd
}

// startAgain starts a container in the background and says what it was asked by.
func (a *app) startAgain(cmd *cobra.Command, eng *engine.Engine, c engine.Container, asked string) error {
	started, err := eng.Start(cmd.Context(), audit.Caller(), c, engine.Stdio{})
	if err != nil {
		return err
	}
	tellNotes(cmd, started)
	if err := started.Process.Release(); err != nil {
		return err
	}
	return say(cmd, asked)
}

func (a *app) startAttached(cmd *cobra.Command, name string, f attachFlags, interactive bool) error {
	return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
		c, err := eng.Find(cmd.Context(), name)
		if err != nil {
			return err
		}
		io, s, err := f.open(c.Terminal(), interactive && c.Request.Stdin)
		if err != nil {
			return err
		}
		if s != nil {
			defer s.close()
		}
		started, err := eng.Start(cmd.Context(), audit.Caller(), c, io)
		if err != nil {
			return notStarted(cmd, err)
		}
		tellNotes(cmd, started)
		return foreground(cmd, eng, started, f, s)
	})
}

func newRestart(a *app) *cobra.Command {
	var grace int
	cmd := &cobra.Command{
		Use: "restart [OPTIONS] CONTAINER [CONTAINER...]", Short: "Stop containers and start them again, through the whole gate", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Stop(cmd.Context(), audit.Caller(), c, stopGrace(cmd, c, grace)); err != nil {
					return err
				}
				return a.startAgain(cmd, eng, c, asked)
			})
		},
	}
	cmd.Flags().IntVarP(&grace, "time", "t", 10, "`seconds` to wait before SIGKILL; -1 for ever")
	cmd.Flags().IntVar(&grace, "timeout", 10, "same as --time")
	return cmd
}

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: exactly(2, "a CONTAINER and a NEW_NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				c, err := eng.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return eng.Rename(cmd.Context(), audit.Caller(), c, args[1])
			})
		},
	}
}
