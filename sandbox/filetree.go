package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// maxDepth bounds how deep directories may be in each other.
const maxDepth = 1024

// FileTree puts entries below a directory and never anywhere else: it goes by
// descriptors, follows no symbolic link, and writes into no file that was there.
type FileTree struct {
	// Dir is the directory, Name the name in it of what is copied; "." is the
	// directory itself.
	Dir  *os.File
	Name string
	// KeepIDs gives entries the ids they say; else all are UID's and GID's.
	KeepIDs  bool
	UID, GID uint32
	// KeepSetID keeps set-user-id and set-group-id bits.
	KeepSetID bool
	// Unkept counts extended attributes that the file system there cannot keep.
	Unkept int64
	// times are those of directories, set when nothing changes them any more.
	times []dirTime
}

type dirTime struct {
	name string
	mod  int64
	mode uint32
}

// Put makes one entry; r is its content.
func (t *FileTree) Put(e FileEntry, r io.Reader) error {
	if err := e.check(); err != nil {
		return err
	}
	name := path.Join(t.Name, e.Name)
	if name == "." {
		if e.Type != FileDir {
			return fault.New(fault.Invalid, "cp.type", "a file cannot take the place of a directory", "")
		}
		return nil // the directory that is copied into stays as it is
	}
	dir, err := t.open(path.Dir(name), e.Name != ".")
	if err != nil {
		return placed(name, err)
	}
	defer unix.Close(dir)
	base := path.Base(name)
	switch e.Type {
	case FileDir:
		err = t.putDir(dir, base, name, e)
	case FileRegular:
		err = t.putFile(dir, base, e, r)
	case FileSymlink:
		if err = clear(dir, base); err == nil {
			err = unix.Symlinkat(e.Link, dir, base)
		}
		if err == nil {
			err = t.own(dir, base, e)
		}
	case FileLink:
		err = t.putLink(dir, base, e)
	}
	return placed(name, err)
}

func placed(name string, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.Invalid, "cp.write", fmt.Errorf("write %.255q: %w", name, err), "")
}

const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// open returns a directory below Dir. One that is missing is made if its
// maker simply did not mention it.
func (t *FileTree) open(name string, make bool) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: noLinks}
	fd, err := unix.Openat2(int(t.Dir.Fd()), name, how)
	if !errors.Is(err, unix.ENOENT) || !make {
		return fd, err
	}
	above, err := t.open(path.Dir(name), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(name), 0o755); err != nil {
		return -1, err
	}
	if err := t.own(above, path.Base(name), FileEntry{UID: t.UID, GID: t.GID}); err != nil {
		return -1, err
	}
	return unix.Openat2(int(t.Dir.Fd()), name, how)
}

// clear removes what is at name, unless that is a directory.
func clear(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR):
		return errors.New("a directory is in its place")
	}
	return err
}

func (t *FileTree) own(dir int, name string, e FileEntry) error {
	uid, gid := t.UID, t.GID
	if t.KeepIDs {
		uid, gid = e.UID, e.GID
	}
	return unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
}

func (t *FileTree) mode(e FileEntry) uint32 {
	if t.KeepSetID {
		return e.Mode & 0o7777
	}
	return e.Mode & 0o1777
}

func (t *FileTree) putDir(dir int, base, name string, e FileEntry) error {
	err := unix.Mkdirat(dir, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return errors.New("something that is no directory is in its place")
		}
		return nil // copied into, as it is
	}
	if err != nil {
		return err
	}
	if len(e.Attrs) > 0 {
		if err := t.putDirAttrs(dir, base, e); err != nil {
			return err
		}
	}
	if err := t.own(dir, base, e); err != nil {
		return err
	}
	t.times = append(t.times, dirTime{name, e.ModTime, t.mode(e)})
	return nil
}

// putDirAttrs gives a directory its attributes at once: kept until it is
// finished they would be kept in memory, of every directory there is.
func (t *FileTree) putDirAttrs(dir int, base string, e FileEntry) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return t.setAttrs(fd, e.Attrs)
}

func (t *FileTree) putFile(dir int, base string, e FileEntry, r io.Reader) error {
	if err := clear(dir, base); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := fillSparse(f, r, e.Size); err != nil {
		return err
	}
	if err := t.setAttrs(fd, e.Attrs); err != nil {
		return err
	}
	uid, gid := t.UID, t.GID
	if t.KeepIDs {
		uid, gid = e.UID, e.GID
	}
	if err := f.Chown(int(uid), int(gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, t.mode(e)); err != nil { // after chown, which clears bits
		return err
	}
	return setTime(dir, base, e.ModTime)
}

// fillSparse copies size bytes and leaves out what is zero: a file of holes
// does not become one that fills the disk.
func fillSparse(f *os.File, r io.Reader, size int64) error {
	buf := make([]byte, 64<<10)
	for at := int64(0); at < size; {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err != nil {
			return err
		}
		if !zero(buf[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return f.Truncate(size)
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (t *FileTree) putLink(dir int, base string, e FileEntry) error {
	to := path.Join(t.Name, e.Link)
	from, err := t.open(path.Dir(to), false)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := clear(dir, base); err != nil {
		return err
	}
	return unix.Linkat(from, path.Base(to), dir, base, 0)
}

func setTime(dir int, name string, mod int64) error {
	ts := unix.NsecToTimespec(mod)
	err := unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) { // a time that the file system does not have
		now := unix.NsecToTimespec(time.Now().UnixNano())
		err = unix.UtimesNanoAt(dir, name, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// Finish gives the directories that were made their modes and times, deepest
// first: one that may not be written could not have been filled.
func (t *FileTree) Finish() error {
	for i := len(t.times) - 1; i >= 0; i-- {
		d := t.times[i]
		fd, err := unix.Openat2(int(t.Dir.Fd()), d.name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: noLinks})
		if err != nil {
			return placed(d.name, err)
		}
		err = unix.Fchmod(fd, d.mode)
		unix.Close(fd)
		if err != nil {
			return placed(d.name, err)
		}
		dir, err := t.open(path.Dir(d.name), false)
		if err != nil {
			return placed(d.name, err)
		}
		err = setTime(dir, path.Base(d.name), d.mod)
		unix.Close(dir)
		if err != nil {
			return placed(d.name, err)
		}
	}
	return nil
}

// CopyTree puts all entries of r into t.
func CopyTree(t *FileTree, r *FileReader) error {
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t.Finish()
		}
		if err == nil {
			err = t.Put(e, r)
		}
		if err != nil {
			return err
		}
	}
}
