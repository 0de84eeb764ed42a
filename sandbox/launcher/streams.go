package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
)

// stall is how long, once the payload has ended, the monitor waits for a
// caller that does not read. The output log is complete either way.
const stall = 10 * time.Second

// maxPipe is more than a pipe holds: an unprivileged process cannot make one
// larger than 1 MiB unless the host's administrator allows it.
const maxPipe = 2 << 20

// sink keeps what a stream copies, or what is to be known of it.
type sink interface {
	Write(kind audit.Stream, p []byte) error
}

// stream copies one of the payload's output streams to the output log and
// then to the caller.
type stream struct {
	kind audit.Stream
	from *os.File
	to   *os.File // nil when there is no caller, or none any more
	done chan error
	// moved counts bytes, to tell slow from stuck; gaveUp ends the copying to
	// a stuck caller.
	moved  atomic.Int64
	gaveUp atomic.Bool
	// passing says that it is the caller who is waited for.
	passing atomic.Bool
	// terminal says that from is a terminal's master, which ends otherwise.
	terminal bool
	// pace is waited for before each read; nil is as fast as it goes.
	pace *pace
	// clients are attached to the stream beside the caller.
	clients audience
}

// copyStreams starts copying in all three directions.
func (m *monitor) copyStreams() {
	out := &stream{kind: audit.Stdout, from: pipeEnd(m.FromStdout, "stdout"), to: callerFile(m.CallerOut), terminal: m.Terminal}
	m.streams = []*stream{out}
	if m.Terminal {
		m.terminal = out.from
	} else {
		m.streams = append(m.streams, &stream{kind: audit.Stderr, from: pipeEnd(m.FromStderr, "stderr"), to: callerFile(m.CallerErr)})
	}
	for _, s := range m.streams {
		s.done, s.pace = make(chan error, 1), m.pace
		go func() { s.done <- s.copy(m.output) }()
	}
	switch {
	case !m.Stdin:
		return
	case m.Terminal:
		m.input = newInput(m.terminal, true, true)
	default:
		m.input = newInput(pipeEnd(m.ToStdin, "stdin"), false, m.StdinOpen)
	}
	if m.CallerIn >= 0 {
		go m.input.feed(context.Background(), callerFile(m.CallerIn))
	}
}

// pipeEnd wraps this side of a pipe for the runtime's poller, which costs no
// thread while nothing comes. The payload's side stays as it is.
func pipeEnd(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

func callerFile(fd int) *os.File {
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), "caller")
}

// copy returns when the payload's side is closed by all who had it. An output
// log that cannot be written does not stop the payload (a full disk would
// freeze it); what was lost is counted there and reported at the end.
func (s *stream) copy(log sink) error {
	var failed error
	buf := make([]byte, 32<<10)
	for {
		n, err := s.from.Read(buf)
		if n > 0 {
			if werr := log.Write(s.kind, buf[:n]); werr != nil && failed == nil {
				failed = fmt.Errorf("output log: %w", werr)
			}
			s.clients.put(buf[:n])
			s.pass(buf[:n])
			s.moved.Add(int64(n))
		}
		// A terminal's other end has been closed by all who had it.
		if errors.Is(err, io.EOF) || s.terminal && errors.Is(err, unix.EIO) {
			return failed
		}
		if err != nil {
			return errors.Join(failed, fmt.Errorf("%s: %w", s.kind, err))
		}
		if s.gaveUp.Load() {
			return failed // drain has taken over
		}
		if s.pace != nil {
			s.pace.wait()
		}
	}
}

// cut ends the copying, but not before what is in the pipe has been taken out
// of it: on a busy machine the copier may not have come to that.
func (s *stream) cut(log sink) {
	s.from.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	raw, err := s.from.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	raw.Control(func(fd uintptr) {
		for left := maxPipe; left > 0; {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			left -= n
			log.Write(s.kind, buf[:n])
			s.pass(buf[:n])
		}
	})
}

// pass writes to the caller. One who has stopped reading (a closed pipe) is
// no concern of the payload's.
func (s *stream) pass(p []byte) {
	if s.to == nil || s.gaveUp.Load() {
		return
	}
	s.passing.Store(true)
	defer s.passing.Store(false)
	if _, err := s.to.Write(p); err != nil {
		s.to.Close()
		s.to = nil
	}
}

// drain waits, after the payload's end, until all its output is in the log.
func (m *monitor) drain() error {
	var all error
	for _, s := range m.streams {
		all = errors.Join(all, s.drain(m.output))
	}
	for _, s := range m.streams {
		s.clients.end()
	}
	return all
}

func (s *stream) drain(log sink) error {
	// What the payload wrote is in the pipe or in the copier's hands. More than
	// that comes from somebody it gave its descriptor to.
	own := s.moved.Load() + maxPipe
	for before := int64(-1); ; {
		select {
		case err := <-s.done:
			return err
		case <-time.After(stall):
		}
		if now := s.moved.Load(); now != before && now <= own {
			before = now
			continue
		}
		// The caller is stuck, and so is the goroutine writing to it; or the
		// pipe is held open by a process outside the container. Take the rest
		// from the pipe into the log and leave either behind.
		s.gaveUp.Store(true)
		if err := s.from.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return fmt.Errorf("%s: %w", s.kind, err)
		}
		rest := &stream{kind: s.kind, from: s.from, terminal: s.terminal}
		err := rest.copy(log)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%s: another process held it open after the payload's end", s.kind)
		}
		return errors.Join(err, fmt.Errorf("%s: the caller does not read", s.kind))
	}
}
