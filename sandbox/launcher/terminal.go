package launcher

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// terminal is the payload's: of the container's own devpts, made there by
// libcontainer's init, which sends the master over a socket. Both /dev and
// /dev/pts are fresh whatever the image has there (tree.devices), so that the
// node init mounts over can be nobody else's (CVE-2025-52565).
type terminal struct {
	size          sandbox.Terminal
	socket, inits *os.File
	master        *os.File
}

func newTerminal(size sandbox.Terminal) (*terminal, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	return &terminal{size: size, socket: os.NewFile(uintptr(fds[0]), "console"), inits: os.NewFile(uintptr(fds[1]), "console")}, nil
}

func (t *terminal) outfit(p *libcontainer.Process) {
	p.ConsoleSocket, p.ConsoleHeight, p.ConsoleWidth = t.inits, t.size.Rows, t.size.Columns
}

// take receives the master that init has sent, if the process was started.
func (t *terminal) take(wasStarted bool) (err error) {
	t.inits.Close()
	defer t.socket.Close()
	if !wasStarted {
		return nil
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	// With init's end closed there is a message or the end of file.
	_, n, flags, _, err := unix.Recvmsg(int(t.socket.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 || flags&unix.MSG_CTRUNC != 0 {
		return fault.New(fault.Internal, "launch.terminal", fmt.Sprintf("the container's init sent no terminal: %v", err), "")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return err
	}
	if len(fds) != 1 {
		return fault.New(fault.Internal, "launch.terminal", "the container's init did not send one terminal", "")
	}
	t.master = os.NewFile(uintptr(fds[0]), "terminal")
	return isMaster(fds[0])
}

// isMaster makes sure of it: everything the payload writes is read from this
// descriptor, and what clients type is written to it.
func isMaster(fd int) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
		return err
	}
	if _, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC ||
		st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return fault.New(fault.Internal, "launch.terminal", "the container's init sent something that is not a terminal", "")
	}
	return nil
}

// resize gives a terminal another size.
func (m *monitor) resize(exec string, size *sandbox.Terminal) sandbox.MonitorReply {
	var err error
	switch {
	case size == nil:
		err = fault.New(fault.Invalid, "monitor.protocol", "a size is missing", "")
	case exec != "":
		err = m.execs.resize(exec, *size)
	case m.terminal == nil:
		err = fault.New(fault.Invalid, "terminal.none", "the container has no terminal", "start it with -t")
	default:
		err = setSize(m.terminal, *size)
	}
	if err != nil {
		return sandbox.MonitorReply{Error: fault.As(err)}
	}
	return sandbox.MonitorReply{OK: true}
}

func setSize(master *os.File, size sandbox.Terminal) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
	return errors.Join(cerr, err)
}
