package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine/oci"
	"github.com/ward-project/ward/sandbox"
)

func newRun(a *app) *cobra.Command {
	f := &startFlags{}
	cmd := &cobra.Command{
		Use: "run [flags] ID", Short: "create and start a container", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, f, args[0]) },
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "do not wait for its end")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "do not delete it after its end")
	cmd.Flags().BoolVar(&f.noSubreaper, "no-subreaper", false, "")
	_ = cmd.Flags().MarkHidden("no-subreaper") // without one its end could not be waited for
	return cmd
}

// run is create, start and, in the foreground, wait and delete.
func (a *app) run(cmd *cobra.Command, f *startFlags, id string) error {
	req, err := f.request(a, id)
	if err != nil {
		return err
	}
	if err := consoleFits(req, f.detach); err != nil {
		return err
	}
	g, err := a.gate()
	if err != nil {
		return err
	}
	terminal, err := oci.Terminal(req.Bundle)
	if err != nil {
		terminal = false // the gate says what is wrong, on record
	}
	s, err := a.streams(!f.detach, terminal, req.ConsoleSocket)
	if err != nil {
		return err
	}
	defer s.close()
	if s.files.Extra, err = preserved(f.preserve); err != nil {
		return err
	}
	pid, err := g.Create(cmd.Context(), req, s.files)
	if err != nil {
		return err
	}
	if err := errors.Join(s.begin(pid), g.Start(cmd.Context(), a.root, id, a.files())); err != nil {
		return errors.Join(err, g.Delete(cmd.Context(), a.root, id, true, a.files()))
	}
	if f.detach {
		return nil
	}
	code, err := s.wait(pid)
	if !f.keep {
		err = errors.Join(err, g.Delete(cmd.Context(), a.root, id, err != nil, a.files()))
	}
	if err != nil {
		return err
	}
	return exited(code)
}

func exited(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

// streams connects the payload with this program's streams: directly where
// this program goes away, else through pipes or a terminal of its own.
func (a *app) streams(foreground, terminal bool, socket string) (*streams, error) {
	s := &streams{files: a.files()}
	if !foreground {
		if terminal {
			s.files = sandbox.OCIFiles{Log: a.log}
		}
		return s, nil
	}
	s.foreground = true
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	if terminal && socket == "" {
		return s, s.openTerminal()
	}
	return s, s.openPipes()
}
