package launcher

// extern const char __start_ward_stage[], __stop_ward_stage[], ward_stage_entry[];
import "C"

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// stage starts one process in a container by way of the program in stage.c.
// libcontainer's init ends in an execve, with no place for anything of ours;
// so it executes the stage, which installs the filter, gives its listener
// away, waits to be let go, and executes the payload. The same way for a
// container's first process and for each later one.
//
// Use: newStage, outfit the process, libcontainer's Start, (for the first
// process) open libcontainer's fifo, arrived; then gate and listener belong to
// the monitor, to which fromExec says how the payload's execve went.
type stage struct {
	program, settings *os.File
	// init is executed in the payload's place, and starts it; nil if nobody asked.
	init *os.File
	// executed is open in the container until the payload's execve succeeds;
	// over it init or the stage say why it did not. fromExec is our end.
	executed, fromExec *os.File
	// theirGate is the stage's end; over gate it says that it has locked
	// itself in, and a byte lets it go. Its end of file makes it exit.
	theirGate, gate *os.File
}

// The stage's descriptors, the first of libcontainer's extra files; as in stage.c.
const (
	stageExecuted = 3 + iota
	stageProgram
	stageSettings
	stageGate
	stageInit
	stageFirst = stageExecuted
	stageLast  = stageInit
)

// stageTimeout bounds how long the stage may take to lock itself in.
const stageTimeout = 20 * time.Second

func newStage(p sandbox.Process, want sandbox.Seccomp, in domain) (*stage, error) {
	st := &stage{}
	err := st.open(p, want, in)
	if err != nil {
		st.close()
		return nil, fmt.Errorf("stage: %w", err)
	}
	return st, nil
}

func (st *stage) open(p sandbox.Process, want sandbox.Seccomp, in domain) error {
	filter, err := filterOf(want)
	if err != nil {
		return err
	}
	program, err := filter.Program()
	if err != nil {
		return err
	}
	if st.program, err = executableFile(); err != nil {
		return err
	}
	if st.settings, err = sealedFile("ward-settings", settings(program, p.Init, in)); err != nil {
		return err
	}
	if p.Init {
		if st.init, err = initProgram(); err != nil {
			return err
		}
	}
	if st.fromExec, st.executed, err = os.Pipe(); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	st.gate, st.theirGate = os.NewFile(uintptr(fds[0]), "gate"), os.NewFile(uintptr(fds[1]), "gate")
	return nil
}

// outfit makes p, whose Args are the payload's, start by way of the stage.
func (st *stage) outfit(p *libcontainer.Process) {
	first := []string{"/proc/self/fd/" + strconv.Itoa(stageProgram)}
	p.ExtraFiles = []*os.File{st.executed, st.program, st.settings, st.theirGate}
	if st.init != nil {
		first = append(first, "/proc/self/fd/"+strconv.Itoa(stageInit), sandbox.InitName, "--")
		p.ExtraFiles = append(p.ExtraFiles, st.init)
	}
	p.Args = append(first, p.Args...)
}

// started closes what only the container may hold: without it no end of file
// would ever be seen.
func (st *stage) started() {
	closeFiles([]*os.File{st.executed, st.program, st.settings, st.theirGate, st.init})
}

func (st *stage) close() {
	st.started()
	closeFiles([]*os.File{st.fromExec, st.gate})
}

// arrived waits until the process pid has locked itself in and returns the
// listener of its filter. From then on only the payload's own code is missing.
func (st *stage) arrived(pid int, arg0 string) (*os.File, error) {
	gate := int(st.gate.Fd())
	timeout := unix.NsecToTimeval(stageTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(gate, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, err
	}
	said := make([]byte, 8)
	n, err := unix.Read(gate, said)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(gate, said)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "launch.stage", fmt.Errorf("the container's first program does not answer: %w", err), "")
	}
	if n != 4 {
		return nil, st.why(arg0)
	}
	return takeListener(pid, int(binary.LittleEndian.Uint32(said)))
}

// why reads what init or the stage said before it ended.
func (st *stage) why(arg0 string) error {
	said, err := io.ReadAll(io.LimitReader(st.fromExec, 4096))
	if err != nil {
		return err
	}
	if len(said) == 0 {
		return fault.New(fault.Unavailable, "launch.stage", "the container's first program was killed before the payload was executed",
			"if the memory limit is very small, raise it with --memory")
	}
	return stageError(arg0, said)
}

// Where the stage failed, as in stage.c.
const (
	stepSettings = 1 + iota
	stepFilter
	stepGate
	stepLookup
	stepExec
	stepInit
	stepLandlock
)

// stageError tells what came over the wire of an execve that did not succeed.
func stageError(arg0 string, said []byte) error {
	if len(said) != 8 || said[0] != 0 {
		// libcontainer's init, in words.
		return fault.New(fault.Unavailable, "launch.container", "start container: "+string(bytes.TrimSpace(said)), "")
	}
	err := syscall.Errno(binary.LittleEndian.Uint32(said[4:]))
	switch said[1] {
	case stepLookup:
		return execError(arg0, "executable file not found in $PATH")
	case stepExec:
		return execError(arg0, err.Error())
	case stepInit:
		return fault.New(fault.Unavailable, "launch.init", "execute "+sandbox.InitName+": "+err.Error(),
			"run it without --init; if the memory limit is very small, raise it with --memory")
	case stepLandlock:
		return fault.New(fault.Unavailable, "launch.landlock", "shut the container off with Landlock: "+err.Error(), "")
	case stepFilter:
		return fault.New(fault.Unavailable, "launch.seccomp", "install the system-call filter: "+err.Error(),
			"ward needs Linux 5.19 or newer with CONFIG_SECCOMP_FILTER")
	}
	return fault.New(fault.Unavailable, "launch.stage", fmt.Sprintf("the container's first program, step %d: %v", said[1], err), "")
}

// takeListener takes descriptor n out of the stage. It cannot send it: by then
// its filter is in force, and may well not let it.
func takeListener(pid, n int) (*os.File, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if err != nil {
		return nil, fmt.Errorf("take the filter's listener: %w", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	if err := isListener(fd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isListener makes sure of it: a container whose refusals nobody answers, or
// that has no filter, must not come to life.
func isListener(fd int) error {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	if name != "anon_inode:seccomp notify" {
		return fault.New(fault.Internal, "launch.seccomp", fmt.Sprintf("the filter's listener is %q", name), "")
	}
	return nil
}

// staged reports whether this process, libcontainer's init, was given a stage.
// libcontainer is told of no filter: who starts a process without a stage
// would start it without one.
func staged() error {
	var st unix.Stat_t
	if err := unix.Fstat(stageProgram, &st); err != nil || st.Mode != unix.S_IFREG|stageMode {
		return errors.New("init was not given the stage's program")
	}
	if seals, err := unix.FcntlInt(stageSettings, unix.F_GET_SEALS, 0); err != nil || seals&sandbox.Seals != sandbox.Seals {
		return errors.New("init was not given the stage's settings")
	}
	return nil
}

// filterFlags are of seccomp(2): the listener; and a call that has reached it
// waits for the answer through all signals but deadly ones. Without that a
// signal makes the kernel start the call again, and the payload's runtime
// (Go's sends itself signals all day) would be counted several times for one.
const filterFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV

// settings lays out struct settings of stage.c and what it points to.
func settings(program []byte, init bool, in domain) []byte {
	const head = 56 // a filter's instructions are of eight bytes
	first := 0
	if init {
		first = 1
	}
	rules := in.rules()
	var b []byte
	for _, v := range []int{head + len(program) + len(rules), head, len(program) / 8, filterFlags, first, 0} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = in.encode(b, head+len(program))
	return slices.Concat(b, program, rules)
}

// stageMode lets the container execute the stage's program and not read it.
const stageMode = 0o111

// executableFile is the stage's program as a memory file, by a descriptor that
// can neither read nor write it: the kernel executes no file that somebody has
// open for writing, and what the container could read it could trace.
func executableFile() (*os.File, error) {
	code := unsafe.Slice((*byte)(unsafe.Pointer(&C.__start_ward_stage)),
		uintptr(unsafe.Pointer(&C.__stop_ward_stage))-uintptr(unsafe.Pointer(&C.__start_ward_stage)))
	entry := uintptr(unsafe.Pointer(&C.ward_stage_entry)) - uintptr(unsafe.Pointer(&C.__start_ward_stage))
	f, err := sealedFile("ward-stage", wrapped(code, uint64(entry)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Chmod(stageMode); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "ward-stage"), nil
}

func sealedFile(name string, content []byte) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every memory file can be executed
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sandbox.Seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal %s: %w", name, err), f.Close())
	}
	return f, nil
}

// wrapped puts code, which can be loaded anywhere, behind the head of a program.
func wrapped(code []byte, entry uint64) []byte {
	const (
		base         = 0x10000000
		head         = 64 + 2*56
		load, gstack = 1, 0x6474e551
		rx, rw       = 5, 6
	)
	machine := map[string]uint16{"amd64": 62, "arm64": 183}
	at := uint64(head+15) / 16 * 16
	size := at + uint64(len(code))
	var b []byte
	le := binary.LittleEndian
	b = append(b, "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 9)...)
	b = le.AppendUint16(b, 2) // an executable
	b = le.AppendUint16(b, machine[runtime.GOARCH])
	b = le.AppendUint32(b, 1)
	for _, v := range []uint64{base + at + entry, 64, 0} { // entry, program heads, section heads
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 2, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	segment := func(kind, flags uint32, addr, size uint64) {
		b = le.AppendUint32(b, kind)
		b = le.AppendUint32(b, flags)
		for _, v := range []uint64{0, addr, addr, size, size, 4096} {
			b = le.AppendUint64(b, v)
		}
	}
	segment(load, rx, base, size)
	segment(gstack, rw, 0, 0)
	b = append(b, make([]byte, int(at)-len(b))...)
	return slices.Concat(b, code)
}
