package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// rootTree makes the container's file tree. What holds ids as they are inside
// (layers, volumes) is seen through one user namespace with its id map.
func rootTree(p sandbox.Plan, s *scratch) error {
	userns, err := userNamespace(p.IDMap)
	if err != nil {
		return err
	}
	defer userns.Close()
	if err := buildRoot(p, s, userns); err != nil {
		return err
	}
	return furnish(p, s, userns)
}

// buildRoot mounts the container's root file system at scratch's "root": the
// layers, each seen through the container's id map and read-only, under an
// upper directory that belongs to the container's root. Layers on disk keep
// their owners and are never written.
func buildRoot(p sandbox.Plan, s *scratch, userns *os.File) error {
	layers, err := mapLayers(p.Root.Layers, userns, s.path("layers"))
	defer closeFiles(layers)
	if err != nil {
		return err
	}
	upper, work, err := upperDirs(p, s)
	defer closeFiles([]*os.File{upper, work})
	if err != nil {
		return err
	}
	if err := mountOverlay(layers, upper, work, s.path("root"), 0); err != nil {
		return err
	}
	return checkTrees(s.path("root"))
}

// mapLayers mounts each layer's directory below at, on the scratch, in the same
// order: before Linux 6.15 overlayfs takes no mount that is nowhere in the tree.
func mapLayers(layers []sandbox.Layer, userns *os.File, at string) ([]*os.File, error) {
	var mounts []*os.File
	for i, l := range layers {
		m, err := mapLayer(l.Path, userns)
		if err != nil {
			return mounts, fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		mounts = append(mounts, m)
		if err := attachNew(m, filepath.Join(at, strconv.Itoa(i))); err != nil {
			return mounts, err
		}
	}
	return mounts, nil
}

// attachNew attaches a detached mount at a new directory of the scratch.
func attachNew(m *os.File, at string) error {
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	return attach(m, at)
}

func mapLayer(path string, userns *os.File) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, "launch.layer", err, "pull the image again")
	}
	defer dir.Close()
	return mapTree(dir, unix.MOUNT_ATTR_RDONLY|inert, userns)
}

// mapTree returns a detached mount of dir, on which ids are seen through the
// container's id map.
func mapTree(dir *os.File, attr uint64, userns *os.File) (*os.File, error) {
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	m := os.NewFile(uintptr(fd), dir.Name())
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | attr,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns.Fd()),
	})
	if err != nil {
		m.Close()
		// Not mapping would show the host's owners; changing the owners on
		// disk would change them for every container of the image.
		return nil, fault.Wrap(fault.Unavailable, "launch.idmap",
			fmt.Errorf("the file system of %s cannot be mounted with an id map: %w", dir.Name(), err),
			"keep ward's state on ext4, xfs, btrfs, erofs or tmpfs, under Linux 5.19 or newer")
	}
	return m, nil
}

// upperDirs returns the directories the container writes to: kept with the
// container for a writable root, else on the private scratch, where only the
// mount points made for this start end up.
func upperDirs(p sandbox.Plan, s *scratch) (upper, work *os.File, err error) {
	at := s.path("upper")
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, nil, err
	}
	if p.Root.Writable {
		// The overlay shows the names of its directories to the container:
		// through a mount on the scratch they are not the host's.
		fd, err := unix.OpenTree(unix.AT_FDCWD, p.Host.ContainerDir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, nil, fmt.Errorf("open_tree: %w", err)
		}
		tree := os.NewFile(uintptr(fd), "container directory")
		defer tree.Close()
		if err := attach(tree, at); err != nil {
			return nil, nil, err
		}
	}
	dir, err := os.OpenFile(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	if upper, err = ownedDir(int(dir.Fd()), "upper", p.IDMap); err != nil {
		return nil, nil, err
	}
	if work, err = ownedDir(int(dir.Fd()), "work", p.IDMap); err != nil {
		return upper, nil, err
	}
	return upper, work, nil
}

// ownedDir returns the directory name in dir, made if it is not there,
// belonging to the container's root.
func ownedDir(dir int, name string, m sandbox.IDMap) (*os.File, error) {
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	d := os.NewFile(uintptr(fd), name)
	err = d.Chown(int(m.Base), int(m.Base))
	if err == nil {
		err = d.Chmod(0o755) // Mkdirat's was subject to the umask
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// mountOverlay mounts layers at target, under upper if there is one.
func mountOverlay(layers []*os.File, upper, work *os.File, target string, attr int) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fault.Wrap(fault.Unavailable, "launch.overlay", fmt.Errorf("fsopen overlay: %w", err), "use a kernel with overlayfs")
	}
	defer unix.Close(fd)
	if err := setLayers(fd, layers); err != nil {
		return err
	}
	if upper != nil {
		if err := errors.Join(setDir(fd, "upperdir", upper), setDir(fd, "workdir", work)); err != nil {
			return err
		}
	}
	// Metadata an image could smuggle in as extended attributes is not
	// followed to other files or directories.
	for _, o := range [][2]string{{"source", "ward"}, {"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"},
		{"xino", "off"}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return fmt.Errorf("overlay %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("make overlay: %w", err)
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, inert|attr)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(m)
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("place overlay: %w", err)
	}
	return nil
}

// setLayers names the lower directories, topmost first as the kernel wants
// them. Before Linux 6.5 there is one option for all of them.
func setLayers(fs int, layers []*os.File) error {
	top := len(layers) - 1
	err := setDir(fs, "lowerdir+", layers[top])
	if errors.Is(err, unix.EINVAL) {
		var names []string
		for i := top; i >= 0; i-- {
			names = append(names, fdName(layers[i]))
		}
		if err = unix.FsconfigSetString(fs, "lowerdir", strings.Join(names, ":")); err != nil {
			return fmt.Errorf("overlay lowerdir: %w", err)
		}
		return nil
	}
	for i := top - 1; i >= 0 && err == nil; i-- {
		err = setDir(fs, "lowerdir+", layers[i])
	}
	return err
}

// setDir names a directory by descriptor; before Linux 6.13, where overlayfs
// takes none (EINVAL) or not of this kind (EBADF), by the descriptor's name.
func setDir(fs int, key string, dir *os.File) error {
	err := unix.FsconfigSetFd(fs, key, int(dir.Fd()))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF) {
		err = unix.FsconfigSetString(fs, key, fdName(dir))
	}
	if err != nil {
		return fmt.Errorf("overlay %s: %w", key, err)
	}
	return nil
}

// fdName is a name by which the kernel resolves a descriptor to the very mount
// it is open on. It has no letter that the overlay's options treat specially.
func fdName(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// checkTrees refuses an image in which a directory the launcher mounts over is
// something else: through a symbolic link the mount, the device nodes or the
// masks would land elsewhere (CVE-2019-16884, CVE-2023-27561, CVE-2025-31133,
// CVE-2026-41579).
func checkTrees(root string) error {
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		st, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fault.New(fault.Invalid, "launch.root-symlink", fmt.Sprintf("the image's /%s is not a directory", name),
				"rebuild the image with an ordinary directory there")
		}
	}
	return nil
}

func closeFiles(fs []*os.File) {
	for _, f := range fs {
		if f != nil {
			f.Close()
		}
	}
}
