package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// tree is the container's root while it is being furnished. Everything that
// does not have to be mounted from inside the container's own namespaces is
// mounted here: it takes a tenth of the system calls, and what is inherited by
// a user namespace with its mounts the container cannot take off again.
//
// No name is ever resolved outside the root: an image's symbolic links lead
// where they would lead inside.
type tree struct {
	root *os.File
	ids  sandbox.IDMap
	// userns has the id map that volumes and images are mounted through.
	userns *os.File
	// stopped is the root of a container that does not run: what is in memory
	// is not there.
	stopped bool
}

// furnish mounts the container's devices, memory, /etc files and what the plan
// asks for on the root at s.
func furnish(p sandbox.Plan, s *scratch, userns *os.File) error {
	root, err := os.OpenFile(s.path("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	t := &tree{root: root, ids: p.IDMap, userns: userns}
	if err := t.fill(p); err != nil {
		return err
	}
	if err := t.devices(s.path("dev"), p.Devices, p.Limits.Shm); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	return t.common(p, s)
}

// fill fills empty volumes with what the image has in their place: now, while
// the root shows the image and nothing else.
func (t *tree) fill(p sandbox.Plan) error {
	for _, m := range p.Mounts {
		if m.CopyUp {
			if err := t.copyUp(p.Host.VolumeDir, m); err != nil {
				return fmt.Errorf("volume %s: %w", m.Name, err)
			}
		}
	}
	return nil
}

// common mounts what a container has whether it runs or not.
func (t *tree) common(p sandbox.Plan, s *scratch) error {
	taken := map[string]bool{}
	for _, m := range p.Mounts {
		taken[m.Target] = true
	}
	for _, m := range []struct {
		target string
		mode   uint32
	}{{"/tmp", 0o1777}, {"/run", 0o755}} {
		if p.Root.Writable || taken[m.target] {
			continue
		}
		if err := t.tmpfs(sandbox.Mount{Target: m.target, Mode: m.mode, Size: sandbox.TmpfsSize}, noexec); err != nil {
			return err
		}
	}
	for _, name := range etcNames {
		if target := "/etc/" + name; !taken[target] {
			if err := t.bind(s.path("etc", name), target, noexec|unix.MOUNT_ATTR_RDONLY); err != nil {
				return err
			}
		}
	}
	return t.asked(p, s)
}

// asked mounts what the plan asks for. Meanwhile the scratch cannot be cloned:
// in a bind of a directory above it the container would find its own root
// again, writable, and the launcher's state.
func (t *tree) asked(p sandbox.Plan, s *scratch) error {
	images := func(i int) string { return s.path("images", strconv.Itoa(i)) }
	for i, m := range p.Mounts {
		if m.Type == sandbox.MountImage {
			if err := t.makeImage(m, images(i)); err != nil {
				return fmt.Errorf("image %s: %w", m.Name, err)
			}
		}
	}
	if err := unix.Mount("", s.dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("hide the scratch: %w", err)
	}
	for i, m := range p.Mounts {
		if err := t.mount(p.Host.VolumeDir, m, images(i)); err != nil {
			return err
		}
	}
	return unix.Mount("", s.dir, "", unix.MS_PRIVATE, "")
}

const (
	inert  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	noexec = inert | unix.MOUNT_ATTR_NOEXEC
)

// mount puts one mount in place. An image is put together at the scratch's
// directory at.
func (t *tree) mount(volumes string, m sandbox.Mount, at string) error {
	attr := uint64(inert)
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if !m.Exec {
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	switch m.Type {
	case sandbox.MountTmpfs:
		return t.tmpfs(m, attr)
	case sandbox.MountVolume:
		return t.volume(volumes, m, attr)
	case sandbox.MountImage:
		return t.image(m, attr, at)
	default: // the floor has let no other through
		return t.bind(m.Source, m.Target, attr)
	}
}

// devices makes a fresh /dev, whatever the image has there, with the devices
// that do nothing to the host. It is put together on the scratch and bound by
// libcontainer, which otherwise furnishes /dev itself, at a high price.
func (t *tree) devices(at string, asked []sandbox.Device, shmSize int64) error {
	// No NODEV here: this is where the device nodes are.
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_STRICTATIME,
		t.owned("mode=755", "size=64k"))
	if err != nil {
		return err
	}
	defer dev.Close()
	d := int(dev.Fd())
	for _, n := range nodes() {
		name := path.Base(n.Path)
		err := unix.Mknodat(d, name, unix.S_IFCHR, int(unix.Mkdev(uint32(n.Major), uint32(n.Minor))))
		// Mknodat's mode would be subject to the umask.
		if err = errors.Join(err, unix.Fchmodat(d, name, 0o666, 0), t.own(dev, name)); err != nil {
			return fmt.Errorf("make %s: %w", n.Path, err)
		}
	}
	if err := t.askedDevices(dev, asked); err != nil {
		return err
	}
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		if err := errors.Join(unix.Symlinkat(l[0], d, l[1]), t.own(dev, l[1])); err != nil {
			return fmt.Errorf("make /dev/%s: %w", l[1], err)
		}
	}
	for _, name := range []string{"pts", "shm", "mqueue"} {
		if err := errors.Join(unix.Mkdirat(d, name, 0o755), t.own(dev, name)); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	pts, err := newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		[]string{"ptmxmode=0666", "mode=0620", "gid=" + strconv.Itoa(int(t.ids.Base)+5)})
	if err != nil {
		return err
	}
	defer pts.Close()
	shm, err := newMount("tmpfs", noexec, t.owned("mode=1777", "size="+strconv.FormatInt(shmSize, 10)))
	if err != nil {
		return err
	}
	defer shm.Close()
	return errors.Join(attach(dev, at), attach(pts, path.Join(at, "pts")), attach(shm, path.Join(at, "shm")))
}

// askedDevices makes the nodes of the host's devices that the plan names. They
// belong to the container's root; who else may use them is up to it.
func (t *tree) askedDevices(dev *os.File, asked []sandbox.Device) error {
	kinds := map[string]uint32{"c": unix.S_IFCHR, "b": unix.S_IFBLK}
	for _, a := range asked {
		name := path.Base(a.Target)
		err := unix.Mknodat(int(dev.Fd()), name, kinds[a.Type], int(unix.Mkdev(uint32(a.Major), uint32(a.Minor))))
		if err = errors.Join(err, unix.Fchmodat(int(dev.Fd()), name, 0o660, 0), t.own(dev, name)); err != nil {
			return fmt.Errorf("make %s: %w", a.Target, err)
		}
	}
	return nil
}

// attach mounts m at a path of the scratch, where nobody else makes names.
func attach(m *os.File, at string) error {
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}

// owned adds the options that give a new file system to the container's root.
func (t *tree) owned(options ...string) []string {
	base := strconv.Itoa(int(t.ids.Base))
	return append(options, "uid="+base, "gid="+base)
}

// own gives name in dir to the container's root.
func (t *tree) own(dir *os.File, name string) error {
	return unix.Fchownat(int(dir.Fd()), name, int(t.ids.Base), int(t.ids.Base), unix.AT_SYMLINK_NOFOLLOW)
}

func (t *tree) tmpfs(m sandbox.Mount, attr uint64) error {
	if t.stopped {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	fs, err := newMount("tmpfs", attr, []string{fmt.Sprintf("mode=%04o", m.Mode), "size=" + strconv.FormatInt(m.Size, 10),
		"uid=" + strconv.FormatUint(uint64(t.ids.Base)+uint64(m.UID), 10), "gid=" + strconv.FormatUint(uint64(t.ids.Base)+uint64(m.GID), 10)})
	if err != nil {
		return fmt.Errorf("%s: %w", m.Target, err)
	}
	defer fs.Close()
	return t.place(fs, m.Target, true)
}

// bind places a clone of the host's source at target. No symbolic link is
// followed: the plan names the resolved path, and a link that has appeared
// since was not what policy allowed.
func (t *tree) bind(source, target string, attr uint64) error {
	src, err := openat2(unix.AT_FDCWD, source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		return fault.New(fault.NotFound, "launch.bind", fmt.Sprintf("%s: %v", source, err), "name an existing path without symbolic links")
	case err != nil:
		return fmt.Errorf("bind %s: %w", source, err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	// Recursive, and so are the attributes: what is mounted below the source
	// must not keep set-user-id programs or stay writable.
	fd, err := unix.OpenTree(src, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("bind %s: open_tree: %w", source, err)
	}
	m := os.NewFile(uintptr(fd), source)
	defer m.Close()
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("bind %s: mount_setattr: %w", source, err)
	}
	return t.place(m, target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// place attaches a detached mount at target inside the root.
func (t *tree) place(m *os.File, target string, dir bool) error {
	at, err := t.open(target, dir)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV) {
		return fault.Wrap(fault.Invalid, "launch.target", fmt.Errorf("mount on %s: %w", target, err),
			"use an image with ordinary directories there, or another target")
	}
	if err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	defer at.Close()
	if root, err := t.isRoot(at); err != nil {
		return err
	} else if root {
		// By a link of the image's: what is mounted would take the image's place.
		return fault.New(fault.Invalid, "launch.root-symlink", fmt.Sprintf("the image's %s leads to /", target),
			"rebuild the image with an ordinary directory there")
	}
	err = unix.MoveMount(int(m.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	return nil
}

// isRoot reports whether f is the root's own directory.
func (t *tree) isRoot(f *os.File) (bool, error) {
	var st, root unix.Stat_t
	err := errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Fstat(int(t.root.Fd()), &root))
	return st.Dev == root.Dev && st.Ino == root.Ino, err
}

// maxLinks bounds how many dangling symbolic links open follows.
const maxLinks = 8

// open returns target inside the root, made with all directories above it if
// it is not there. What it makes belongs to the container's root.
func (t *tree) open(target string, dir bool) (*os.File, error) {
	for range maxLinks {
		f, err := t.lookup(target)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		parent, err := t.open(path.Dir(target), true) // ends at /, which is there
		if err != nil {
			return nil, err
		}
		link, err := t.make(parent, path.Base(target), dir)
		parent.Close()
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", target, err)
		}
		if link != "" {
			// /etc/resolv.conf is a link to nowhere in many an image.
			target = path.Join("/", path.Dir(target), link)
			if path.IsAbs(link) {
				target = path.Clean(link)
			}
		}
	}
	return nil, fmt.Errorf("%s: %w", target, unix.ELOOP)
}

// make makes name in parent, or returns where it leads if it is a symbolic
// link already.
func (t *tree) make(parent *os.File, name string, dir bool) (link string, err error) {
	create := func() error {
		if dir {
			return unix.Mkdirat(int(parent.Fd()), name, 0o755)
		}
		fd, err := unix.Openat(int(parent.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	if err = create(); errors.Is(err, unix.EOVERFLOW) {
		// In a volume: the host's root is nobody there.
		err = asOwner(int(t.ids.Base), create)
	}
	if errors.Is(err, unix.EEXIST) {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(parent.Fd()), name, buf)
		return string(buf[:max(n, 0)]), err
	}
	if err != nil {
		return "", err
	}
	// In a bind it stays the host's: whoever can rename there could have put
	// something else in its place by now (the class of CVE-2021-30465).
	if own, err := t.ours(parent); err != nil || !own {
		return "", err
	}
	return "", t.own(parent, name)
}

// ours reports whether dir is on the root's own file system.
func (t *tree) ours(dir *os.File) (bool, error) {
	var st, root unix.Stat_t
	err := errors.Join(unix.Fstat(int(dir.Fd()), &st), unix.Fstat(int(t.root.Fd()), &root))
	return st.Dev == root.Dev, err
}

func (t *tree) lookup(target string) (*os.File, error) {
	name := strings.TrimPrefix(target, "/")
	if name == "" {
		name = "."
	}
	fd, err := openat2(int(t.root.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), target), nil
}

// newMount makes a file system that is nowhere in the tree yet.
func newMount(kind string, attr uint64, options []string) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return nil, fmt.Errorf("%s %s: %w", kind, o, err)
		}
	}
	if err := unix.FsconfigSetString(fs, "source", "ward"); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	return os.NewFile(uintptr(fd), kind), nil
}
