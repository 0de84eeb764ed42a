package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// handover is all the monitor is told. It holds no argument and no
// environment of the payload: the monitor does not need them.
type handover struct {
	Container string `json:"container"`
	Run       string `json:"run"`
	Start     int    `json:"start"`
	// Plan is the digest of the container's plan, State where libcontainer's
	// state is: for those who start another process in it.
	Plan         string            `json:"plan"`
	State        string            `json:"state"`
	ContainerDir string            `json:"container_dir"`
	RuntimeDir   string            `json:"runtime_dir"`
	AuditDir     string            `json:"audit_dir"`
	Arg0         string            `json:"arg0"`
	Limits       sandbox.Limits    `json:"limits"`
	Cgroups      map[string]string `json:"cgroups"`
	// Seccomp is the filter by which refused calls are answered.
	Seccomp sandbox.Seccomp `json:"seccomp"`
	// PID is the payload's here; HostPID and MonitorPID are the host's.
	PID        int `json:"pid"`
	HostPID    int `json:"host_pid"`
	MonitorPID int `json:"monitor_pid"`
	// Descriptors; -1 is none.
	CallerIn   int `json:"caller_in"`
	CallerOut  int `json:"caller_out"`
	CallerErr  int `json:"caller_err"`
	ToStdin    int `json:"to_stdin"`
	FromStdout int `json:"from_stdout"`
	FromStderr int `json:"from_stderr"`
	// Terminal says that FromStdout is a terminal's master, which is also what
	// input is written to; StdinOpen is the plan's, Stdin says there is input.
	Terminal  bool `json:"terminal"`
	Stdin     bool `json:"stdin"`
	StdinOpen bool `json:"stdin_open"`
	FromExec  int  `json:"from_exec"`
	// Gate lets the payload go by one byte; Listener is its filter's.
	Gate     int `json:"gate"`
	Listener int `json:"listener"`
}

func handOver(p sandbox.Plan, s *scratch, io *pipes, c *container, host *hostProc) (*handover, error) {
	encoded, err := p.Encode()
	if err != nil {
		return nil, err
	}
	h := &handover{
		Plan: sandbox.Digest(encoded), State: s.path("state"),
		Container: p.Container, Run: p.Run, Start: p.Start, ContainerDir: p.Host.ContainerDir, RuntimeDir: p.Host.RuntimeDir, AuditDir: p.Host.AuditDir,
		Arg0: p.Process.Args[0], Limits: p.Limits, Cgroups: c.cgroups, Seccomp: p.Seccomp, PID: c.pid,
		CallerOut: given(sandbox.FDStdout), CallerErr: given(sandbox.FDStderr),
		CallerIn: -1, ToStdin: -1, FromStderr: -1, FromExec: fd(c.stage.fromExec),
		Stdin: p.Process.Stdin, StdinOpen: p.Process.StdinOpen, Terminal: p.Process.Terminal != nil,
		Gate: fd(c.stage.gate), Listener: fd(c.listener),
	}
	if h.Terminal {
		h.FromStdout = fd(io.terminal.master)
	} else {
		h.FromStdout, h.FromStderr = fd(io.fromStdout), fd(io.fromStderr)
	}
	if io.toStdin != nil {
		h.ToStdin = fd(io.toStdin)
	}
	if h.Stdin {
		h.CallerIn = given(sandbox.FDStdin)
	}
	if h.HostPID, err = host.pid(c.pid); err != nil {
		return nil, err
	}
	if h.MonitorPID, err = host.self(); err != nil {
		return nil, err
	}
	return h, host.close()
}

func fd(f *os.File) int { return int(f.Fd()) }

// descriptors are those that the monitor keeps.
func (h *handover) descriptors() []int {
	all := []int{sandbox.FDControl, sandbox.FDLock, h.FromStdout, h.FromExec, h.Gate, h.Listener}
	for _, n := range []int{h.CallerIn, h.CallerOut, h.CallerErr, h.ToStdin, h.FromStderr} {
		if n >= 0 {
			all = append(all, n)
		}
	}
	return all
}

// become executes the monitor over this process, with one capability left.
// Dropping capabilities is per thread and this program has several; executing
// ends all but this one, and the new image starts with nothing of the old one
// in memory or open. It returns only on failure.
func (h *handover) become() error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	mem, err := unix.MemfdCreate("ward-handover", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	if _, err := unix.Pwrite(mem, b, 0); err != nil {
		return err
	}
	for _, n := range append(h.descriptors(), mem) {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", n, err)
		}
	}
	runtime.LockOSThread()
	if err := dropPrivileges(); err != nil {
		return err
	}
	err = unix.Exec("/proc/self/exe", []string{"ward-launch", "monitor", strconv.Itoa(mem)}, []string{"GOMAXPROCS=1"})
	return fmt.Errorf("become the monitor: %w", err)
}

// dropPrivileges leaves this thread CAP_KILL, which it takes to signal a
// process of other ids, and no way to gain more.
func dropPrivileges() error {
	// By thread id: for 0 the library reads the capabilities of the thread
	// group's first thread, which need not be this one.
	caps, err := capability.NewPid2(unix.Gettid())
	if err != nil {
		return err
	}
	caps.Clear(capability.CAPS | capability.BOUNDS | capability.AMBS)
	caps.Set(capability.EFFECTIVE|capability.PERMITTED|capability.BOUNDING, capability.CAP_KILL)
	if err := caps.Apply(capability.CAPS | capability.BOUNDS | capability.AMBS); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return onlyKill()
}

// onlyKill reads back what the thread has: the library drops nothing from the
// bounding set, and says nothing, where it lacks the right to. By "thread-self"
// and not by number: /proc may be of another PID namespace than this thread.
func onlyKill() error {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err
	}
	sets := 0
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !strings.HasPrefix(name, "Cap") {
			continue
		}
		sets++
		have, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return err
		}
		if have&^(1<<unix.CAP_KILL) != 0 {
			return fault.New(fault.Internal, "launch.privileges", fmt.Sprintf("the monitor would keep capabilities %#x (%s)", have, name), "")
		}
	}
	if sets != 5 { // inheritable, permitted, effective, bounding, ambient
		return fault.New(fault.Internal, "launch.privileges", fmt.Sprintf("/proc shows %d sets of capabilities", sets), "")
	}
	return nil
}

// readHandover reads what the launcher left for the monitor in the descriptor
// whose number is arg, and closes it.
func readHandover(arg string, v any) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	f := os.NewFile(uintptr(n), "handover")
	b, err := io.ReadAll(io.NewSectionReader(f, 0, sandbox.MaxPlan))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	return nil
}
