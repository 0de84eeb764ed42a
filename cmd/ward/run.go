package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func newRun(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:         "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:       "Verify, decide, record, then run a command in a new container",
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
				return a.runContainer(cmd, eng, req, f.streams, keepID)
			})
		},
	}
	f.register(cmd)
	return cmd
}

// refuseUnread records a request that never reached the engine's own
// pipeline, as the engine records every other refusal.
func (a *app) refuseUnread(ctx context.Context, args []string, why error) error {
	log, err := a.log(ctx)
	if err != nil {
		return errors.Join(why, err)
	}
	defer log.Close()
	f := fault.As(why)
	return errors.Join(why, record(ctx, log, audit.Record{Type: audit.RunDenied, Actor: audit.Caller(), Data: audit.Denied{
		Stage: "resolve", Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: "run",
		Image: audit.Image{Reference: args[0]}, Args: args[1:],
	}}))
}

// withGate runs fn with an engine that may let req in.
func (a *app) withGate(cmd *cobra.Command, req engine.Request, fn func(*engine.Engine) error) error {
	eng, log, err := a.engine(cmd.Context())
	if log == nil {
		return err // nothing can be recorded, not even this
	}
	defer log.Close()
	if err == nil {
		// Finish first what a crash left behind; its records come before ours.
		err = eng.Reap(cmd.Context())
	}
	if err != nil {
		return a.refuseUnread(cmd.Context(), append([]string{req.Image}, req.Args...), err)
	}
	return fn(eng)
}

func (a *app) runContainer(cmd *cobra.Command, eng *engine.Engine, req engine.Request, f attachFlags, keepID func(string) error) error {
	var io engine.Stdio
	var s *session
	if !req.Detached {
		var err error
		if io, s, err = f.open(req.Terminal != nil, req.Stdin); err != nil {
			return errors.Join(noTerminal(cmd, a.refuseUnread(cmd.Context(), append([]string{req.Image}, req.Args...), err)), keepID(""))
		}
	}
	if s != nil {
		defer s.close()
	}
	started, err := eng.Run(cmd.Context(), req, io)
	if err != nil {
		return errors.Join(notStarted(cmd, err), keepID(""))
	}
	tellNotes(cmd, started)
	if err := keepID(started.ID); err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "ward: --cidfile: "+printable(err.Error())) // it runs all the same
	}
	if req.Detached || !f.wants("stdout") && !f.wants("stderr") {
		fmt.Fprintln(cmd.OutOrStdout(), started.ID)
		return started.Process.Release()
	}
	return foreground(cmd, eng, started, f, s)
}

// tellNotes says what the container has less of than was asked for.
func tellNotes(cmd *cobra.Command, c *engine.Started) {
	for _, n := range c.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(n))
	}
}

// notStarted tells a command that could not be executed (126, 127) from a run
// that was refused.
func notStarted(cmd *cobra.Command, err error) error {
	var s *sandbox.StartError
	if !errors.As(err, &s) {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(fault.As(err).Report()))
	return exitCode(s.Code)
}

// foreground waits for a container whose output this process's caller reads,
// passes signals on to it, and ends with its exit code.
func foreground(cmd *cobra.Command, eng *engine.Engine, c *engine.Started, f attachFlags, s *session) error {
	if s != nil {
		return onTerminal(cmd, eng, c, s)
	}
	// From here on a signal is the container's to answer, not ours.
	ctx := context.WithoutCancel(cmd.Context())
	if f.sigProxy {
		defer passSignals(ctx, eng, c.ID)()
	} else {
		ctx = cmd.Context() // ours: the container goes on
	}
	return ended(ctx, cmd, eng, c)
}

// ended waits for the container's end, and ends with its exit code.
func ended(ctx context.Context, cmd *cobra.Command, eng *engine.Engine, c *engine.Started) error {
	exit, err := c.Process.Wait(ctx)
	if err != nil {
		return err
	}
	if exit.OOMKilled {
		fmt.Fprintf(cmd.ErrOrStderr(), "ward: container %s was killed for exceeding its memory limit\n", c.Name)
	}
	if c.Remove {
		if err := eng.Sweep(ctx, c.Container); err != nil {
			// It is said, but 125 would say that nothing ran.
			report(cmd.ErrOrStderr(), cmd, err)
		}
	}
	if exit.Code != 0 {
		return exitCode(exit.Code)
	}
	return nil
}
