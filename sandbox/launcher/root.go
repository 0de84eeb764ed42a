package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// buildRoot mounts the container's root file system at scratch's "root": the
// layers, each seen through the container's id map and read-only, under an
// upper directory that belongs to the container's root. Layers on disk keep
// their owners and are never written.
func buildRoot(p sandbox.Plan, s *scratch) error {
	userns, err := userNamespace(p.IDMap)
	if err != nil {
		return err
	}
	defer userns.Close()
	layers, err := mapLayers(p.Root.Layers, userns)
	defer closeFiles(layers) // not before the overlay has been made of them
	if err != nil {
		return err
	}
	base := s.dir
	if p.Root.Writable {
		base = p.Host.ContainerDir
	}
	// Through a mount of its own that is nowhere in the tree: the overlay
	// shows the names of these directories to the container. Like the layers'
	// it ends when its descriptor is closed.
	tree, err := unix.OpenTree(unix.AT_FDCWD, base, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	upper, work, err := upperDirs(tree, p.IDMap)
	defer closeFiles([]*os.File{upper, work})
	if err != nil {
		return err
	}
	return mountOverlay(layers, upper, work, s.path("root"))
}

// mapLayers clones each layer's directory as a detached mount of its own, in
// the same order.
func mapLayers(layers []sandbox.Layer, userns *os.File) ([]*os.File, error) {
	var mounts []*os.File
	for _, l := range layers {
		m, err := mapLayer(l.Path, userns)
		if err != nil {
			return mounts, fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func mapLayer(path string, userns *os.File) (*os.File, error) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, "launch.layer", err, "pull the image again")
	}
	defer dir.Close()
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	m := os.NewFile(uintptr(fd), path)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns.Fd()),
	})
	if err != nil {
		m.Close()
		// Not mapping would show the host's owners; changing the owners on
		// disk would change them for every container of the image.
		return nil, fault.Wrap(fault.Unavailable, "launch.idmap",
			fmt.Errorf("the file system of %s cannot be mounted with an id map: %w", path, err),
			"keep ward's state on ext4, xfs, btrfs, erofs or tmpfs, under Linux 5.19 or newer")
	}
	return m, nil
}

// upperDirs returns the directories the container writes to: kept with the
// container for a writable root, else on the private scratch, where only the
// mount points libcontainer makes end up.
func upperDirs(tree int, m sandbox.IDMap) (upper, work *os.File, err error) {
	if upper, err = ownedDir(tree, "upper", m); err != nil {
		return nil, nil, err
	}
	if work, err = ownedDir(tree, "work", m); err != nil {
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

func mountOverlay(layers []*os.File, upper, work *os.File, target string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fault.Wrap(fault.Unavailable, "launch.overlay", fmt.Errorf("fsopen overlay: %w", err), "use a kernel with overlayfs")
	}
	defer unix.Close(fd)
	for i := len(layers) - 1; i >= 0; i-- { // the kernel wants the topmost first
		if err := setDir(fd, "lowerdir+", layers[i]); err != nil {
			return fmt.Errorf("layer %s: %w", layers[i].Name(), err)
		}
	}
	if err := errors.Join(setDir(fd, "upperdir", upper), setDir(fd, "workdir", work)); err != nil {
		return err
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
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(m)
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("place overlay: %w", err)
	}
	return checkTrees(target)
}

// setDir names a directory by descriptor; before Linux 6.13 by the
// descriptor's name in /proc, which the kernel resolves to the same mount.
func setDir(fs int, key string, dir *os.File) error {
	err := unix.FsconfigSetFd(fs, key, int(dir.Fd()))
	if errors.Is(err, unix.EINVAL) {
		err = unix.FsconfigSetString(fs, key, "/proc/self/fd/"+strconv.Itoa(int(dir.Fd())))
	}
	if err != nil {
		return fmt.Errorf("overlay %s: %w", key, err)
	}
	return nil
}

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
