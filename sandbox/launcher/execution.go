package launcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// lingering is how long, once a process has ended, the rest of its output is
// waited for while nothing comes: whatever it left running in the container
// may hold its streams open for as long as the container runs.
const lingering = 100 * time.Millisecond

// execution is one process started in the container, and its streams.
type execution struct {
	x       *execs
	exec    sandbox.ExecHandover
	pid     int
	hostPID int
	pidfd   int
	started time.Time
	end     chan unix.WaitStatus

	control, gate, executed *os.File
	streams                 []*stream
	written                 digests
	// input and callerIn are nil if nothing is read, terminal if there is none.
	input              *input
	callerIn, terminal *os.File
}

// take sorts the descriptors that came with the process.
func (r *execution) take(names []sandbox.ExecFile, files []*os.File) error {
	got := map[sandbox.ExecFile]*os.File{}
	for i, name := range names {
		if got[name] != nil {
			return fault.New(fault.Invalid, "monitor.protocol", fmt.Sprintf("two descriptors are %s", name), "")
		}
		got[name] = files[i]
	}
	due := []sandbox.ExecFile{sandbox.ExecControl, sandbox.ExecGate, sandbox.ExecExecuted, sandbox.ExecListener}
	if got[sandbox.ExecTerminal] == nil {
		due = append(due, sandbox.ExecFromStdout, sandbox.ExecFromStderr)
	} else if err := isMaster(int(got[sandbox.ExecTerminal].Fd())); err != nil {
		return err
	}
	for _, name := range due {
		if got[name] == nil {
			return fault.New(fault.Invalid, "monitor.protocol", fmt.Sprintf("no descriptor is %s", name), "")
		}
	}
	r.control, r.gate, r.executed = got[sandbox.ExecControl], got[sandbox.ExecGate], got[sandbox.ExecExecuted]
	listener, err := unix.FcntlInt(got[sandbox.ExecListener].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	got[sandbox.ExecListener].Close()
	if err := r.x.m.denied.adopt(listener); err != nil {
		return fmt.Errorf("refused calls: %w", err)
	}
	r.callerIn = got[sandbox.ExecCallerIn]
	if t := got[sandbox.ExecTerminal]; t != nil {
		out := &stream{kind: audit.Stdout, from: polled(t), to: got[sandbox.ExecCallerOut], terminal: true, done: make(chan error, 1)}
		r.streams, r.terminal, r.input = []*stream{out}, out.from, newInput(out.from, true, true)
		return nil
	}
	r.streams = []*stream{
		{kind: audit.Stdout, from: polled(got[sandbox.ExecFromStdout]), to: got[sandbox.ExecCallerOut], done: make(chan error, 1)},
		{kind: audit.Stderr, from: polled(got[sandbox.ExecFromStderr]), to: got[sandbox.ExecCallerErr], done: make(chan error, 1)},
	}
	if in := got[sandbox.ExecToStdin]; in != nil {
		r.input = newInput(polled(in), false, false)
	}
	return nil
}

// polled is f for the runtime's poller, as pipeEnd.
func polled(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return f
	}
	f.Close()
	return pipeEnd(fd, "stream")
}

// observe is the life of a process as the monitor sees it, top to bottom.
func (r *execution) observe() {
	defer r.x.release()
	defer unix.Close(r.pidfd)
	defer r.control.Close()
	for _, s := range r.streams {
		s.pace = r.x.m.pace
		go func() { s.done <- s.copy(&r.written) }()
	}
	r.feed()
	if err := r.begun(); err != nil {
		// Nothing of it stays, and its caller puts on record why.
		unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0)
		<-r.end
		r.hangUp()
		r.tell(sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err), Code: startCode(err)})
		return
	}
	// A caller that went away before it heard of a process was promised none.
	if err := r.tell(sandbox.Message{Kind: sandbox.MessageStarted, PID: r.hostPID, MonitorPID: r.x.m.MonitorPID, Started: r.started}); err != nil {
		unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0)
	}
	status := <-r.end
	exit := sandbox.Exit{Started: r.started, Finished: time.Now(), Code: status.ExitStatus()}
	if status.Signaled() {
		exit.Signal = int(status.Signal())
		exit.Code = 128 + exit.Signal
	}
	r.hangUp()
	if err := r.recordEnd(exit); err != nil {
		exit.Error = err.Error()
	}
	r.tell(sandbox.Message{Kind: sandbox.MessageExit, Exit: &exit})
}

// begun lets the process go and returns when the process has been executed and that is on record.
func (r *execution) begun() error {
	if err := letGo(r.gate, r.executed, r.exec.Arg0); err != nil {
		return err
	}
	r.started = time.Now()
	if err := r.post(audit.ExecStart, audit.ExecProcess{Exec: r.exec.Exec, PID: r.hostPID}); err != nil {
		return fault.Wrap(fault.Unrecorded, "launch.audit", fmt.Errorf("record start: %w", err), "see `ward audit verify`")
	}
	return nil
}

func startCode(err error) int {
	var se *sandbox.StartError
	if errors.As(err, &se) {
		return se.Code
	}
	return 0
}

// feed passes the caller's input on.
func (r *execution) feed() {
	switch {
	case r.input == nil:
	case r.callerIn == nil:
		r.input.close()
	default:
		go r.input.feed(context.Background(), r.callerIn)
	}
}

// hangUp takes what is left of the output and then closes all streams, also to
// processes that this one has left behind.
func (r *execution) hangUp() {
	for _, s := range r.streams {
		for moved, ended := s.moved.Load(), false; !ended; {
			select {
			case <-s.done:
				ended = true
			case <-time.After(lingering):
				now := s.moved.Load()
				if ended = now == moved && !s.passing.Load(); ended {
					s.cut(&r.written)
				}
				moved = now
			}
		}
		s.from.Close()
		if s.to != nil {
			s.to.Close()
		}
	}
	if r.callerIn != nil {
		r.callerIn.Close()
	}
}

func (r *execution) recordEnd(exit sandbox.Exit) error {
	return r.post(audit.ExecExit, audit.ExecEnd{Exec: r.exec.Exec, Code: exit.Code, Signal: exit.Signal,
		DurationMS: exit.Finished.Sub(exit.Started).Milliseconds(),
		Stdout:     r.written.sum(audit.Stdout), Stderr: r.written.sum(audit.Stderr)})
}

func (r *execution) post(t audit.Type, data any) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	return r.x.m.log.Post(ctx, audit.Record{Type: t, Run: r.x.m.Run, Actor: r.x.m.actor, Data: data})
}

func (r *execution) tell(m sandbox.Message) error { return sandbox.Send(int(r.control.Fd()), m) }

// endStrangers kills the children of the monitor's that it knows nothing of:
// what a launcher had started when it died.
func (x *execs) endStrangers() {
	es, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !x.strange(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if x.strange(pid) { // still the same one
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

func (x *execs) strange(pid int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if pid == x.m.PID || x.running[pid] != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// "pid (name) state ppid …", where the name may hold anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return len(f) > 1 && f[1] == strconv.Itoa(os.Getpid())
}

// digests are counts and digests of what went through the streams.
type digests struct {
	mu             sync.Mutex
	stdout, stderr struct {
		bytes int64
		hash  hash.Hash
	}
}

// Write counts p.
func (d *digests) Write(kind audit.Stream, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.stdout
	if kind == audit.Stderr {
		s = &d.stderr
	}
	if s.hash == nil {
		s.hash = sha256.New()
	}
	s.hash.Write(p)
	s.bytes += int64(len(p))
	return nil
}

func (d *digests) sum(kind audit.Stream) audit.Written {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stdout
	if kind == audit.Stderr {
		s = d.stderr
	}
	if s.hash == nil {
		return audit.Written{}
	}
	return audit.Written{Bytes: s.bytes, SHA256: hex.EncodeToString(s.hash.Sum(nil))}
}
