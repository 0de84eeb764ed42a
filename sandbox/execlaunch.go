package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
)

// CommandExec is the launcher's command for entering a container.
const CommandExec = "exec"

// ExecPlace is what a monitor tells a launcher that may start a process.
type ExecPlace struct {
	// PID is the container's first process and State the directory of
	// libcontainer's state, both as the monitor sees them.
	PID   int    `json:"pid"`
	State string `json:"state"`
}

// ExecHandover is a process that a launcher has started in the container and
// leaves to the monitor, and before that (OpExecOpen) who it will be.
type ExecHandover struct {
	Exec string `json:"exec"`
	Run  string `json:"run"`
	// ContainerPlan is the digest of the plan that the launcher judged by.
	ContainerPlan string `json:"container_plan"`
	// Index is the intent's place in the log: no intent serves twice.
	Index int64  `json:"index"`
	Arg0  string `json:"arg0"`
	// PID is in the monitor's PID namespace, HostPID in the host's.
	PID     int `json:"pid,omitempty"`
	HostPID int `json:"host_pid,omitempty"`
	// Files says what the descriptors are that come with it, in order.
	Files []ExecFile `json:"files,omitempty"`
}

// ExecFile is what a descriptor of a handover is.
type ExecFile string

// The descriptors of a handover. ExecControl is the socket to the caller; over
// ExecGate the process is let go, ExecExecuted says how that went, and
// ExecListener is where its refused calls are answered.
const (
	ExecControl    ExecFile = "control"
	ExecGate       ExecFile = "gate"
	ExecExecuted   ExecFile = "executed"
	ExecListener   ExecFile = "listener"
	ExecCallerIn   ExecFile = "caller_in"
	ExecCallerOut  ExecFile = "caller_out"
	ExecCallerErr  ExecFile = "caller_err"
	ExecToStdin    ExecFile = "to_stdin"
	ExecFromStdout ExecFile = "from_stdout"
	ExecFromStderr ExecFile = "from_stderr"
	// ExecTerminal is a terminal's master, in place of the three pipes.
	ExecTerminal ExecFile = "terminal"
)

// Exec starts another process in a container that runs, and returns once it
// has been executed. r must prove the exec.intent record of exactly this plan;
// container is the encoded plan the container runs by. The process belongs to
// the container's monitor and goes on when the caller ends. When ctx ends
// before the monitor has it, it does not run; once the monitor has it, it does.
// Refusals are as Launch's.
func (l *Launcher) Exec(ctx context.Context, plan, container []byte, r receipt.Receipt, stdio Stdio) (*Running, error) {
	proof := r.Bytes()
	if len(proof) == 0 {
		return nil, fault.New(fault.Unrecorded, "launch.no-receipt", "there is no receipt for this process", "")
	}
	e, err := DecodeExecPlan(plan)
	if err != nil {
		return nil, err
	}
	c, err := DecodePlan(container)
	if err != nil {
		return nil, err
	}
	if e.ContainerPlan != Digest(container) {
		return nil, below("exec", "the plan is for a container with another plan", "")
	}
	if err := DefaultFloor().CheckExec(e, c); err != nil {
		return nil, err
	}
	m, err := Dial(e.Host.RuntimeDir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	monitor, err := m.process()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "monitor.process", err, "")
	}
	defer monitor.Close()
	return l.start(ctx, plan, proof, stdio, monitor, []string{CommandExec, strconv.Itoa(FDMonitor)}, &syscall.SysProcAttr{Setsid: true})
}

// process returns a descriptor of the monitor's process. The kernel gives it
// for the socket itself, so that it cannot be another process of that number;
// before Linux 6.5 it is opened by number, and the launcher sees in the
// namespaces it enters whether the one that answers there is the monitor.
func (m *Monitor) process() (*os.File, error) {
	fd, err := m.sockopt(unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EINVAL) {
		var pid int
		if pid, err = m.peer(); err == nil {
			fd, err = unix.PidfdOpen(pid, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("monitor's process: %w", err)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "monitor"), nil
}

func (m *Monitor) sockopt(opt int) (n int, err error) {
	raw, err := m.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt) })
	return n, errors.Join(cerr, err)
}

// peer is the monitor's process id as this process sees it; 0 if it does not.
func (m *Monitor) peer() (pid int, err error) {
	raw, err := m.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// OpenExec asks the monitor, which must be the first process of the caller's
// own PID namespace, for leave to start h. It is the launcher's.
func (m *Monitor) OpenExec(ctx context.Context, h ExecHandover) (ExecPlace, error) {
	pid, err := m.peer()
	if err != nil {
		return ExecPlace{}, err
	}
	if pid != 1 {
		return ExecPlace{}, fault.New(fault.Denied, "launch.namespace", "the launcher is not in the namespaces of the container's monitor",
			"start processes through ward")
	}
	r, err := m.ask(ctx, MonitorRequest{Op: OpExecOpen, Exec: &h})
	if err == nil && r.Place == nil {
		err = fault.New(fault.Internal, "monitor.protocol", "the monitor's answer has no place", "")
	}
	if err != nil {
		return ExecPlace{}, err
	}
	return *r.Place, nil
}

// HandOver leaves the process to the monitor, which has it when this returns
// nil. Files go with it as h.Files says; they stay the caller's to close.
func (m *Monitor) HandOver(ctx context.Context, h ExecHandover, files []*os.File) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpExecStart, Exec: &h}, files...)
	return err
}

// Execs are the ids of the processes that were started in the container and
// still run, in no order that means anything.
func (m *Monitor) Execs(ctx context.Context) ([]string, error) {
	r, err := m.ask(ctx, MonitorRequest{Op: OpExecs})
	return slices.Clone(r.Execs), err
}

// SignalExec sends sig to the process exec, as Signal to the first one.
func (m *Monitor) SignalExec(ctx context.Context, exec string, sig syscall.Signal) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpSignal, Signal: int(sig), ExecID: exec})
	return err
}
