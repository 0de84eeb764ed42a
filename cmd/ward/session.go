package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// session is the client's side of a container's streams: between them and the
// person's it copies by itself, so that it can leave and the container stays.
type session struct {
	// theirs are the ends that the container gets.
	theirs engine.Stdio
	// terminal says that the container has one.
	terminal bool
	keys     []byte

	in        *os.File // to the container
	out, errs *os.File // from it
	copied    sync.WaitGroup
	raw       *term.State
	restored  sync.Once
	// left is closed when the keys were typed.
	left    chan struct{}
	signals chan os.Signal
}

// needTerminal refuses, as Docker does, to have a person type into a terminal
// through something that is none.
func needTerminal(terminal, input bool) error {
	if terminal && input && !term.IsTerminal(0) {
		return fault.New(fault.Invalid, "terminal.input", "the input device is not a TTY", "run without -t where no person types")
	}
	return nil
}

// noTerminal gives that refusal the code that Docker gives it.
func noTerminal(cmd *cobra.Command, err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Rule == "terminal.input" {
		report(cmd.ErrOrStderr(), cmd, err)
		return exitCode(1)
	}
	return err
}

// ourSize is the size of the terminal this command writes to, or zero.
func ourSize() sandbox.Terminal {
	columns, rows, err := term.GetSize(1)
	if err != nil {
		columns, rows, err = term.GetSize(0)
	}
	if err != nil {
		return sandbox.Terminal{}
	}
	return sandbox.Terminal{Rows: uint16(rows), Columns: uint16(columns)}
}

// newSession makes the pipes. With a terminal the container has one output.
func newSession(terminal, input bool, keys []byte) (_ *session, err error) {
	s := &session{terminal: terminal, keys: keys, left: make(chan struct{}), signals: make(chan os.Signal, 16)}
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	if input {
		s.theirs.In, s.in = pipe()
	}
	s.out, s.theirs.Out = pipe()
	if !terminal {
		s.errs, s.theirs.Err = pipe()
	}
	if err != nil {
		s.close()
	}
	return s, err
}

// begin copies from here on; the container has its ends. resize tells it of a
// new size of the person's terminal.
func (s *session) begin(resize func(sandbox.Terminal) error) error {
	s.closeTheirs()
	// What ends this command does not end the container; the person's terminal
	// must be put back first.
	if s.terminal {
		signal.Notify(s.signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	}
	if s.terminal && s.in != nil {
		var err error
		if s.raw, err = term.MakeRaw(0); err != nil {
			return err
		}
	}
	s.pass(os.Stdout, s.out)
	if s.errs != nil {
		s.pass(os.Stderr, s.errs)
	}
	if s.in != nil {
		go s.typed()
	}
	if s.terminal {
		go s.follow(resize)
	}
	return nil
}

func (s *session) pass(to io.Writer, from *os.File) {
	s.copied.Go(func() {
		defer s.restoreOnPanic()
		io.Copy(to, from)
	})
}

// typed passes on what the person types.
func (s *session) typed() {
	defer s.restoreOnPanic()
	var from io.Reader = os.Stdin
	if s.terminal {
		from = &keyReader{from: os.Stdin, keys: s.keys}
	}
	_, err := io.Copy(onlyWriter{s.in}, from)
	if errors.Is(err, errDetached) {
		close(s.left)
		return
	}
	s.in.Close() // the end of the person's input
}

// onlyWriter hides ReadFrom, which would splice past the keys.
type onlyWriter struct{ io.Writer }

// follow tells the container how large the person's terminal is.
func (s *session) follow(resize func(sandbox.Terminal) error) {
	defer s.restoreOnPanic()
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	for last := (sandbox.Terminal{}); ; {
		// A size that could not be set is not worth a word in a full screen.
		if now := ourSize(); now != last && resize(now) == nil {
			last = now
		}
		select {
		case <-changed:
		case <-s.left:
			return
		}
	}
}

// end returns when the container's output has ended (true), or the person has
// left it or was made to (false), with the code to end with.
func (s *session) end() (bool, error) {
	over := make(chan struct{})
	go func() {
		s.copied.Wait()
		close(over)
	}()
	select {
	case <-over:
		return true, nil
	case <-s.left:
		return false, nil
	case sig := <-s.signals:
		return false, exitCode(128 + int(sig.(syscall.Signal)))
	}
}

func (s *session) restoreOnPanic() {
	if r := recover(); r != nil {
		s.restore()
		panic(r)
	}
}

// restore puts the person's terminal back as it was.
func (s *session) restore() {
	s.restored.Do(func() {
		if s.raw != nil {
			term.Restore(0, s.raw)
		}
	})
}

func (s *session) closeTheirs() {
	for _, f := range []**os.File{&s.theirs.In, &s.theirs.Out, &s.theirs.Err} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// close leaves whatever is still there.
func (s *session) close() {
	s.restore()
	s.closeTheirs()
	for _, f := range []*os.File{s.in, s.out, s.errs} {
		if f != nil {
			f.Close()
		}
	}
}
