package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
)

// CommandFiles is the launcher's command for copying files.
const CommandFiles = "files"

// The descriptors of the launcher when it copies files.
const (
	FDFilesControl = 3 + iota
	FDFilesData
	// FDFilesContainer is a descriptor of the container's first process.
	FDFilesContainer
	// FDFilesPlan and FDFilesReceipt are sealed memory files, for a container
	// that does not run; FDFilesLock keeps its lock held.
	FDFilesPlan    = FDFilesContainer
	FDFilesReceipt = FDFilesContainer + 1
	FDFilesLock    = FDFilesContainer + 2
)

// CommandStoppedFiles is the launcher's command for copying files of a
// container that does not run.
const CommandStoppedFiles = "stopped-files"

// FilesRequest is what is to be copied, or where to.
type FilesRequest struct {
	// In is into the container, else out of it.
	In bool `json:"in"`
	// Path is absolute, inside; a "/" or "/." at its end asks for a directory.
	Path string `json:"path"`
	// Follow copies what a link at Path names and not the link.
	Follow bool `json:"follow"`
	// KeepIDs gives what is copied in the owners it says; else it is root's.
	KeepIDs bool `json:"keep_ids"`
}

// FilesStat is what is at a path in the container.
type FilesStat struct {
	Exists bool `json:"exists"`
	Dir    bool `json:"dir"`
	// Name is the last part of the path, "." for the container's root.
	Name  string       `json:"name"`
	Error *fault.Error `json:"error,omitempty"`
}

// FilesTarget is the directory in the container that is copied into, and the
// name there; "." is the directory itself. Copying out it means go on.
type FilesTarget struct {
	Dir  string `json:"dir"`
	Name string `json:"name"`
}

// FilesResult is how a copy went, as the container's side saw it.
type FilesResult struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
	// Left counts what was left out, or changed while it was read.
	Left int64 `json:"left"`
	// Unkept counts extended attributes that the file system copied to cannot
	// keep.
	Unkept int64        `json:"unkept"`
	Error  *fault.Error `json:"error,omitempty"`
}

// Files is a copy under way: a process in the container's user and mount
// namespaces, at the other end of a pipe.
type Files struct {
	// Stat is what is at the path asked about.
	Stat FilesStat

	proc    *os.Process
	control *os.File
	data    *os.File
	begun   bool
	diag    <-chan string
}

// Files enters the container whose monitor serves in runtimeDir and looks at
// req's path. It executes nothing of the container's, and nothing in there can
// see it. Close must be called.
func (l *Launcher) Files(ctx context.Context, runtimeDir string, req FilesRequest) (*Files, error) {
	m, err := Dial(runtimeDir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	container, err := m.container(ctx)
	if err != nil {
		return nil, err
	}
	defer container.Close()
	return l.startFiles(req, []*os.File{container}, &syscall.SysProcAttr{Setsid: true}, CommandFiles, strconv.Itoa(FDFilesContainer))
}

// StoppedFiles looks at req's path in a container that does not run and would
// run by an encoded plan. r must prove the container.copy record of exactly this
// plan; lock is the container's held lock, which the process that copies keeps:
// nobody starts the container meanwhile. Close must be called.
func (l *Launcher) StoppedFiles(ctx context.Context, plan []byte, r receipt.Receipt, lock *os.File, req FilesRequest) (*Files, error) {
	proof := r.Bytes()
	if len(proof) == 0 {
		return nil, fault.New(fault.Unrecorded, "launch.no-receipt", "there is no receipt for this copy", "")
	}
	p, err := DecodePlan(plan)
	if err != nil {
		return nil, err
	}
	if err := DefaultFloor().Check(p); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var owned files
	defer owned.close()
	planFile := owned.add(sealed("ward-plan", plan))
	proofFile := owned.add(sealed("ward-receipt", proof))
	if owned.err != nil {
		return nil, fault.Wrap(fault.Internal, "launch.setup", owned.err, "")
	}
	// As for a start: its namespaces are made before it has threads.
	sys := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Setsid: true}
	return l.startFiles(req, []*os.File{planFile, proofFile, lock}, sys, CommandStoppedFiles)
}

// startFiles starts the program with args and further files, and has it look.
func (l *Launcher) startFiles(req FilesRequest, further []*os.File, sys *syscall.SysProcAttr, args ...string) (*Files, error) {
	f, err := l.openFiles(req.In, further, sys, args)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(writeReply(f.control, req), readJSON(f.control, &f.Stat)); err != nil {
		return nil, f.failed(err)
	}
	if f.Stat.Error != nil {
		f.Close()
		return nil, f.Stat.Error
	}
	return f, nil
}

// container returns a descriptor of the container's first process. It comes
// from that one's parent and so is never another's.
func (m *Monitor) container(ctx context.Context) (*os.File, error) {
	_, files, err := m.askFiles(ctx, MonitorRequest{Op: OpFiles})
	if err == nil && len(files) != 1 {
		closeAll(files...)
		err = fault.New(fault.Internal, "monitor.protocol", "the monitor's answer has no descriptor", "")
	}
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

func (l *Launcher) openFiles(in bool, further []*os.File, sys *syscall.SysProcAttr, args []string) (*Files, error) {
	var owned files
	defer owned.close()
	null := owned.add(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	ours, theirs, err := controlPair()
	owned.add(theirs, err)
	r, w, err := os.Pipe()
	data, theirData := r, w
	if in {
		data, theirData = w, r
	}
	owned.add(theirData, err)
	diagOut, diagIn, err := os.Pipe()
	owned.add(diagIn, err)
	if owned.err != nil {
		closeAll(ours, data, diagOut)
		return nil, fault.Wrap(fault.Internal, "launch.setup", owned.err, "")
	}
	proc, err := os.StartProcess(l.path, append([]string{filepath.Base(l.path)}, args...), &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: append([]*os.File{null, null, diagIn, theirs, theirData}, further...), Sys: sys,
	})
	for _, file := range further {
		runtime.KeepAlive(file)
	}
	if err != nil {
		closeAll(ours, data, diagOut)
		return nil, fault.Wrap(fault.Unavailable, "launcher.start", fmt.Errorf("start %s: %w", l.path, err), "")
	}
	return &Files{proc: proc, control: ours, data: data, diag: drain(diagOut)}, nil
}

// Receive lets the other side send, and returns what it sends.
func (f *Files) Receive() (io.Reader, error) {
	f.begun = true
	return f.data, writeReply(f.control, FilesTarget{Dir: "/", Name: "."})
}

// Send names the place that what is written to the result goes to. It is
// closed by Result.
func (f *Files) Send(t FilesTarget) (io.Writer, error) {
	f.begun = true
	return f.data, writeReply(f.control, t)
}

// Result ends the copy and returns how it went.
func (f *Files) Result() (FilesResult, error) {
	var r FilesResult
	if !f.begun {
		return r, nil
	}
	if err := f.data.Close(); err != nil {
		return r, err
	}
	if err := f.control.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return r, err
	}
	if err := readJSON(f.control, &r); err != nil {
		return r, f.failed(err)
	}
	if r.Error != nil {
		return r, r.Error
	}
	return r, nil
}

// PID is the process's id.
func (f *Files) PID() int { return f.proc.Pid }

// Close ends the process, whatever it is at.
func (f *Files) Close() {
	f.control.Close()
	f.data.Close()
	f.proc.Kill()
	f.proc.Wait()
}

func (f *Files) failed(err error) error {
	f.Close()
	said := strings.TrimSpace(<-f.diag)
	return fault.Wrap(fault.Internal, "cp.launcher", fmt.Errorf("the launcher that copies: %w: %s", err, said), "")
}

// ReadFilesPacket and WriteFilesPacket are the other side's ends of the
// conversation.
func ReadFilesPacket(r io.Reader, v any) error { return readJSON(r, v) }

// WriteFilesPacket writes v as one packet.
func WriteFilesPacket(w io.Writer, v any) error { return writeReply(w, v) }
