package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// What a bind mount shows of the host was judged by its path, with all links
// followed (sandbox.OCIPlan.Sources). Whoever owns a directory on that path can
// have it lead elsewhere a moment later; libcontainer, given the path, would
// follow. So libcontainer is given descriptors, opened without following a
// link. It takes none, but what its init cannot find it asks the launcher for,
// by name: a name below /proc/self/fd that only the launcher has.
//
// The kernel binds only what was opened in the container's own mount namespace.
// That exists once its init does, which waits there (ociAwaitSources) until the
// launcher has opened everything in it.

// ociSources are the files behind the binds of one container, and its root.
type ociSources struct {
	binds []ociSource
	root  *os.File
	// ours and theirs are the socket between launcher and init.
	ours, theirs *os.File
	served       chan error
}

// ociSource is one of them: number is its descriptor here.
type ociSource struct {
	path   string
	number int
}

// sourceFirst is the lowest number of such a descriptor. Its name must mean
// nothing to init, which has a few descriptors and those of its caller.
const sourceFirst = 512

// openSources opens what plan says and points config at it.
func openSources(plan sandbox.OCIPlan, config *configs.Config) (s *ociSources, err error) {
	s = &ociSources{served: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	fd, err := openSource(plan.Rootfs)
	if err != nil {
		return s, fmt.Errorf("root file system: %w", err)
	}
	s.root = os.NewFile(uintptr(fd), plan.Rootfs)
	for i, m := range config.Mounts {
		if !m.IsBind() {
			continue
		}
		fd, err := openSource(plan.Sources[i])
		if err != nil {
			return s, fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, sourceFirst+plan.PreserveFDs)
		unix.Close(fd)
		if err != nil {
			return s, fmt.Errorf("descriptor for %q: %w", m.Source, err)
		}
		s.binds = append(s.binds, ociSource{plan.Sources[i], n})
		m.Source = "/proc/self/fd/" + strconv.Itoa(n)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, fmt.Errorf("socketpair: %w", err)
	}
	s.ours, s.theirs = os.NewFile(uintptr(fds[0]), "sources"), os.NewFile(uintptr(fds[1]), "sources")
	go func() { s.served <- s.serve() }()
	return s, nil
}

// openSource opens what was judged by its path, or nothing.
func openSource(path string) (int, error) {
	fd, err := openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.ELOOP) {
		return -1, fault.New(fault.Denied, "oci.source", fmt.Sprintf("%q leads through a link by now: it is not what was decided about", path),
			"try again; see who may write to the directories on its path")
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

// serve opens everything again in the mount namespace that init sends.
func (s *ociSources) serve() error {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	socket := int(s.ours.Fd())
	n, oobn, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return err // there is no init
	}
	ns, err := oneDescriptor(oob[:oobn])
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	err = s.reopen(ns)
	answer := []byte{0}
	if err != nil {
		answer[0] = 1
	}
	return errors.Join(err, unix.Sendmsg(socket, answer, nil, nil, unix.MSG_NOSIGNAL))
}

func oneDescriptor(oob []byte) (int, error) {
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(cs) != 1 {
		return -1, errors.Join(errors.New("init sent no mount namespace"), err)
	}
	fds, err := unix.ParseUnixRights(&cs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("init sent no mount namespace"), err)
	}
	return fds[0], nil
}

// reopen replaces each descriptor by one of the same file in a mount namespace.
func (s *ociSources) reopen(ns int) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("join the container's mount namespace: %w", err)
			}
			for _, b := range s.binds {
				if err := b.reopen(); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	return <-done
}

func (b ociSource) reopen() error {
	fd, err := openSource(b.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	same, err := sameFile(fd, b.number)
	if err != nil {
		return err
	}
	if !same {
		return replaced(b.path)
	}
	return unix.Dup3(fd, b.number, unix.O_CLOEXEC)
}

func replaced(path string) error {
	return fault.New(fault.Denied, "oci.source", fmt.Sprintf("%q was replaced while the container was made", path),
		"try again; see who may write to the directories on its path")
}

func sameFile(a, b int) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		return false, fmt.Errorf("fstat: %w", err)
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}

// checkRoot makes sure that the root of a container which waits before its
// payload is the one that was decided about: libcontainer goes by its path.
func (s *ociSources) checkRoot(pid int) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the container's root: %w", err)
	}
	defer unix.Close(fd)
	same, err := sameFile(fd, int(s.root.Fd()))
	if err == nil && !same {
		err = replaced(s.root.Name())
	}
	return err
}

// finish says what went wrong here, once init has what it asked for or is gone.
func (s *ociSources) finish() error {
	s.theirs.Close()
	_ = unix.Shutdown(int(s.ours.Fd()), unix.SHUT_RDWR) // who still waits for init waits in vain
	return <-s.served
}

func (s *ociSources) close() {
	for _, f := range []*os.File{s.root, s.ours, s.theirs} {
		if f != nil {
			f.Close()
		}
	}
	for _, b := range s.binds {
		unix.Close(b.number)
	}
}

// ociAwaitSources is init's part: it hands out its mount namespace and waits
// until the launcher has opened there what will be mounted.
func ociAwaitSources() error {
	if os.Getenv("_LIBCONTAINER_INITTYPE") != "standard" {
		return nil // a process that is added mounts nothing
	}
	// Before the monitor (ocijoin.c), which is the last of the launcher's files.
	v := os.Getenv("_LIBCONTAINER_CONSOLE")
	if v == "" {
		v = os.Getenv("_LIBCONTAINER_INITPIPE")
	}
	first, err := strconv.Atoi(v)
	if err != nil {
		return err
	}
	socket := first - 2
	ns, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("own mount namespace: %w", err)
	}
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(ns), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("launcher: %w", err)
	}
	answer := []byte{1}
	if n, err := unix.Read(socket, answer); err != nil || n != 1 || answer[0] != 0 {
		return errors.Join(errors.New("the launcher did not open what is to be mounted"), err)
	}
	return errors.Join(unix.Close(ns), unix.Close(socket))
}

// ociInitFailed ends init; what it says reaches the caller's log.
func ociInitFailed(why error) {
	if fd, err := strconv.Atoi(os.Getenv("_LIBCONTAINER_LOGPIPE")); err == nil {
		b, err := json.Marshal(map[string]string{"level": "fatal", "msg": why.Error()})
		if err == nil {
			_, _ = unix.Write(fd, append(b, '\n')) // who reads it may be gone
		}
	}
	os.Exit(255)
}
