package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// Running is a container as its starter sees it: a child process (the
// monitor) and the control socket to it. Its methods are safe for concurrent
// use.
type Running struct {
	proc       *os.Process
	control    *os.File
	hostPID    int
	monitorPID int
	started    time.Time
	// ready says that the launcher has accepted plan and receipt.
	ready bool

	once sync.Once
	done chan struct{}
	exit Exit
	err  error
}

// HostPID is the payload's process id in the host's PID namespace.
func (p *Running) HostPID() int { return p.hostPID }

// MonitorPID is the monitor's process id in the host's PID namespace.
func (p *Running) MonitorPID() int { return p.monitorPID }

// Started is when the payload was executed, by the monitor's clock.
func (p *Running) Started() time.Time { return p.started }

// Wait returns how the container ended, once its exit is on record. If ctx
// ends first the container goes on. An error means that the monitor, and so
// the container, died without a report: rule "monitor.lost".
func (p *Running) Wait(ctx context.Context) (Exit, error) {
	p.once.Do(func() { go p.await() })
	select {
	case <-p.done:
		return p.exit, p.err
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait: %w", ctx.Err())
	}
}

func (p *Running) await() {
	defer close(p.done)
	var m Message
	err := readJSON(p.control, &m)
	p.control.Close()
	// Reaped also to have its processor time in this process's account.
	p.proc.Wait()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		p.err = fault.New(fault.Internal, "monitor.lost",
			fmt.Sprintf("the monitor (process %d) died, and the container with it", p.monitorPID), "see `ward audit log`")
	case err != nil:
		p.err = fault.Wrap(fault.Internal, "launch.protocol", fmt.Errorf("monitor's answer: %w", err), "")
	case m.Kind == MessageExit && m.Exit != nil:
		p.exit = *m.Exit
	case m.Kind == MessageError && m.Error != nil:
		p.err = m.Error
	default:
		p.err = fault.New(fault.Internal, "launch.protocol", fmt.Sprintf("monitor said %q when %q was due", m.Kind, MessageExit), "")
	}
}

// Release lets the container go on by itself; Wait must not be called after
// it. It is what a detached start does before its process ends.
func (p *Running) Release() error {
	if err := p.control.Close(); err != nil {
		return err
	}
	return p.proc.Release()
}

// kill ends a launcher that did not start anything. The kernel ends whatever
// it had started: it is the first process of its PID namespace.
func (p *Running) kill() {
	p.control.Close()
	p.proc.Kill()
	p.proc.Wait()
}
