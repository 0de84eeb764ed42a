package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/sandbox"
)

// attachFlags are Docker's flags about the streams of a container.
type attachFlags struct {
	keys     string
	sigProxy bool
	// terminal and streams are those of run and create.
	terminal bool
	streams  []string
}

func (f *attachFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.keys, "detach-keys", "", "`keys` that leave the container to itself (with a terminal), ctrl-p,ctrl-q unless Docker's configuration says otherwise")
	fs.BoolVar(&f.sigProxy, "sig-proxy", true, "pass signals on to it (without a terminal)")
}

func (f *attachFlags) registerRun(fs *pflag.FlagSet) {
	f.register(fs)
	fs.BoolVarP(&f.terminal, "tty", "t", false, "give it a terminal")
	fs.StringSliceVarP(&f.streams, "attach", "a", nil, "attach to `stdin, stdout or stderr` alone")
}

// apply completes a request to run. Its input ends with the caller's if the
// caller has it, as Docker says it.
func (f *attachFlags) apply(req *engine.Request) error {
	for i, s := range f.streams {
		if f.streams[i] = strings.ToLower(s); !slices.Contains([]string{"stdin", "stdout", "stderr"}, f.streams[i]) {
			return invalid("run.attach", fmt.Sprintf("--attach %.32q is no stream", s), "valid streams are STDIN, STDOUT and STDERR")
		}
	}
	if len(f.streams) > 0 && req.Detached {
		return invalid("run.attach", "--attach and --detach contradict each other", "give one of them")
	}
	if f.terminal {
		size := ourSize()
		req.Terminal = &size
	}
	req.StdinOpen = req.Stdin && (req.Detached || !f.wants("stdin"))
	_, err := detachKeys(f.keys)
	return err
}

// wants says whether the caller gets a stream: all unless some are named.
func (f *attachFlags) wants(stream string) bool {
	return len(f.streams) == 0 || slices.Contains(f.streams, stream)
}

func newAttach(a *app) *cobra.Command {
	var f attachFlags
	var noStdin bool
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] CONTAINER", Short: "Attach to the streams of a container that runs", Args: exactly(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error { return attach(cmd, eng, args[0], f, !noStdin) })
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "do not pass standard input on")
	return cmd
}

func attach(cmd *cobra.Command, eng *engine.Engine, name string, f attachFlags, input bool) error {
	keys, err := detachKeys(f.keys)
	if err != nil {
		return err
	}
	c, err := eng.Find(cmd.Context(), name)
	if err != nil {
		return err
	}
	input = input && c.Request.Stdin
	if !c.Running() {
		_, err := eng.Attach(cmd.Context(), engine.AttachRequest{Actor: audit.Caller(), Container: c.ID}, engine.Stdio{})
		return err // refused, and on record
	}
	if err := needTerminal(c.Terminal(), input); err != nil {
		return err
	}
	s, err := newSession(c.Terminal(), input, keys)
	if err != nil {
		return err
	}
	defer s.close()
	at, err := eng.Attach(cmd.Context(), engine.AttachRequest{Actor: audit.Caller(), Container: c.ID, Stdin: input}, s.theirs)
	if err != nil {
		return err
	}
	defer at.Close()
	// From here on a signal is the container's to answer, or ends the session.
	ctx := context.WithoutCancel(cmd.Context())
	if size := ourSize(); size != (sandbox.Terminal{}) {
		// A program draws its screen anew when the size changes, and who comes back
		// often has the size of before: Docker's client, too, sets another one first.
		// One that could not be set is not worth a word.
		_ = at.Resize(ctx, sandbox.Terminal{Rows: size.Rows + 1, Columns: size.Columns + 1})
	}
	if err := s.begin(func(size sandbox.Terminal) error { return at.Resize(ctx, size) }); err != nil {
		return err
	}
	if f.sigProxy && !c.Terminal() {
		defer passSignals(ctx, eng, c.ID)()
	}
	over, err := s.end()
	s.restore()
	if !over {
		return err // the container goes on
	}
	exit, err := at.Wait(ctx)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		return exitCode(exit.Code)
	}
	return nil
}

// passSignals passes signals on to a container until the function it returns
// is called.
func passSignals(ctx context.Context, eng *engine.Engine, id string) func() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		for s := range signals {
			n := strconv.Itoa(int(s.(syscall.Signal)))
			if live, err := eng.Find(ctx, id); err == nil && live.Running() {
				if err := eng.Signal(ctx, audit.Caller(), live, n); err != nil {
					fmt.Fprintln(os.Stderr, "ward: pass on signal "+n+": "+printable(err.Error()))
				}
			}
		}
	}()
	return func() { signal.Stop(signals) }
}

// open returns what a container started in the foreground gets: the caller's
// own, or with a terminal a session's.
func (f *attachFlags) open(terminal, input bool) (engine.Stdio, *session, error) {
	var io engine.Stdio
	input = input && f.wants("stdin")
	if terminal && f.wants("stdout") {
		if err := needTerminal(true, input); err != nil {
			return io, nil, err
		}
		keys, err := detachKeys(f.keys)
		if err != nil {
			return io, nil, err
		}
		s, err := newSession(true, input, keys)
		if err != nil {
			return io, nil, err
		}
		return s.theirs, s, nil
	}
	if f.wants("stdout") {
		io.Out = os.Stdout
	}
	if f.wants("stderr") {
		io.Err = os.Stderr
	}
	if input {
		io.In = os.Stdin
	}
	return io, nil, nil
}

// onTerminal is foreground for a container with a terminal.
func onTerminal(cmd *cobra.Command, eng *engine.Engine, c *engine.Started, s *session) error {
	ctx := context.WithoutCancel(cmd.Context())
	if err := s.begin(func(size sandbox.Terminal) error { return eng.Resize(ctx, c.Container, size) }); err != nil {
		return err
	}
	over, err := s.end()
	s.restore()
	if !over {
		return errors.Join(err, eng.Detached(ctx, audit.Caller(), c.Container), c.Process.Release())
	}
	return ended(ctx, cmd, eng, c)
}
