package launcher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// execTimeout bounds how long one process may take to be started: until then
// its launcher holds a place at the monitor's.
const execTimeout = time.Minute

// planFile is the container's plan, beside its status.
const planFile = "plan.json"

// Exec is the main function of ward-launch as it is started to enter a
// container. It does not return: it ends when the process it started has been
// left to the monitor, or says why there is none.
func Exec() {
	debug.SetGCPercent(-1)
	err := execute()
	if err == nil {
		os.Exit(0)
	}
	giveUp(err)
}

// execute is the whole of a start in a container that runs, top to bottom.
func execute() error {
	ctx, cancel := context.WithTimeout(context.Background(), execTimeout)
	defer cancel()
	host, err := entered()
	if err != nil {
		return err
	}
	if err := fairShare(); err != nil {
		return err
	}
	plan, container, index, err := acceptExec()
	if err != nil {
		return err
	}
	if err := sandbox.Send(sandbox.FDControl, sandbox.Message{Kind: sandbox.MessageReady}); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	// The monitor knows of this process from here on: should it die half-way,
	// whatever it has started until then is ended.
	monitor, err := sandbox.Dial(plan.Host.RuntimeDir)
	if err != nil {
		return err
	}
	h := sandbox.ExecHandover{Exec: plan.Exec, Run: plan.Run, ContainerPlan: plan.ContainerPlan, Index: index, Arg0: plan.Process.Args[0]}
	place, err := monitor.OpenExec(ctx, h)
	if err != nil {
		return err
	}
	ct, err := load(place, plan.Container)
	if err != nil {
		return err
	}
	pipes, err := newPipes(container)
	if err != nil {
		return err
	}
	proc, st, err := startExec(ct, plan, container, pipes)
	if err != nil {
		return err
	}
	// From here on it exists, stopped before its payload.
	if h.PID, err = proc.Pid(); err == nil {
		h.HostPID, err = host.pid(h.PID)
	}
	var listener *os.File
	if err == nil {
		listener, err = st.arrived(h.PID, h.Arg0)
	}
	if err == nil {
		var files []*os.File
		h.Files, files = handedOver(pipes, st, listener, plan.Process.Stdin)
		err = monitor.HandOver(ctx, h, files)
	}
	if err != nil {
		proc.Signal(unix.SIGKILL)
		proc.Wait()
	}
	return err
}

// acceptExec reads and checks plan and receipt as accept does, and with them
// the plan the container runs by, with the process in its place. Index is the
// intent's place in the log.
func acceptExec() (plan sandbox.ExecPlan, container sandbox.Plan, index int64, err error) {
	raw, err := readSealed(sandbox.FDPlan, sandbox.MaxPlan)
	if err != nil {
		return plan, container, 0, fmt.Errorf("plan: %w", err)
	}
	proof, err := readSealed(sandbox.FDReceipt, receipt.MaxSize)
	if err != nil {
		return plan, container, 0, fmt.Errorf("receipt: %w", err)
	}
	if plan, err = sandbox.DecodeExecPlan(raw); err != nil {
		return plan, container, 0, err
	}
	if err := sameBuild(plan.Build); err != nil {
		return plan, container, 0, err
	}
	if container, err = containersPlan(plan); err != nil {
		return plan, container, 0, err
	}
	if err := sandbox.DefaultFloor().CheckExec(plan, container); err != nil {
		return plan, container, 0, err
	}
	st, err := statement(plan.Host.AuditDir, audit.ExecIntent, plan.Run, raw, proof)
	container.Process = plan.Process
	return plan, container, st.Index, err
}

// containersPlan reads the plan of the container from its directory, and
// believes it because its digest is the one that is on record for the process;
// that it is the one the container runs by is the monitor's to say.
func containersPlan(e sandbox.ExecPlan) (sandbox.Plan, error) {
	f, err := os.OpenFile(filepath.Join(e.Host.ContainerDir, planFile), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return sandbox.Plan{}, fault.Wrap(fault.Unavailable, "launch.container-plan", err, "")
	}
	defer f.Close()
	raw := make([]byte, sandbox.MaxPlan+1)
	n, err := f.ReadAt(raw, 0)
	if n == 0 || n > sandbox.MaxPlan {
		return sandbox.Plan{}, fault.New(fault.Invalid, "launch.container-plan", fmt.Sprintf("the container's plan cannot be read: %v", err), "")
	}
	if sandbox.Digest(raw[:n]) != e.ContainerPlan {
		return sandbox.Plan{}, fault.New(fault.Denied, "launch.container-plan", "the container's plan is not the one this was allowed under",
			"start the container again")
	}
	return sandbox.DecodePlan(raw[:n])
}

// load finds the container as its launcher left it.
func load(place sandbox.ExecPlace, id string) (*libcontainer.Container, error) {
	ct, err := libcontainer.Load(place.State, id)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "launch.load", fmt.Errorf("load container: %w", err), "")
	}
	state, err := ct.State()
	if err != nil {
		return nil, fmt.Errorf("container state: %w", err)
	}
	if state.InitProcessPid != place.PID {
		return nil, fault.New(fault.Denied, "launch.load", "the container's state names another first process than its monitor", "")
	}
	status, err := ct.Status()
	if err != nil {
		return nil, fmt.Errorf("container status: %w", err)
	}
	switch status {
	case libcontainer.Stopped:
		return nil, fault.New(fault.Invalid, "container.state", "the container has ended", "see how it is: ward ps -a")
	case libcontainer.Paused:
		return nil, fault.New(fault.Invalid, "container.state", "the container is paused", "unpause it first")
	}
	return ct, nil
}

// startExec has libcontainer start the process: in all of the container's
// namespaces and cgroups, with no more than the plan says, up to the stage.
func startExec(ct *libcontainer.Container, plan sandbox.ExecPlan, container sandbox.Plan, io *pipes) (*libcontainer.Process, *stage, error) {
	rlimits, err := clampedRlimits(plan.Process.Rlimits)
	if err != nil {
		return nil, nil, err
	}
	in, err := domainOf(container.Landlock)
	if err != nil {
		return nil, nil, err
	}
	st, err := newStage(plan.Process, plan.Seccomp, in)
	if err != nil {
		return nil, nil, err
	}
	yes := true
	proc := &libcontainer.Process{
		Args:             plan.Process.Args,
		Env:              withHome(plan.Process.Env),
		Cwd:              plan.Process.Cwd,
		UID:              int(plan.Process.UID),
		GID:              int(plan.Process.GID),
		AdditionalGroups: groups(plan.Process.Groups),
		// Said here again, so that what is in the container's state adds nothing.
		Capabilities: &configs.Capabilities{
			Bounding:  plan.Process.Capabilities,
			Permitted: plan.Process.Capabilities,
			Effective: plan.Process.Capabilities,
		},
		NoNewPrivileges: &yes,
		Rlimits:         rlimits,
	}
	io.outfit(proc)
	st.outfit(proc)
	err = io.started(ct.Start(proc))
	st.started()
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, "launch.container", fmt.Errorf("start in the container: %w", err), "")
	}
	return proc, st, nil
}

// handedOver are the descriptors that the monitor gets, and what they are.
func handedOver(io *pipes, st *stage, listener *os.File, stdin bool) (names []sandbox.ExecFile, files []*os.File) {
	add := func(name sandbox.ExecFile, f *os.File) {
		if f != nil {
			names, files = append(names, name), append(files, f)
		}
	}
	callers := func(name sandbox.ExecFile, fd int) {
		if fd = given(fd); fd >= 0 {
			add(name, os.NewFile(uintptr(fd), string(name)))
		}
	}
	add(sandbox.ExecControl, os.NewFile(sandbox.FDControl, "control"))
	add(sandbox.ExecGate, st.gate)
	add(sandbox.ExecListener, listener)
	add(sandbox.ExecExecuted, st.fromExec)
	callers(sandbox.ExecCallerOut, sandbox.FDStdout)
	if stdin {
		callers(sandbox.ExecCallerIn, sandbox.FDStdin)
	}
	if io.terminal != nil {
		add(sandbox.ExecTerminal, io.terminal.master)
		return names, files
	}
	callers(sandbox.ExecCallerErr, sandbox.FDStderr)
	add(sandbox.ExecFromStdout, io.fromStdout)
	add(sandbox.ExecFromStderr, io.fromStderr)
	add(sandbox.ExecToStdin, io.toStdin)
	return names, files
}
