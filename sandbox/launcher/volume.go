package launcher

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// volume mounts a volume's content through the container's id map, so that
// containers with different ranges of ids see the same owners.
func (t *tree) volume(volumes string, m sandbox.Mount, attr uint64) error {
	data, err := openVolume(volumes, m.Name, "_data")
	if err != nil {
		return err
	}
	defer data.Close()
	what, isDir, err := below(data, m)
	if err != nil {
		return err
	}
	defer what.Close()
	mount, err := mapTree(what, attr, t.userns)
	if err != nil {
		return err
	}
	defer mount.Close()
	return t.place(mount, m.Target, isDir)
}

// openVolume opens a directory of a volume. Below the directory of volumes no
// link is followed: ward makes none there.
func openVolume(volumes, name, sub string) (*os.File, error) {
	dir, err := os.OpenFile(volumes, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer dir.Close()
		var fd int
		fd, err = openat2(int(dir.Fd()), filepath.Join(name, sub), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err == nil {
			return os.NewFile(uintptr(fd), "volume "+name), nil
		}
	}
	return nil, fault.Wrap(fault.NotFound, "launch.volume", fmt.Errorf("volume %s: %w", name, err), "see whether it is there: ward volume inspect "+name)
}

// below opens what of dir the mount shows. What a volume holds was written by
// containers, also while this looks: the kernel sees to it that no link leads
// out (the class of CVE-2021-30465).
func below(dir *os.File, m sandbox.Mount) (*os.File, bool, error) {
	name := m.Subpath
	if name == "" {
		name = "."
	}
	fd, err := openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, false, fault.Wrap(fault.NotFound, "launch.subpath", fmt.Errorf("%q in %s %s: %w", m.Subpath, m.Type, m.Name, err),
			"name a directory or file that is there and not reached through a link out of it")
	}
	f := os.NewFile(uintptr(fd), dir.Name())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, false, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
		return f, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	}
	f.Close()
	return nil, false, fault.New(fault.Invalid, "launch.subpath", fmt.Sprintf("%q in %s %s is no directory and no ordinary file", m.Subpath, m.Type, m.Name), "")
}

// makeImage puts another image's files together at the directory at of the
// scratch. There is no upper directory: nothing can be written there.
func (t *tree) makeImage(m sandbox.Mount, at string) error {
	for _, name := range []string{"", "layers", "none", "root"} {
		if err := os.Mkdir(filepath.Join(at, name), 0o711); err != nil {
			return err
		}
	}
	layers, err := mapLayers(m.Layers, t.userns, filepath.Join(at, "layers"))
	defer func() { closeFiles(layers) }()
	if err != nil {
		return err
	}
	// Without an upper directory overlayfs wants two lower ones.
	none, err := os.OpenFile(filepath.Join(at, "none"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	layers = append([]*os.File{none}, layers...)
	return mountOverlay(layers, nil, nil, filepath.Join(at, "root"), unix.MOUNT_ATTR_RDONLY)
}

// image mounts what was put together at the directory at of the scratch.
func (t *tree) image(m sandbox.Mount, attr uint64, at string) error {
	root, err := os.OpenFile(filepath.Join(at, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	what, isDir, err := below(root, m)
	if err != nil {
		return err
	}
	defer what.Close()
	fd, err := unix.OpenTree(int(what.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("image %s: open_tree: %w", m.Name, err)
	}
	mount := os.NewFile(uintptr(fd), m.Name)
	defer mount.Close()
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr | unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("image %s: mount_setattr: %w", m.Name, err)
	}
	return t.place(mount, m.Target, isDir)
}

// onDisk translates an owner seen through the container's id map into what is
// in a volume for it.
func (t *tree) onDisk(id uint32) (int, error) {
	if id < t.ids.Base || id-t.ids.Base >= t.ids.Size {
		return 0, fmt.Errorf("owner %d is none of the container's", id)
	}
	return int(id - t.ids.Base), nil
}
