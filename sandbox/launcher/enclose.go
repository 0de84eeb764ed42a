package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// hostProc is a handle on the host's /proc, kept open only until the
// container's process ids in the host's PID namespace are known.
type hostProc struct{ dir *os.File }

// enclose checks that this process is what its caller was to make of it (the
// first of its PID namespace, in a mount namespace of its own), cuts the mount
// namespace off from the host's, and mounts a /proc for the PID namespace.
func enclose() (*hostProc, error) {
	if os.Getpid() != 1 {
		return nil, fault.New(fault.Denied, "launch.namespace", "the launcher is not the first process of a PID namespace",
			"start containers through ward")
	}
	// Before anything is mounted: on most hosts / is shared, and a mount here
	// would show there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	dir, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	host := &hostProc{dir}
	if err := host.differs(); err != nil {
		return nil, err
	}
	// A whole and unmasked one: the kernel lets the container have its own
	// /proc only if one without anything mounted over is in sight.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return nil, fmt.Errorf("mount /proc: %w", err)
	}
	// What a caller leaked must not reach the container or the monitor.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("close_range: %w", err)
	}
	return host, nil
}

// differs makes sure that the mount namespace is not the caller's: as the
// first process of a PID namespace alone, mounting would change the host.
func (h *hostProc) differs() error {
	caller, err := h.field("self/status", "PPid:")
	if err != nil {
		return err
	}
	mine, err := h.readlink("self/ns/mnt")
	if err != nil {
		return err
	}
	theirs, err := h.readlink(strconv.Itoa(caller) + "/ns/mnt")
	if err != nil {
		return err
	}
	if mine == theirs {
		return fault.New(fault.Denied, "launch.namespace", "the launcher is in its caller's mount namespace",
			"start containers through ward")
	}
	return nil
}

func (h *hostProc) readlink(name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Readlinkat(int(h.dir.Fd()), name, buf)
	if err != nil {
		return "", fmt.Errorf("host's /proc/%s: %w", name, err)
	}
	return string(buf[:n]), nil
}

// self is this process's id in the host's PID namespace.
func (h *hostProc) self() (int, error) {
	s, err := h.readlink("self")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

// pid translates a process id of this PID namespace into the host's. It goes
// through a descriptor of the process, so that it cannot name another one.
func (h *hostProc) pid(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	return h.field("self/fdinfo/"+strconv.Itoa(fd), "Pid:")
}

// field reads the number after key in one of the host's /proc files.
func (h *hostProc) field(name, key string) (int, error) {
	fd, err := unix.Openat(int(h.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("host's /proc/%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	buf := make([]byte, 4096)
	n, err := f.Read(buf)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(buf[:n])) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return 0, fmt.Errorf("host's /proc/%s has no %s", name, key)
}

func (h *hostProc) close() error { return h.dir.Close() }

// scratch is a small private file system that ends with the mount namespace.
// Everything the launcher makes up is on it: the root's mount point, the
// container's /etc files, libcontainer's state. Host paths stay out of the
// container's mountinfo that way, and nothing needs removing.
type scratch struct{ dir string }

// newScratch mounts it over a directory that every system has and that the
// container's user can reach through (mode 0711 all the way: a runtime
// directory below a private one would not do).
func newScratch(p sandbox.Plan) (*scratch, error) {
	dir, err := pickScratch(p)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("ward", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=16m,nr_inodes=4096"); err != nil {
		return nil, fmt.Errorf("mount scratch on %s: %w", dir, err)
	}
	s := &scratch{dir}
	for _, name := range []string{"root", "etc", "state", "cgroup", "dev", "layers", "images"} {
		if err := os.Mkdir(s.path(name), 0o711); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *scratch) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// pickScratch returns a directory of the root file system that nothing this
// run uses is in. The mount over it is seen by the launcher alone.
func pickScratch(p sandbox.Plan) (string, error) {
	used := []string{p.Host.ContainerDir, p.Host.RuntimeDir, p.Host.AuditDir}
	for _, l := range p.Root.Layers {
		used = append(used, l.Path)
	}
	for _, m := range p.Mounts {
		used = append(used, m.Source)
		for _, l := range m.Layers {
			used = append(used, l.Path)
		}
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", err
	}
	used = append(used, exe)
next:
	for _, dir := range []string{"/mnt", "/media", "/srv", "/opt", "/home"} {
		for _, u := range used {
			real, err := filepath.EvalSymlinks(u)
			if err != nil {
				real = u
			}
			if real == dir || strings.HasPrefix(real, dir+"/") || strings.HasPrefix(u, dir+"/") {
				continue next
			}
		}
		if st, err := os.Lstat(dir); err == nil && st.IsDir() {
			return dir, nil
		}
	}
	return "", fault.New(fault.Unavailable, "launch.scratch", "none of /mnt, /media, /srv, /opt, /home is free to mount over",
		"create an empty directory /mnt")
}
