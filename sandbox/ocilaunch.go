package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
)

// OCIFiles are the descriptors of an OCI caller. Nil is the null device.
type OCIFiles struct {
	// In, Out and Err become the payload's own.
	In, Out, Err *os.File
	// Console is a socket that gets the terminal's master, where the plan names
	// no path of one.
	Console *os.File
	// Log gets libcontainer's warnings.
	Log *os.File
	// Extra are the descriptors that go to the payload from 3 on.
	Extra []*os.File
}

// LaunchOCI starts what an encoded OCI plan says and returns the process id of
// the container's first process, or of the process that was added. It is no
// child of this process: its parent is the launcher, until that ends, and then
// the nearest subreaper. r must prove the intent of exactly this plan. lock is
// the container's; its monitor keeps it. When ctx ends before, nothing runs.
func (l *Launcher) LaunchOCI(ctx context.Context, plan []byte, r receipt.Receipt, io OCIFiles, lock *os.File) (int, error) {
	proof := r.Bytes()
	if len(proof) == 0 {
		return 0, fault.New(fault.Unrecorded, "launch.no-receipt", "there is no receipt for this start", "")
	}
	p, err := DecodeOCIPlan(plan)
	if err != nil {
		return 0, err
	}
	if err := DefaultFloor().CheckOCI(p); err != nil {
		return 0, err
	}
	var owned files
	defer owned.close()
	planFile, proofFile := owned.add(sealed("ward-plan", plan)), owned.add(sealed("ward-receipt", proof))
	null := owned.add(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	if owned.err != nil {
		return 0, fault.Wrap(fault.Internal, "launch.setup", owned.err, "")
	}
	var m *ociMonitor
	if p.Op == OCICreate {
		if m, err = l.ociMonitor(ctx, planFile, proofFile, null, lock); err != nil {
			return 0, err
		}
		defer m.close()
	}
	started, err := l.ociRun(ctx, OCICommandLaunch, io, null, m.files(planFile, proofFile, null))
	if err != nil {
		m.kill()
		return 0, err
	}
	if started.PID <= 0 {
		m.kill()
		return 0, fault.New(fault.Internal, "launch.protocol", "the launcher named no process", "")
	}
	return started.PID, nil
}

// Operate has the launcher do something with a container that exists. What it
// prints goes to io.Out.
func (l *Launcher) Operate(ctx context.Context, req OCIRequest, io OCIFiles) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	var owned files
	defer owned.close()
	request := owned.add(sealed("ward-request", b))
	null := owned.add(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	if owned.err != nil {
		return fault.Wrap(fault.Internal, "launch.setup", owned.err, "")
	}
	_, err = l.ociRun(ctx, OCICommandOperate, io, null, []*os.File{request, null, null, null})
	return err
}

// ociMonitor is a monitor that waits for its container.
type ociMonitor struct {
	proc     *os.Process
	pidfd    *os.File
	handover *os.File
}

// ociMonitor starts the monitor of a container, in a PID namespace that it is
// the first process of, and returns when it has accepted plan and receipt.
func (l *Launcher) ociMonitor(ctx context.Context, plan, proof, null, lock *os.File) (*ociMonitor, error) {
	var owned files
	defer owned.close()
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "launch.setup", err, "")
	}
	owned.add(ours, nil)
	owned.add(theirs, nil)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "launch.setup", fmt.Errorf("socketpair: %w", err), "")
	}
	m := &ociMonitor{handover: os.NewFile(uintptr(fds[0]), "handover")}
	monitors := owned.add(os.NewFile(uintptr(fds[1]), "handover"), nil)
	pidfd := -1
	m.proc, err = os.StartProcess(l.path, []string{OCIName, OCICommandMonitor}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"},
		Files: []*os.File{null, null, null, plan, proof, theirs, or(lock, null), monitors},
		Sys:   &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setsid: true, PidFD: &pidfd},
	})
	runtime.KeepAlive(lock)
	if err != nil {
		m.handover.Close()
		return nil, fault.Wrap(fault.Unavailable, "launcher.start", fmt.Errorf("start %s: %w", l.path, err), "")
	}
	m.pidfd = os.NewFile(uintptr(pidfd), "monitor")
	theirs.Close()
	if _, err := awaitReady(ctx, ours); err != nil {
		m.kill()
		m.close()
		if errors.Is(err, errNothingSaid) {
			err = fault.New(fault.Internal, "launcher.died", "the monitor died before it could watch anything", "")
		}
		return nil, err
	}
	return m, nil
}

// files are those that follow the caller's in the launcher. Its copy of the
// handover's socket must be the only one, or the monitor would not see its end.
func (m *ociMonitor) files(plan, proof, null *os.File) []*os.File {
	if m == nil {
		return []*os.File{plan, proof, null, null}
	}
	return []*os.File{plan, proof, m.pidfd, m.handover}
}

func (m *ociMonitor) close() {
	if m != nil {
		closeAll(m.handover, m.pidfd)
	}
}

// kill ends the monitor, and with it what a launcher has left half made.
func (m *ociMonitor) kill() {
	if m != nil {
		m.proc.Kill()
		// A caller that adopts orphans (ward-oci run) may have those of a launcher
		// that was killed: until they are reaped the kernel keeps the first process
		// of their PID namespace, which is the monitor.
		done := make(chan struct{})
		go func() { m.proc.Wait(); close(done) }()
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				reapNested(m.proc.Pid)
			}
		}
	}
}

// ociRun runs ward-launch to its end as one of its OCI commands. rest are plan
// or request, receipt, monitor and handover.
func (l *Launcher) ociRun(ctx context.Context, command string, io OCIFiles, null *os.File, rest []*os.File) (Message, error) {
	ours, theirs, err := controlPair()
	if err != nil {
		return Message{}, fault.Wrap(fault.Internal, "launch.setup", err, "")
	}
	defer ours.Close()
	log := io.Log
	if log == nil {
		log = os.Stderr
	}
	files := []*os.File{or(io.In, null), or(io.Out, null), or(io.Err, null), rest[0], rest[1], theirs, rest[2], rest[3],
		or(io.Console, null), log}
	proc, err := os.StartProcess(l.path, []string{OCIName, command}, &os.ProcAttr{
		// Not the caller's environment: what steers a privileged program is in
		// the plan.
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: append(files, io.Extra...),
	})
	theirs.Close()
	if err != nil {
		return Message{}, fault.Wrap(fault.Unavailable, "launcher.start", fmt.Errorf("start %s: %w", l.path, err), "")
	}
	m, err := awaitReady(ctx, ours)
	if ctx.Err() != nil {
		proc.Kill()
	}
	st, werr := proc.Wait()
	if errors.Is(err, errNothingSaid) {
		err = nil
		if command != OCICommandOperate || werr != nil || !st.Success() {
			err = fault.New(fault.Internal, "launcher.died", fmt.Sprintf("the launcher died (%v)", st), "")
		}
	}
	return m, err
}

// errNothingSaid is the end of a conversation without a message.
var errNothingSaid = errors.New("nothing was said")

// awaitReady reads the one message that is due.
func awaitReady(ctx context.Context, control *os.File) (Message, error) {
	stop := context.AfterFunc(ctx, func() { control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var m Message
	err := readJSON(control, &m)
	switch {
	case err != nil && ctx.Err() != nil:
		return m, fault.Wrap(fault.Unavailable, "launch.cancelled", fmt.Errorf("launch: %w", ctx.Err()), "")
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return m, errNothingSaid
	case err != nil:
		return m, fault.Wrap(fault.Internal, "launch.protocol", fmt.Errorf("launcher's answer: %w", err), "")
	case m.Kind == MessageError && m.Error != nil:
		return m, m.Error
	case m.Kind != MessageReady:
		return m, fault.New(fault.Internal, "launch.protocol", fmt.Sprintf("launcher said %q when %q was due", m.Kind, MessageReady), "")
	}
	return m, nil
}
