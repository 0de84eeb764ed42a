package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// cgroupRoot is where the host has its cgroup hierarchies.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupTree puts together on the scratch what the container sees in
// /sys/fs/cgroup on a host with version 1 hierarchies: its own cgroup of each,
// read-only. With version 2 alone there is one, mounted from inside.
func cgroupTree(p sandbox.Plan, s *scratch) error {
	if cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, at := filepath.Join(cgroupRoot, e.Name()), s.path("cgroup", e.Name())
		if e.Type()&os.ModeSymlink != 0 { // cpu, for cpu,cpuacct
			link, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(link, at)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := cgroupBind(filepath.Join(from, cgroupPath(p)), from, at); err != nil {
			return fmt.Errorf("cgroup %s: %w", e.Name(), err)
		}
	}
	return nil
}

// cgroupBind makes the container's cgroup dir in the hierarchy at root, if
// that is a version 1 hierarchy, and binds it at at.
func cgroupBind(dir, root, at string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return err
	}
	if st.Type != unix.CGROUP_SUPER_MAGIC {
		return nil // the unified one of a hybrid host, or no hierarchy at all
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(fd)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: noexec | unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
