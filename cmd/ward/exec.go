package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// execFlags are Docker's flags of exec.
type execFlags struct {
	user, workdir                  string
	env, envFiles                  []string
	detach, interactive, tty, priv bool
	detachKeys                     string
}

func newExec(a *app) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:         "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short:       "Verify, decide, record, then run another command in a container that runs",
		Args:        atLeast(2, "a CONTAINER and a COMMAND"),
		Annotations: map[string]string{"exit": runVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(args)
			if err != nil {
				return noTerminal(cmd, a.refuseExec(cmd.Context(), req, err))
			}
			return notThere(cmd, a.withEngine(cmd.Context(), func(eng *engine.Engine) error { return execIn(cmd, eng, req, f) }))
		},
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&f.detach, "detach", "d", false, "run in the background")
	fs.StringVar(&f.detachKeys, "detach-keys", "", "`keys` that leave the command to itself (with a terminal)")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable, `NAME[=VALUE]`")
	fs.StringArrayVar(&f.envFiles, "env-file", nil, "read environment variables from a `file`")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input on")
	fs.BoolVar(&f.priv, "privileged", false, "refused: no process gets more than its container")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	fs.StringVarP(&f.user, "user", "u", "", "`user[:group]`, names or numbers")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "working `directory` inside the container")
	return cmd
}

func (f *execFlags) request(args []string) (engine.ExecRequest, error) {
	req := engine.ExecRequest{Actor: audit.Caller(), Container: args[0], Args: args[1:], User: f.user, WorkingDir: f.workdir, Stdin: f.interactive && !f.detach}
	if f.priv {
		return req, fault.New(fault.Denied, "exec.privileged", "no process gets more privileges than its container has", "run without --privileged")
	}
	if f.tty {
		size := ourSize()
		req.Terminal = &size
	}
	if _, err := detachKeys(f.detachKeys); err != nil {
		return req, err
	}
	if err := needTerminal(f.tty, req.Stdin); err != nil {
		return req, err
	}
	env := runFlags{env: f.env, envFiles: f.envFiles}
	var r engine.Request
	if err := env.environment(&r); err != nil {
		return req, err
	}
	req.Env = r.Env
	return req, nil
}

// refuseExec records a request that never reached the engine's own pipeline.
func (a *app) refuseExec(ctx context.Context, req engine.ExecRequest, why error) error {
	log, err := a.log(ctx)
	if err != nil {
		return errors.Join(why, err)
	}
	defer log.Close()
	f := fault.As(why)
	return errors.Join(why, record(ctx, log, audit.Record{Type: audit.ExecDenied, Actor: req.Actor, Data: audit.Denied{
		Stage: "resolve", Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: "exec",
		Container: req.Container, Args: req.Args,
	}}))
}

// notThere gives a container that is not there or does not run the code that
// Docker gives it: the command did not fail, and was not refused either.
func notThere(cmd *cobra.Command, err error) error {
	var f *fault.Error
	if errors.As(err, &f) && (f.Rule == "container.unknown" || f.Rule == "container.state" || f.Rule == "container.paused" || f.Rule == "container.ambiguous") {
		report(cmd.ErrOrStderr(), cmd, err)
		return exitCode(1)
	}
	return err
}

func execIn(cmd *cobra.Command, eng *engine.Engine, req engine.ExecRequest, f execFlags) error {
	if f.tty && !f.detach {
		return execOnTerminal(cmd, eng, req, f)
	}
	var io engine.Stdio
	if !f.detach {
		io.Out, io.Err = os.Stdout, os.Stderr
		if req.Stdin {
			io.In = os.Stdin
		}
	}
	started, err := eng.Exec(cmd.Context(), req, io)
	if err != nil {
		return notStarted(cmd, err)
	}
	if f.detach {
		return started.Process.Release()
	}
	return execEnded(cmd.Context(), started)
}

// execOnTerminal has a person type at the command, until it ends or they leave.
func execOnTerminal(cmd *cobra.Command, eng *engine.Engine, req engine.ExecRequest, f execFlags) error {
	keys, err := detachKeys(f.detachKeys)
	if err != nil {
		return err
	}
	s, err := newSession(true, req.Stdin, keys)
	if err != nil {
		return err
	}
	defer s.close()
	started, err := eng.Exec(cmd.Context(), req, s.theirs)
	if err != nil {
		return notStarted(cmd, err)
	}
	ctx := context.WithoutCancel(cmd.Context())
	if err := s.begin(func(size sandbox.Terminal) error { return eng.ResizeExec(ctx, started.Container, started.ID, size) }); err != nil {
		return err
	}
	over, err := s.end()
	s.restore()
	if !over {
		return errors.Join(err, started.Process.Release())
	}
	return execEnded(ctx, started)
}

// execEnded waits for the command's end, and ends with its exit code.
func execEnded(ctx context.Context, started *engine.StartedExec) error {
	exit, err := started.Process.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		return exitCode(130) // interrupted, as Docker: the command goes on
	}
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return exitCode(exit.Code)
	}
	return nil
}
