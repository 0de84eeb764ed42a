package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// maxDirBytes bounds the memory that remembered directory names take.
const maxDirBytes = 64 << 20

// implied is a directory the archive has no entry for: root's, 0755, as old as
// can be, so that the same archive always makes the same tree.
func implied(dir string) *entry {
	return &entry{dir: dir, hdr: &tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}}
}

// remember keeps e, whose directory is there, for finishDirs.
func (a *applier) remember(e *entry) error {
	if _, ok := a.dirs[e.path()]; !ok {
		a.dirBytes += len(e.path()) + 256
	}
	if a.dirBytes > maxDirBytes {
		return fault.New(fault.Invalid, "image.bounds", "layer has too many directories with long names", "use a smaller image")
	}
	a.dirs[e.path()] = e
	return nil
}

func setTimes(dirfd int, name string, e *entry) error {
	t := timeOf(e.hdr)
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// meta sets owner, mode and attributes of an open file or directory. The order matters: chown clears set-id bits and file capabilities.
func (a *applier) meta(f *os.File, e *entry) error {
	fd := int(f.Fd())
	if !a.asis {
		if err := unix.Fchown(fd, e.hdr.Uid, e.hdr.Gid); err != nil {
			return fmt.Errorf("chown to %d:%d: %w", e.hdr.Uid, e.hdr.Gid, err)
		}
	}
	if err := unix.Fchmod(fd, permOf(e.hdr)); err != nil {
		return err
	}
	for k, v := range e.xattr {
		if a.asis && strings.HasPrefix(k, "security.") {
			continue
		}
		if err := unix.Fsetxattr(fd, k, []byte(v), 0); err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	return nil
}

// metaLink sets owner and times of something that cannot be opened.
func (a *applier) metaLink(fd int, e *entry) error {
	if !a.asis {
		if err := unix.Fchownat(fd, e.base, e.hdr.Uid, e.hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown to %d:%d: %w", e.hdr.Uid, e.hdr.Gid, err)
		}
	}
	return setTimes(fd, e.base, e)
}

// finishDirs gives directories their mode, owner and times, deepest first, so
// that one which its owner may not enter does not bar the way.
func (a *applier) finishDirs() error {
	a.forget()
	names := make([]string, 0, len(a.dirs))
	for d := range a.dirs {
		names = append(names, d)
	}
	slices.Sort(names)
	for _, d := range slices.Backward(names) {
		e := a.dirs[d]
		f, err := a.openDir(d)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later entry put something else there
		}
		if err != nil {
			return err
		}
		if err = a.meta(f, e); err == nil {
			// By descriptor: the mode just set may bar the way to a name in it.
			err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []unix.Timespec{timeOf(e.hdr), timeOf(e.hdr)}, 0)
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("layer entry %.200q: %w", e.hdr.Name, err)
		}
	}
	return nil
}
