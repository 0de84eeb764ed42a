package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ward-project/ward/sandbox"
)

// streams copies between this program's streams and the payload's for as long
// as the payload runs. The payload gets none of this program's own: it would
// see where they lead on the host.
type streams struct {
	files      sandbox.OCIFiles
	foreground bool

	owned   files // the payload's ends, closed once it has them
	in      *os.File
	outs    []outgoing
	console *os.File // receives the terminal's master
	master  *os.File
	restore func()
	copies  sync.WaitGroup
}

type files []*os.File

func (f files) close() {
	for _, o := range f {
		o.Close()
	}
}

type outgoing struct{ from, to *os.File }

// becomeSubreaper makes this process the parent of what it starts, once the
// launcher in between has ended.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	return nil
}

func (s *streams) openPipes() error {
	var err error
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	errR, errW := pipe()
	if err != nil {
		return err
	}
	s.files.In, s.files.Out, s.files.Err = inR, outW, errW
	s.owned = files{inR, outW, errW}
	s.in = inW
	s.outs = []outgoing{{outR, os.Stdout}, {errR, os.Stderr}}
	return nil
}

// openTerminal makes the socket over which the terminal's master comes.
func (s *streams) openTerminal() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	s.console = os.NewFile(uintptr(fds[0]), "console")
	theirs := os.NewFile(uintptr(fds[1]), "console")
	s.files = sandbox.OCIFiles{Log: s.files.Log, Console: theirs}
	s.owned = files{theirs}
	return nil
}

// begin starts copying, once the payload's process exists.
func (s *streams) begin(pid int) error {
	if !s.foreground {
		return nil
	}
	s.owned.close()
	s.owned = nil
	if s.console != nil {
		if err := s.takeMaster(); err != nil {
			return err
		}
		s.in = s.master
		s.outs = []outgoing{{s.master, os.Stdout}}
	}
	s.forward(pid)
	go func() {
		_, _ = io.Copy(s.in, os.Stdin) // the payload may end before its input
		if s.master == nil {
			s.in.Close()
		}
	}()
	for _, o := range s.outs {
		s.copies.Go(func() { _, _ = io.Copy(o.to, o.from) }) // a terminal ends with EIO
	}
	return nil
}

// takeMaster receives the terminal and makes this one's, if it is one, raw.
func (s *streams) takeMaster() error {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(s.console.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	cs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(cs) != 1 {
		return errors.Join(errors.New("no terminal came"), err)
	}
	fds, err := unix.ParseUnixRights(&cs[0])
	if err != nil || len(fds) != 1 {
		return errors.Join(errors.New("no terminal came"), err)
	}
	// Through the poller, so that closing it ends a read.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return err
	}
	s.master = os.NewFile(uintptr(fds[0]), "terminal")
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		s.restore = func() { _ = term.Restore(fd, old) }
	}
	s.resize()
	return nil
}

func (s *streams) resize() {
	if s.master == nil {
		return
	}
	size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return // no terminal here: the payload's keeps its size
	}
	if raw, err := s.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}

// forward passes signals on to the payload.
func (s *streams) forward(pid int) {
	c := make(chan os.Signal, 64)
	signal.Notify(c)
	go func() {
		for sig := range c {
			switch sig {
			case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
			case unix.SIGWINCH:
				s.resize()
			default:
				_ = unix.Kill(pid, sig.(syscall.Signal)) // it may have ended
			}
		}
	}()
}

// wait returns the payload's exit code once it has ended and all its output
// is copied.
func (s *streams) wait(pid int) (int, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
	}
	s.copies.Wait()
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (s *streams) close() {
	s.owned.close()
	if s.restore != nil {
		s.restore()
	}
}
