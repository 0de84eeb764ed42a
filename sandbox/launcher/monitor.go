package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// recordTimeout bounds how long the end of a run waits for the audit log.
const recordTimeout = 10 * time.Second

// monitor is the parent of one container. It is the first process of the PID
// namespace around the container's, so that the kernel kills the container
// with it; it has CAP_KILL alone.
type monitor struct {
	handover
	log     *audit.Log
	output  *audit.Output
	actor   audit.Actor
	pidfd   int
	started time.Time
	streams []*stream
	pace    *pace
	denied  *denials
	// terminal is the master of the payload's, input is the payload's; nil is none.
	terminal *os.File
	input    *input

	server *server
	execs  *execs
	done   chan struct{} // closed when exit is set
	exit   sandbox.Exit
	oomed  *oomWatch

	// mu is held while the container is changed: its limits, whether it is
	// paused, and the status that says so.
	mu     sync.Mutex
	status sandbox.Status
	// changed is the number of the last change of limits that was made, settled
	// that up to which no more are.
	changed, settled int
}

// Monitor is the main function of ward-launch as the launcher executes it over
// itself; arg is the number of the descriptor with the handover. It does not
// return.
func Monitor(arg string) {
	m, err := takeOver(arg)
	if err == nil {
		err = m.run()
	}
	if err != nil {
		m.fail(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// takeOver reads the handover and makes sure that nothing else is inherited.
func takeOver(arg string) (*monitor, error) {
	m := &monitor{done: make(chan struct{})}
	m.execs = newExecs(m)
	err := readHandover(arg, &m.handover)
	if err != nil {
		return m, err
	}
	for _, fd := range m.descriptors() {
		unix.CloseOnExec(fd)
	}
	m.pidfd, err = unix.PidfdOpen(m.PID, 0)
	return m, err
}

// run is the monitor's life, top to bottom. Everything that can fail is made
// before the payload is let go.
func (m *monitor) run() error {
	var err error
	if m.log, err = audit.Open(m.AuditDir); err != nil {
		return fault.Wrap(fault.Unrecorded, "launch.audit", err, "see `ward audit verify`")
	}
	if m.output, err = m.createOutput(); err != nil {
		return fault.Wrap(fault.Unrecorded, "launch.output", fmt.Errorf("output log: %w", err), "")
	}
	m.actor = audit.Caller()
	m.actor.PID = m.MonitorPID
	m.denied = newDenials(m.Seccomp)
	if err := m.denied.adopt(m.Listener); err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	m.pace = newPace(m.Limits)
	m.copyStreams() // clients of the server look for them
	if m.server, err = listen(m); err != nil {
		return err
	}
	m.oomed = newOOMWatch(m)
	m.forwardSignals()
	if err := m.letGo(); err != nil {
		return err
	}
	m.started = time.Now()
	if err := m.recordStart(); err != nil {
		return err
	}
	status, err := m.reap()
	if err != nil {
		return fmt.Errorf("wait for the payload: %w", err)
	}
	return m.finish(status)
}

// reap returns how the payload ended. All others that end as children of this
// process were started in the container later, or left behind on the way.
func (m *monitor) reap() (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return status, err
		case pid == m.PID:
			return status, nil
		default:
			m.execs.ended(pid, status)
		}
	}
}

// createOutput makes this start's output log. That it makes it, and that there
// is none of a later start, is also what keeps a receipt from serving twice.
func (m *monitor) createOutput() (*audit.Output, error) {
	es, err := os.ReadDir(m.ContainerDir)
	if err != nil {
		return nil, err
	}
	for _, e := range es {
		if n := sandbox.OutputStart(e.Name()); n > m.Start {
			return nil, fmt.Errorf("start %d comes after start %d", m.Start, n)
		}
	}
	o, err := audit.CreateOutput(filepath.Join(m.ContainerDir, sandbox.OutputFile(m.Start)))
	if err != nil {
		return nil, err
	}
	switch {
	case m.Limits.OutputFiles > 0:
		err = o.Rotate(m.Limits.OutputFile, m.Limits.OutputFiles)
	case m.Limits.Output > 0:
		o.Limit(m.Limits.Output)
	default:
		o.Discard()
	}
	return o, err
}

// letGo opens the gate and returns once the payload has been executed.
func (m *monitor) letGo() error {
	return letGo(os.NewFile(uintptr(m.Gate), "gate"), os.NewFile(uintptr(m.FromExec), "executed"), m.Arg0)
}

func letGo(gate, fromExec *os.File, arg0 string) error {
	defer gate.Close()
	defer fromExec.Close()
	if _, err := gate.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(fromExec, 4096))
	if err != nil {
		return err
	}
	if len(said) > 0 {
		return stageError(arg0, said)
	}
	// End of file without a word: executed, or killed before it could speak.
	// The latter shows in the exit, as for a payload killed at once.
	return nil
}

// recordStart records the start, and tells the caller only then.
func (m *monitor) recordStart() error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	err := m.log.Post(ctx, audit.Record{Type: audit.RunStart, Run: m.Run, Actor: m.actor,
		Data: audit.Start{PID: m.HostPID, MonitorPID: m.MonitorPID, Cgroup: filepath.Join(cgroupParent, m.Container)}})
	if err != nil {
		return fault.Wrap(fault.Unrecorded, "launch.audit", fmt.Errorf("record start: %w", err), "see `ward audit verify`")
	}
	m.mu.Lock()
	m.status = sandbox.Status{Phase: sandbox.PhaseRunning, Run: m.Run, Start: m.Start, PID: m.HostPID, MonitorPID: m.MonitorPID, Started: m.started}
	err = sandbox.WriteStatus(m.ContainerDir, m.status)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	go m.oomed.watch()
	tell(sandbox.Message{Kind: sandbox.MessageStarted, PID: m.HostPID, MonitorPID: m.MonitorPID, Started: m.started})
	// Diagnostics have no reader any more.
	return redirect(2, os.DevNull)
}

// finish records how the payload ended, cleans up, and tells everybody.
func (m *monitor) finish(status unix.WaitStatus) error {
	m.exit = sandbox.Exit{Started: m.started, Finished: time.Now()}
	switch {
	case status.Signaled():
		m.exit.Signal = int(status.Signal())
		m.exit.Code = 128 + m.exit.Signal
	default:
		m.exit.Code = status.ExitStatus()
	}
	m.exit.Usage = sandbox.ReadUsage(m.Cgroups)
	m.exit.DeniedSyscalls = m.denied.list()
	m.exit.OOMKilled = m.exit.Signal == int(unix.SIGKILL) && m.exit.Usage.OOMKills > 0
	var problems []error
	problems = append(problems, m.drain(), m.execs.finish())
	problems = append(problems, m.recordExit(), m.cleanUp())
	if err := errors.Join(problems...); err != nil {
		m.exit.Error = err.Error()
	}
	exit := m.exit
	m.mu.Lock()
	m.status = sandbox.Status{Phase: sandbox.PhaseExited, Run: m.Run, Start: m.Start, PID: m.HostPID,
		MonitorPID: m.MonitorPID, Started: m.started, Finished: exit.Finished, Exit: &exit}
	err := sandbox.WriteStatus(m.ContainerDir, m.status)
	m.mu.Unlock()
	if err != nil {
		m.exit.Error = errors.Join(errors.New(m.exit.Error), err).Error()
		exit = m.exit
	}
	// Before the caller hears of the end it must be able to take the lock.
	unix.Close(sandbox.FDLock)
	close(m.done)
	m.server.flush()
	tell(sandbox.Message{Kind: sandbox.MessageExit, Exit: &exit})
	return nil
}

// recordExit posts the end of the run as one batch, so that either all of it
// is in the log or none.
func (m *monitor) recordExit() error {
	e := m.exit
	took := e.Finished.Sub(e.Started).Milliseconds()
	anchor := m.output.Anchor()
	seal, sealErr := m.output.Seal()
	seal.DurationMS = took
	record := func(t audit.Type, data any) audit.Record {
		return audit.Record{Type: t, Run: m.Run, Actor: m.actor, Data: data}
	}
	var batch []audit.Record
	if e.Usage.OOMKills > m.oomed.end() {
		batch = append(batch, record(audit.RunOOM, m.oom(e.Usage.OOMKills)))
	}
	if len(e.DeniedSyscalls) > 0 {
		batch = append(batch, record(audit.RunDeniedSyscalls, recordedDenials(e.DeniedSyscalls)))
	}
	batch = append(batch,
		record(audit.RunAnchor, anchor),
		record(audit.RunExit, audit.Exit{Code: e.Code, Signal: e.Signal, OOM: e.OOMKilled, DurationMS: took, Usage: recordedUsage(e.Usage)}),
		record(audit.RunSeal, seal))
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := m.log.Post(ctx, batch...); err != nil {
		return errors.Join(fmt.Errorf("record exit: %w", err), sealErr)
	}
	return errors.Join(sealErr, m.log.Close())
}

// cleanUp removes what is left on the host.
func (m *monitor) cleanUp() error {
	return errors.Join(removeCgroups(m.Cgroups), m.server.remove())
}

// fail kills the container, cleans up and reports; nothing of the run is left.
func (m *monitor) fail(err error) {
	if m.pidfd > 0 {
		unix.PidfdSendSignal(m.pidfd, unix.SIGKILL, nil, 0)
		wait(m.PID)
	}
	if cerr := removeCgroups(m.Cgroups); cerr != nil {
		err = errors.Join(err, cerr)
	}
	if m.server != nil {
		err = errors.Join(err, m.server.remove())
	}
	msg := sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err)}
	var se *sandbox.StartError
	if errors.As(err, &se) {
		msg.Code = se.Code
	}
	unix.Close(sandbox.FDLock)
	tell(msg)
}

// tell sends to the caller, who may have gone: a detached start, or killed.
func tell(msg sandbox.Message) {
	if err := sandbox.Send(sandbox.FDControl, msg); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		fmt.Fprintln(os.Stderr, "ward-launch:", err)
	}
}

func redirect(fd int, name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Dup3(int(f.Fd()), fd, 0)
}

var ignored sync.Once

// forwardSignals passes on what a host shutting down or an administrator sends
// to the monitor; a monitor ended by it would take the container along before
// it could stop by itself.
func (m *monitor) forwardSignals() {
	ignored.Do(func() { signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE) })
	c := make(chan os.Signal, 4)
	signal.Notify(c, unix.SIGTERM)
	go func() {
		for s := range c {
			m.signal(s.(syscall.Signal))
		}
	}()
}

func (m *monitor) signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(m.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fault.New(fault.NotFound, "monitor.gone", "the container has ended", "")
	}
	return err
}
