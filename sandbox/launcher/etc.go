package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// etcNames are the files every container has in /etc, read-only.
var etcNames = []string{"hosts", "hostname", "resolv.conf"}

// maxResolv bounds the copy of the host's resolver configuration.
const maxResolv = 64 << 10

// writeEtc makes those files on the scratch.
func writeEtc(p sandbox.Plan, s *scratch) error {
	resolv := []byte("# this container has no network\n")
	if p.Network == sandbox.NetworkHost {
		var err error
		if resolv, err = hostResolv(); err != nil {
			return err
		}
	}
	for name, content := range map[string][]byte{
		"hosts":       fmt.Appendf(nil, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", p.Hostname),
		"hostname":    []byte(p.Hostname + "\n"),
		"resolv.conf": resolv,
	} {
		f, err := os.OpenFile(s.path("etc", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		if err == nil {
			err = f.Chmod(0o644)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func hostResolv() ([]byte, error) {
	f, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResolv))
}

// placeBinds puts the source of each bind on the scratch. It is opened without
// following any symbolic link: the plan names the resolved path, and a link
// that has appeared since was not what policy allowed.
func placeBinds(p sandbox.Plan, s *scratch) error {
	for i, m := range p.Mounts {
		if m.Type != sandbox.MountBind {
			continue
		}
		if err := placeBind(m.Source, s.path("binds", fmt.Sprint(i))); err != nil {
			return fmt.Errorf("bind %s: %w", m.Source, err)
		}
	}
	return nil
}

func placeBind(source, at string) error {
	src, err := unix.Openat2(unix.AT_FDCWD, source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o711)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(src, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
