package launcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// maxExecs bounds how many processes may be started in a container beside its
// first one and be there at a time; each has threads and descriptors here.
const maxExecs = 64

// execs are the processes started in a container that runs. Each is a child of
// the monitor once its launcher has ended, and until then a child of that one.
type execs struct {
	m *monitor

	mu sync.Mutex
	// used are the intents that have been used, places how many launchers and
	// processes there are.
	used   usedOnce
	places int
	closed bool
	// running are those that have not been reaped, by process id; entering the
	// launchers that have not handed over theirs.
	running  map[int]*execution
	entering map[*entry]bool
	all      sync.WaitGroup
}

func newExecs(m *monitor) *execs {
	return &execs{m: m, running: map[int]*execution{}, entering: map[*entry]bool{}}
}

// entry is a launcher on its way, from its asking for a place to its handing
// over of a process. Its nil value is a client that is no launcher.
type entry struct {
	x *execs
	// launcher is a descriptor of its process.
	launcher int
	exec     sandbox.ExecHandover
	done     bool
}

// open gives a launcher a place, if there is one.
func (x *execs) open(conn *net.UnixConn, before *entry, h *sandbox.ExecHandover) (*entry, sandbox.MonitorReply) {
	no := func(class fault.Class, rule, cause, remedy string) (*entry, sandbox.MonitorReply) {
		return before, sandbox.MonitorReply{Error: fault.As(fault.New(class, rule, cause, remedy))}
	}
	if before != nil || h == nil {
		return no(fault.Invalid, "monitor.protocol", "one launcher starts one process", "")
	}
	if h.Run != x.m.Run || h.ContainerPlan != x.m.Plan {
		return no(fault.Denied, "launch.container-plan", "this was allowed for another run, or another plan, of the container",
			"try again: the container was started anew meanwhile")
	}
	// What this namespace does not hold it could not end either.
	pid, err := peerPID(conn)
	if err != nil || pid <= 0 {
		return no(fault.Denied, "launch.namespace", "the launcher is not in the namespaces of the container's monitor", "start processes through ward")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return no(fault.Unavailable, "launch.namespace", fmt.Sprintf("the launcher's process: %v", err), "")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed:
		err = fault.New(fault.Invalid, "container.state", "the container has ended", "see how it is: ward ps -a")
	case x.places >= maxExecs:
		err = fault.New(fault.Unavailable, "exec.limit", fmt.Sprintf("%d processes have been started in the container and still run", maxExecs),
			"end some of them first")
	case !x.used.take(h.Index):
		err = fault.New(fault.Unrecorded, "launch.receipt", "the receipt has been used before, or is too old", "start the process again through ward")
	}
	if err != nil {
		unix.Close(fd)
		return before, sandbox.MonitorReply{Error: fault.As(err)}
	}
	x.places++
	x.all.Add(1)
	e := &entry{x: x, launcher: fd, exec: *h}
	x.entering[e] = true
	return e, sandbox.MonitorReply{OK: true, Place: &sandbox.ExecPlace{PID: x.m.PID, State: x.m.State}}
}

// start takes over the process that the launcher has started.
func (e *entry) start(h *sandbox.ExecHandover, files []*os.File) sandbox.MonitorReply {
	run, err := e.adopt(h, files)
	if err != nil {
		closeFiles(files)
		return sandbox.MonitorReply{Error: fault.As(err)}
	}
	go run.observe()
	return sandbox.MonitorReply{OK: true}
}

func (e *entry) adopt(h *sandbox.ExecHandover, files []*os.File) (*execution, error) {
	protocol := func(cause string) error { return fault.New(fault.Invalid, "monitor.protocol", cause, "") }
	if e == nil || e.done || h == nil || h.Exec != e.exec.Exec || len(files) != len(h.Files) || h.PID <= 1 || h.PID == e.x.m.PID {
		return nil, protocol("the handover is not of the process that was announced")
	}
	run := &execution{x: e.x, exec: e.exec, pid: h.PID, hostPID: h.HostPID, started: time.Now(), end: make(chan unix.WaitStatus, 1)}
	var err error
	if run.pidfd, err = unix.PidfdOpen(h.PID, 0); err != nil {
		return nil, fmt.Errorf("the process: %w", err)
	}
	if err := run.take(h.Files, files); err != nil {
		unix.Close(run.pidfd)
		return nil, err
	}
	e.x.mu.Lock()
	defer e.x.mu.Unlock()
	e.x.running[h.PID] = run
	e.done = true
	delete(e.x.entering, e)
	return run, nil
}

// close ends what a launcher left behind that has gone before it handed its
// process over.
func (e *entry) close() {
	if e == nil {
		return
	}
	defer unix.Close(e.launcher)
	if e.done {
		return // the execution holds the place
	}
	defer e.x.release()
	defer func() {
		e.x.mu.Lock()
		defer e.x.mu.Unlock()
		delete(e.x.entering, e) // before its descriptor is closed
	}()
	// It may still be telling its caller why. When it is gone for certain its
	// children are this process's.
	gone := []unix.PollFd{{Fd: int32(e.launcher), Events: unix.POLLIN}}
	if n, err := unix.Poll(gone, 5000); n == 0 || err != nil {
		unix.PidfdSendSignal(e.launcher, unix.SIGKILL, nil, 0)
		unix.Poll(gone, -1)
	}
	e.x.endStrangers()
}

func (x *execs) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.places--
	x.all.Done()
}

// ended is told of each child of the monitor's that was reaped, but for the
// payload.
func (x *execs) ended(pid int, status unix.WaitStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if run := x.running[pid]; run != nil {
		delete(x.running, pid) // the number may be given away again from here on
		run.end <- status
	}
}

func (x *execs) ids() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for run := range maps.Values(x.running) {
		out = append(out, run.exec.Exec)
	}
	slices.Sort(out)
	return out
}

func (x *execs) signal(exec string, sig syscall.Signal) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, run := range x.running {
		if run.exec.Exec == exec {
			return unix.PidfdSendSignal(run.pidfd, sig, nil, 0)
		}
	}
	return fault.New(fault.NotFound, "exec.gone", "the process has ended", "")
}

// resize gives the terminal of a process another size.
func (x *execs) resize(exec string, size sandbox.Terminal) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, run := range x.running {
		if run.exec.Exec != exec {
			continue
		}
		if run.terminal == nil {
			return fault.New(fault.Invalid, "terminal.none", "the process has no terminal", "start it with -t")
		}
		return setSize(run.terminal, size)
	}
	return fault.New(fault.NotFound, "exec.gone", "the process has ended", "")
}

// finish waits until the ends of all processes are on record. The kernel has
// ended them with the container.
func (x *execs) finish() error {
	x.mu.Lock()
	x.closed = true
	for e := range x.entering {
		unix.PidfdSendSignal(e.launcher, unix.SIGKILL, nil, 0)
	}
	x.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		x.all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New("a process that was started in the container could not be put on record")
	}
}

func peerPID(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
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

// maxUsed is how many intents are remembered one by one.
const maxUsed = 4096

// usedOnce says of each number once that it has not been used. It forgets old
// ones, and then refuses whatever is as old.
type usedOnce struct {
	seen  map[int64]bool
	floor int64
}

func (u *usedOnce) take(n int64) bool {
	if n <= u.floor || u.seen[n] {
		return false
	}
	if u.seen == nil {
		u.seen = map[int64]bool{}
	}
	u.seen[n] = true
	if len(u.seen) > maxUsed {
		u.floor = slices.Min(slices.Collect(maps.Keys(u.seen)))
		delete(u.seen, u.floor)
	}
	return true
}
