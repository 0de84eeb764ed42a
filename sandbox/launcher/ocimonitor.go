package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ociMonitor watches a container whose parent is somebody else: the caller of
// ward-oci. It is the first process of the PID namespace around the
// container's, so that the kernel ends the container with it, and it has
// CAP_KILL alone. It records how the container ended.
type ociMonitor struct {
	Run      string `json:"run"`
	StateDir string `json:"state_dir"`
	AuditDir string `json:"audit_dir"`

	sandbox.OCIHandover
	pidfd   int
	log     *audit.Log
	actor   audit.Actor
	created time.Time
	// used are the intents that processes were added on the strength of.
	used usedOnce
	// added are the processes that were added and have not ended.
	added sync.WaitGroup
	// lost are ends of such processes that could not be recorded.
	mu   sync.Mutex
	lost []error
}

// OCIMonitor is the main function of a monitor as ward-oci starts it: it
// checks plan and receipt for itself, gives up its privileges and executes
// itself anew. It does not return.
func OCIMonitor() {
	ociFail(ociBecomeMonitor())
}

func ociBecomeMonitor() error {
	if os.Getpid() != 1 {
		return fault.New(fault.Denied, "launch.namespace", "the monitor is not the first process of a PID namespace", "start containers through ward-oci")
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	plan, _, err := acceptOCI()
	if err != nil {
		return err
	}
	b, err := json.Marshal(ociMonitor{Run: plan.Run, StateDir: plan.StateDir, AuditDir: plan.AuditDir})
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
	for _, n := range []int{sandbox.FDControl, sandbox.FDLock, sandbox.FDOCIHandover, mem} {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", n, err)
		}
	}
	// The caller's directories are not to be held by a process that stays.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := dropPrivileges(); err != nil {
		return err
	}
	err = unix.Exec("/proc/self/exe", []string{sandbox.OCIName, sandbox.OCICommandWatch, strconv.Itoa(mem)}, []string{"GOMAXPROCS=1"})
	return fmt.Errorf("become the monitor: %w", err)
}

// OCIWatch is the main function of the monitor proper; arg is the number of
// the descriptor that says what it watches. It does not return.
func OCIWatch(arg string) {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTOU, unix.SIGTTIN)
	m, err := takeOverOCI(arg)
	if err != nil {
		ociFail(err)
	}
	if err := m.begin(); err != nil {
		// Its launcher hears it and undoes what it has made.
		_ = sandbox.Send(sandbox.FDOCIHandover, sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err)})
		os.Exit(1)
	}
	if err := m.watch(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func takeOverOCI(arg string) (*ociMonitor, error) {
	m := &ociMonitor{}
	err := readHandover(arg, m)
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{sandbox.FDControl, sandbox.FDLock, sandbox.FDOCIHandover} {
		unix.CloseOnExec(fd)
	}
	// Before anything exists: a log that cannot be written starts nothing.
	if m.log, err = audit.Open(m.AuditDir); err != nil {
		return nil, fault.Wrap(fault.Unrecorded, "launch.audit", err, "see `ward audit verify`")
	}
	m.actor = audit.Caller()
	return m, sandbox.Send(sandbox.FDControl, sandbox.Message{Kind: sandbox.MessageReady})
}

// begin takes the container over from its launcher.
func (m *ociMonitor) begin() error {
	h, pidfd, err := receiveHandover(sandbox.FDOCIHandover)
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	m.OCIHandover, m.pidfd, m.created = h, pidfd, time.Now()
	if err := sandbox.WriteStatus(m.StateDir, sandbox.Status{Phase: sandbox.PhaseCreated, PID: m.PID, MonitorPID: hostSelf(), Run: m.Run, Started: m.created}); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if err := m.listen(); err != nil {
		return err
	}
	if err := sandbox.Send(sandbox.FDOCIHandover, sandbox.Message{Kind: sandbox.MessageReady}); err != nil {
		return err
	}
	return errors.Join(unix.Close(sandbox.FDOCIHandover), unix.Close(sandbox.FDControl))
}

// watch waits for the end and records it.
func (m *ociMonitor) watch() error {
	if err := poll(m.pidfd, unix.POLLIN, -1); err != nil {
		return err
	}
	// While the parent has not taken the status yet the cgroups are there.
	usage := sandbox.ReadUsage(m.Cgroups)
	status, known := exitStatus(m.pidfd)
	exit := sandbox.Exit{Started: m.created, Finished: time.Now(), Usage: usage}
	exit.Code, exit.Signal, exit.Error = outcome(status, known)
	exit.OOMKilled = exit.Signal == int(unix.SIGKILL) && usage.OOMKills > 0
	m.awaitAdded()
	m.mu.Lock()
	for _, err := range m.lost {
		exit.Error = strings.TrimPrefix(exit.Error+"; "+err.Error(), "; ")
	}
	m.mu.Unlock()
	if err := m.recordExit(exit); err != nil {
		exit.Error = strings.TrimPrefix(exit.Error+"; "+err.Error(), "; ")
	}
	return sandbox.WriteStatus(m.StateDir, sandbox.Status{Phase: sandbox.PhaseExited, PID: m.PID, Run: m.Run, Started: m.created, Finished: exit.Finished, Exit: &exit})
}

func (m *ociMonitor) recordExit(e sandbox.Exit) error {
	took := e.Finished.Sub(e.Started).Milliseconds()
	var batch []audit.Record
	if e.Usage.OOMKills > 0 {
		batch = append(batch, audit.Record{Type: audit.RunOOM, Run: m.Run, Actor: m.actor,
			Data: audit.OOM{Kills: int64(e.Usage.OOMKills), Limit: m.Memory}})
	}
	batch = append(batch, audit.Record{Type: audit.RunExit, Run: m.Run, Actor: m.actor,
		Data: audit.Exit{Code: e.Code, Signal: e.Signal, OOM: e.OOMKilled, Error: e.Error, DurationMS: took, Usage: recordedUsage(e.Usage)}})
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := m.log.Post(ctx, batch...); err != nil {
		return fmt.Errorf("record exit: %w", err)
	}
	return m.log.Close()
}

// poll waits for events on fd; a timeout below zero is none. That the time is
// over is no error.
func poll(fd int, events int16, timeout time.Duration) error {
	ms := -1
	if timeout >= 0 {
		ms = int(timeout.Milliseconds())
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, ms)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
