package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
)

// The descriptors a launcher is started with, after 0, 1 (the null device)
// and 2 (its own diagnostics). One that is not given is the null device:
// a closed one would be handed out again, and then mistaken for it.
const (
	// FDPlan and FDReceipt are sealed memory files.
	FDPlan = 3 + iota
	FDReceipt
	// FDControl is the launcher's end of the control pair.
	FDControl
	// FDLock keeps the container's lock held for as long as the monitor lives.
	FDLock
	// FDStdin, FDStdout and FDStderr are the caller's; never the payload's.
	FDStdin
	FDStdout
	FDStderr
	// FDEnd is the first descriptor a launcher must not have.
	FDEnd
	// FDMonitor is, in FDLock's place, what a process that is to enter a
	// container gets instead: a descriptor of the monitor's process.
	FDMonitor = FDLock
)

// InitName is the program that runs first in a container with Process.Init. It
// is beside the launcher, and of its build.
const InitName = "ward-init"

// Launcher starts containers through the ward-launch program. It is safe for
// concurrent use.
type Launcher struct{ path string }

// NewLauncher returns a launcher that runs the program at path, an absolute
// path; fault.Unavailable if there is none.
func NewLauncher(path string) (*Launcher, error) {
	const remedy = "install ward-launch beside ward (make install)"
	if !filepath.IsAbs(path) {
		return nil, fault.New(fault.Invalid, "launcher.path", fmt.Sprintf("launcher path %q is not absolute", path), "")
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Unavailable, "launcher.missing", "there is no launcher at "+path, remedy)
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, "launcher.missing", err, remedy)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return nil, fault.New(fault.Unavailable, "launcher.missing", path+" is not a program", remedy)
	case st.Mode()&0o002 != 0:
		return nil, fault.New(fault.Denied, "launcher.writable", path+" can be replaced by any user", "chmod o-w "+path)
	}
	return &Launcher{path}, nil
}

// Stdio are the caller's streams. Nil means none: end of file for In, the
// output log alone for Out and Err. The payload never gets them: the monitor
// copies between them and pipes of its own.
type Stdio struct{ In, Out, Err *os.File }

// StartError says that the payload could not be executed. Code is Docker's:
// 127 if there is no such program, 126 if it cannot be invoked.
type StartError struct {
	Code int
	Err  *fault.Error
}

// Error implements error.
func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *StartError) Unwrap() error { return e.Err }

// Launch starts the container of an encoded plan and returns once its payload
// has been executed. r must prove the run.intent record of exactly this run
// and plan. lock, if not nil, is the container's held lock; the monitor keeps
// it. When ctx ends before the payload runs, the launcher is killed and
// nothing is left running. Refusals carry their class; a payload that could
// not be executed is a *StartError.
func (l *Launcher) Launch(ctx context.Context, plan []byte, r receipt.Receipt, stdio Stdio, lock *os.File) (*Running, error) {
	proof := r.Bytes()
	if len(proof) == 0 {
		return nil, fault.New(fault.Unrecorded, "launch.no-receipt", "there is no receipt for this run", "")
	}
	p, err := DecodePlan(plan)
	if err != nil {
		return nil, err
	}
	if err := DefaultFloor().Check(p); err != nil {
		return nil, err
	}
	return l.start(ctx, plan, proof, stdio, lock, nil, &syscall.SysProcAttr{
		// The mount namespace is made here, before the launcher's runtime
		// has threads, which could not all be moved into it later.
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Setsid:     true,
	})
}

// start starts the program with args and sixth, the file at FDLock.
func (l *Launcher) start(ctx context.Context, plan, proof []byte, stdio Stdio, sixth *os.File, args []string, sys *syscall.SysProcAttr) (_ *Running, err error) {
	var owned files
	defer owned.close()
	planFile := owned.add(sealed("ward-plan", plan))
	proofFile := owned.add(sealed("ward-receipt", proof))
	null := owned.add(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	ours, theirs, perr := controlPair()
	owned.add(theirs, perr)
	diagOut, diagIn, derr := os.Pipe()
	owned.add(diagIn, derr)
	if owned.err != nil {
		closeAll(ours, diagOut)
		return nil, fault.Wrap(fault.Internal, "launch.setup", owned.err, "")
	}
	proc, err := os.StartProcess(l.path, append([]string{filepath.Base(l.path)}, args...), &os.ProcAttr{
		Dir: "/",
		// Nothing of the caller's steers a privileged program. One processor
		// is enough for it, and waking others costs more than they bring.
		Env: []string{"GOMAXPROCS=1"},
		Files: []*os.File{null, null, diagIn, planFile, proofFile, theirs, or(sixth, null),
			or(stdio.In, null), or(stdio.Out, null), or(stdio.Err, null)},
		Sys: sys,
	})
	runtime.KeepAlive(sixth)
	if err != nil {
		closeAll(ours, diagOut)
		return nil, fault.Wrap(fault.Unavailable, "launcher.start", fmt.Errorf("start %s: %w", l.path, err), "")
	}
	owned.close() // or the end of the launcher would never be seen
	pr := &Running{proc: proc, control: ours, done: make(chan struct{})}
	diag := drain(diagOut)
	err = pr.awaitStart(ctx)
	if err != nil && ctx.Err() != nil && sys.Cloneflags&unix.CLONE_NEWPID == 0 {
		err = pr.settle(ctx, err)
	}
	if err != nil {
		pr.kill()
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Internal, "launcher.died", "the launcher died before it started anything: "+<-diag, "")
		}
		return nil, err
	}
	return pr, nil
}

func or(f, null *os.File) *os.File {
	if f == nil {
		return null
	}
	return f
}

// awaitStart reads the launcher's messages up to started.
func (p *Running) awaitStart(ctx context.Context) error {
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(hurried); p.control.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() { // what is read later has all the time it needs
			<-hurried
			p.control.SetReadDeadline(time.Time{})
		}
	}()
	for ; ; p.ready = true {
		due := MessageReady
		if p.ready {
			due = MessageStarted
		}
		var m Message
		err := readJSON(p.control, &m)
		switch {
		case err != nil && ctx.Err() != nil:
			return fault.Wrap(fault.Unavailable, "launch.cancelled", fmt.Errorf("launch: %w", ctx.Err()), "")
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			return io.EOF
		case err != nil:
			return fault.Wrap(fault.Internal, "launch.protocol", fmt.Errorf("launcher's answer: %w", err), "")
		case m.Kind == MessageError && m.Error != nil && m.Code != 0:
			return &StartError{Code: m.Code, Err: m.Error}
		case m.Kind == MessageError && m.Error != nil:
			return m.Error
		case m.Kind != due:
			return fault.New(fault.Internal, "launch.protocol", fmt.Sprintf("launcher said %q when %q was due", m.Kind, due), "")
		case m.Kind == MessageStarted:
			p.hostPID, p.monitorPID, p.started = m.PID, m.MonitorPID, m.Started
			return nil
		}
	}
}

// settleTime bounds the wait for a monitor that lets a process go.
const settleTime = 10 * time.Second

// settle finds out what became of a process in a container whose starter has
// given up with err. Its launcher is ended; either the monitor then has the
// process, and puts its end on record, or nobody has, and the starter does. Two
// would tell two stories.
func (p *Running) settle(ctx context.Context, err error) error {
	p.proc.Kill()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	switch now := p.awaitStart(ctx); {
	case now == nil:
		return nil // it runs
	case errors.Is(now, io.EOF), ctx.Err() != nil:
		return err
	default:
		return now
	}
}

// files collects what start opens, so that each is closed on every path.
type files struct {
	open []*os.File
	err  error
	once sync.Once
}

func (f *files) add(file *os.File, err error) *os.File {
	if err != nil {
		f.err = errors.Join(f.err, err)
		return nil
	}
	f.open = append(f.open, file)
	return file
}

func (f *files) close() { f.once.Do(func() { closeAll(f.open...) }) }

func closeAll(fs ...*os.File) {
	for _, f := range fs {
		if f != nil {
			f.Close()
		}
	}
}

// sealed returns a memory file with content that nobody can change any more,
// not even its maker: what the launcher checks is what it then uses.
func sealed(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there is no NOEXEC_SEAL
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, Seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return f, nil
}

// Seals are the seals plan and receipt must carry.
const Seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

func controlPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	// Ours goes through the runtime's poller, so that waiting has deadlines.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// drain keeps the first lines of the launcher's own diagnostics (a panic, a
// loader error), which matter only if it dies without a message.
func drain(r *os.File) <-chan string {
	out := make(chan string, 1)
	go func() {
		defer r.Close()
		b, _ := io.ReadAll(io.LimitReader(r, maxText))
		text := strings.TrimSpace(string(b))
		if text == "" {
			text = "no diagnostics"
		}
		out <- text
		io.Copy(io.Discard, r)
	}()
	return out
}
