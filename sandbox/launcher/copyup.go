package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// Beside a volume's content: what an image gives to it, while it is put
// together and once it is whole. Containers see neither.
const (
	fillNew  = "_fill.new"
	fillDone = "_fill"
	fillLock = "fill.lock"
	fillWait = time.Minute
)

// copyUp gives an empty volume what the image has where it is mounted: files,
// owners and modes, also those of the directory itself.
//
// The copy is made beside the content and moved there entry by entry when it is
// whole. Whoever finds one that is whole finishes it, and one that is not is
// thrown away: a crash leaves no volume that looks filled and is not. Moving
// never replaces, so a container that has the volume already loses nothing.
func (t *tree) copyUp(volumes string, m sandbox.Mount) error {
	data, err := openVolume(volumes, m.Name, "_data")
	if err != nil {
		return err
	}
	defer data.Close()
	// The volume is ward's and no container can make names in it.
	volume := filepath.Join(volumes, m.Name)
	wait, cancel := context.WithTimeout(context.Background(), fillWait)
	defer cancel()
	lock, err := fsx.WaitLock(wait, filepath.Join(volume, fillLock))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	fill, err := t.prepareFill(volume, data, m.Target)
	if err != nil || fill == nil {
		return err
	}
	defer fill.Close()
	return errors.Join(pour(fill, data), os.RemoveAll(filepath.Join(volume, fillDone)))
}

// prepareFill returns the directory of what is to be moved into data, or nil
// if there is nothing to do.
func (t *tree) prepareFill(volume string, data *os.File, target string) (*os.File, error) {
	done := filepath.Join(volume, fillDone)
	if fill, err := openDir(unix.AT_FDCWD, done); err == nil || !errors.Is(err, unix.ENOENT) {
		return fill, err
	}
	fresh := filepath.Join(volume, fillNew)
	if err := os.RemoveAll(fresh); err != nil {
		return nil, err
	}
	if used, err := hasEntries(data); used || err != nil {
		return nil, err
	}
	at, err := t.lookup(target)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // the image has nothing there
	}
	if err != nil {
		return nil, err
	}
	defer at.Close()
	from, err := openDir(int(at.Fd()), ".")
	if errors.Is(err, unix.ENOTDIR) {
		return nil, nil // mounting on it will say so
	}
	if err != nil {
		return nil, err
	}
	defer from.Close()
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, err
	}
	fill, err := openDir(unix.AT_FDCWD, fresh)
	if err != nil {
		return nil, err
	}
	c := &copier{t: t, top: fill, links: map[[2]uint64]string{}}
	if err := c.directory(from, fill, "", 0); err != nil {
		// Left for the next start to throw away if this fails too.
		return nil, errors.Join(fmt.Errorf("copy %s of the image: %w", target, err), fill.Close(), os.RemoveAll(fresh))
	}
	// A power cut must not leave files without content under names that say
	// that all is there.
	if err := errors.Join(unix.Syncfs(int(fill.Fd())), os.Rename(fresh, done)); err != nil {
		return nil, errors.Join(err, fill.Close())
	}
	return fill, nil
}

// pour moves everything in fill to data, and gives data fill's owner and mode.
func pour(fill, data *os.File) error {
	names, err := fill.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Renameat2(int(fill.Fd()), name, int(data.Fd()), name, unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("move %q: %w", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(fill.Fd()), &st); err != nil {
		return err
	}
	// By the descriptor's name: data is open as a path alone.
	self := fdName(data)
	return errors.Join(os.Chown(self, int(st.Uid), int(st.Gid)), unix.Chmod(self, st.Mode&0o7777))
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func hasEntries(dir *os.File) (bool, error) {
	d, err := openDir(int(dir.Fd()), ".")
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return true, err
}

// maxDepth is more than a path of a layer can have.
const maxDepth = 2048

// copier copies a tree as the container sees it to where owners are those
// inside. It opens each name in its directory and follows no link.
type copier struct {
	t     *tree
	top   *os.File
	links map[[2]uint64]string // of files with several names, the first copy
}

// directory copies what is in from, and from's own owner, mode and times. at is
// to's path below top.
func (c *copier) directory(from, to *os.File, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(from, to, name, path.Join(at, name), depth); err != nil {
			var placed *fs.PathError
			if errors.As(err, &placed) {
				return err // said once is enough, however deep
			}
			return &fs.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return c.finish(from, to)
}

func (c *copier) entry(from, to *os.File, name, at string, depth int) error {
	src, dst := int(from.Fd()), int(to.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
		return c.pair(from, to, name, unix.O_RDONLY|unix.O_DIRECTORY, func(a, b *os.File) error { return c.directory(a, b, at, depth+1) })
	case unix.S_IFREG:
		return c.file(from, to, name, at, st)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, buf)
		if err == nil {
			err = unix.Symlinkat(string(buf[:n]), dst, name)
		}
		if err != nil {
			return err
		}
	case unix.S_IFIFO:
		if err := unix.Mkfifoat(dst, name, 0o600); err != nil {
			return err
		}
		// Not a link: this process has just made it where nobody else can.
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	default:
		return nil // no device can be used in a volume, and no socket without who listens
	}
	uid, gid, err := c.owner(st)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fchownat(dst, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW),
		unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

func (c *copier) file(from, to *os.File, name, at string, st unix.Stat_t) error {
	if st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return unix.Linkat(int(c.top.Fd()), first, int(to.Fd()), name, 0)
		}
		c.links[key] = at
	}
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	return c.pair(from, to, name, unix.O_RDWR|unix.O_NONBLOCK, func(a, b *os.File) error {
		if _, err := io.Copy(b, a); err != nil {
			return err
		}
		return c.finish(a, b)
	})
}

// pair opens name in both directories.
func (c *copier) pair(from, to *os.File, name string, flags int, fn func(a, b *os.File) error) error {
	src, err := unix.Openat(int(from.Fd()), name, flags&^unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	a := os.NewFile(uintptr(src), name)
	defer a.Close()
	dst, err := unix.Openat(int(to.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	b := os.NewFile(uintptr(dst), name)
	return errors.Join(fn(a, b), b.Close())
}

// finish gives to the owner, mode, times and the user's attributes of from.
// File capabilities are left out: volumes are mounted nosuid, where they mean
// nothing.
func (c *copier) finish(from, to *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	uid, gid, err := c.owner(st)
	if err != nil {
		return err
	}
	// The mode comes after the owner, which takes set-user-id off.
	return errors.Join(copyAttributes(int(from.Fd()), int(to.Fd())), to.Chown(uid, gid), unix.Fchmod(int(to.Fd()), st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, fdName(to), []unix.Timespec{st.Atim, st.Mtim}, 0))
}

func (c *copier) owner(st unix.Stat_t) (uid, gid int, err error) {
	if uid, err = c.t.onDisk(st.Uid); err == nil {
		gid, err = c.t.onDisk(st.Gid)
	}
	return uid, gid, err
}

// maxAttributes is the kernel's own bound on names and on one value.
const maxAttributes = 64 << 10

func copyAttributes(from, to int) error {
	n, err := unix.Flistxattr(from, nil)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	names := make([]byte, maxAttributes)
	if n, err = unix.Flistxattr(from, names); err != nil {
		return err
	}
	value := make([]byte, maxAttributes)
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		n, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("attribute %q: %w", name, err)
		}
	}
	return nil
}
