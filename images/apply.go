package images

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// applier unpacks one layer's archive into an empty directory.
//
// No path is ever resolved as a string. Parents are opened with openat2 beneath
// the layer's root, refusing symbolic links altogether, so an entry beneath a
// link of the same archive is refused by the kernel; the last component is only
// handed to calls that do not follow it. The layer stands alone: nothing of
// the layers below is there to be followed or overwritten.
type applier struct {
	root *os.File
	asis bool // an ordinary user: no chown, no file capabilities
	// opaqueName is the attribute that makes a directory opaque to overlayfs.
	opaqueName string

	maxBytes   int64
	maxEntries int
	bytes      int64
	entries    int

	// The directory the last entry lay in: archives go directory by directory.
	cached    *os.File
	cachedDir string

	// Mode, owner and times of directories are set last: contents must be able
	// to go in first, and change the times.
	dirs     map[string]*entry
	dirBytes int
	buf      []byte
}

// newApplier makes dir and returns an applier for it.
func newApplier(dir string, maxBytes int64, maxEntries int) (*applier, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	a := &applier{
		root: root, asis: os.Geteuid() != 0, opaqueName: "trusted.overlay.opaque",
		maxBytes: maxBytes, maxEntries: maxEntries,
		dirs: map[string]*entry{}, buf: make([]byte, 128<<10),
	}
	if a.asis {
		a.opaqueName = "user.overlay.opaque"
	}
	return a, a.remember(implied(""))
}

func (a *applier) close() {
	a.forget()
	a.root.Close()
}

// forget closes the cached directory; it may have gone.
func (a *applier) forget() {
	if a.cached != nil {
		a.cached.Close()
		a.cached = nil
	}
}

// apply unpacks the whole archive in r.
func (a *applier) apply(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return a.finishDirs()
		}
		if err != nil {
			return streamError(err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if a.entries++; a.entries > a.maxEntries {
			return fault.New(fault.Invalid, "image.bounds", fmt.Sprintf("layer has more than %d entries", a.maxEntries), "use a smaller image, or raise the store's bound on layers")
		}
		e, err := checkEntry(hdr)
		if err != nil {
			return err
		}
		// The size in the header, not what arrives: a sparse file of terabytes
		// is refused before its first zero is written.
		if hdr.Size < 0 || hdr.Size > a.maxBytes-a.bytes {
			return tooLarge()
		}
		a.bytes += hdr.Size
		if err := a.entry(e, tr); err != nil {
			return streamError(fmt.Errorf("layer entry %.200q: %w", hdr.Name, err))
		}
	}
}

func (a *applier) entry(e *entry, content io.Reader) error {
	if e.base == "" && !e.opaque {
		return a.remember(e)
	}
	parent, err := a.parent(e)
	if err != nil {
		return err
	}
	switch {
	case e.opaque:
		return a.makeOpaque(parent)
	case e.hide:
		return a.hide(parent, e)
	}
	fd := int(parent.Fd())
	had, err := kindAt(fd, e.base)
	if err != nil {
		return err
	}
	if e.hdr.Typeflag == tar.TypeDir {
		return a.directory(fd, e, had)
	}
	link := -1
	if e.hdr.Typeflag == tar.TypeLink {
		// Opened before the old entry goes, which may be the target itself.
		if link, err = a.linkTarget(e); err != nil {
			return err
		}
		defer unix.Close(link)
	}
	if err := a.clear(fd, e, had); err != nil {
		return err
	}
	switch e.hdr.Typeflag {
	case tar.TypeLink:
		return a.hardLink(link, fd, e)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(e.hdr.Linkname, fd, e.base); err != nil {
			return err
		}
		return a.metaLink(fd, e)
	case tar.TypeFifo:
		if err := unix.Mknodat(fd, e.base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		if err := a.metaLink(fd, e); err != nil {
			return err
		}
		return unix.Fchmodat(fd, e.base, permOf(e.hdr), 0) // a FIFO made just now: not a link
	default:
		return a.file(fd, e, content)
	}
}

// kindAt returns the file type bits of name, 0 if there is nothing, or
// S_IFCHR for a whiteout, which is the only device there can be.
func kindAt(dirfd int, name string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return 0, nil
	}
	return st.Mode & unix.S_IFMT, err
}

// clear removes what an earlier entry of the archive left at e's place.
func (a *applier) clear(fd int, e *entry, had uint32) error {
	switch had {
	case 0:
		return nil
	case unix.S_IFDIR:
		root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", a.root.Fd()))
		if err != nil {
			return err
		}
		defer root.Close()
		for d := range a.dirs {
			if d == e.path() || strings.HasPrefix(d, e.path()+"/") {
				delete(a.dirs, d)
			}
		}
		return root.RemoveAll(e.path())
	default:
		return unix.Unlinkat(fd, e.base, 0)
	}
}

// how opens parents: nothing but real directories inside the layer.
var how = unix.OpenHow{
	Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
	Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
}

func (a *applier) openDir(dir string) (*os.File, error) {
	if dir == "" {
		dir = "."
	}
	for {
		h := how
		fd, err := unix.Openat2(int(a.root.Fd()), dir, &h)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), dir), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return nil, err
		}
	}
}

// parent returns the directory e lies in, made if it is not there.
func (a *applier) parent(e *entry) (*os.File, error) {
	if a.cached != nil && a.cachedDir == e.dir {
		return a.cached, nil
	}
	f, err := a.openDir(e.dir)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		if err = a.makeParents(e); err == nil {
			f, err = a.openDir(e.dir)
		}
	}
	switch err {
	case nil:
	case unix.ELOOP:
		return nil, hostile(e.hdr, "lies beneath a symbolic link")
	case unix.ENOTDIR:
		return nil, hostile(e.hdr, "lies beneath something that is not a directory")
	default:
		return nil, err
	}
	a.forget()
	a.cached, a.cachedDir = f, e.dir
	return f, nil
}

// makeParents makes the missing directories above e, root's and 0755. A
// whiteout on the way becomes a directory that hides what is below: the layer
// removed the old one and made a new one.
func (a *applier) makeParents(e *entry) error {
	dir := ""
	for c := range strings.SplitSeq(e.dir, "/") {
		up, err := a.openDir(dir)
		if err != nil {
			return err
		}
		had, err := kindAt(int(up.Fd()), c)
		dir = path.Join(dir, c)
		if err == nil && (had == 0 || had == unix.S_IFCHR) {
			if err = a.mkdir(int(up.Fd()), c, had); err == nil {
				err = a.remember(implied(dir))
			}
		}
		up.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes a directory nobody else may enter, in the place of a whiteout if
// had says there is one; finishDirs gives it its mode.
func (a *applier) mkdir(fd int, name string, had uint32) error {
	if had == unix.S_IFCHR {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(fd, name, 0o700); err != nil {
		return err
	}
	d, err := openAt(fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	if had == unix.S_IFCHR {
		return a.makeOpaque(d)
	}
	return nil
}

func openAt(dirfd int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// directory makes a directory or takes the one that is there.
func (a *applier) directory(fd int, e *entry, had uint32) error {
	if had != unix.S_IFDIR {
		if had != 0 && had != unix.S_IFCHR {
			if err := unix.Unlinkat(fd, e.base, 0); err != nil {
				return err
			}
			had = 0
		}
		if err := a.mkdir(fd, e.base, had); err != nil {
			return err
		}
	}
	return a.remember(e)
}

func (a *applier) file(fd int, e *entry, content io.Reader) error {
	// O_EXCL: never through a link, never onto another file.
	f, err := openAt(fd, e.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	// The struct hides WriteTo and ReadFrom, which would bypass the buffer.
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{content}, a.buf)
	if err == nil {
		err = a.meta(f, e)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return setTimes(fd, e.base, e)
}

// linkTarget opens the target of a hard link, which must be a file or symbolic
// link that an earlier entry of the same archive made.
func (a *applier) linkTarget(e *entry) (int, error) {
	dir, base := path.Split(e.link)
	if strings.HasPrefix(base, whiteout) || e.link == e.path() {
		return -1, hostile(e.hdr, "hard link to itself or to a whiteout")
	}
	up, err := a.openDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return -1, hostile(e.hdr, fmt.Sprintf("hard link to %.200q, which the layer does not hold", e.link))
	}
	defer up.Close()
	fd, err := unix.Openat(int(up.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, hostile(e.hdr, fmt.Sprintf("hard link to %.200q, which the layer does not hold", e.link))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFLNK && t != unix.S_IFIFO {
		unix.Close(fd)
		return -1, hostile(e.hdr, fmt.Sprintf("hard link to %.200q, which is not a file", e.link))
	}
	return fd, nil
}

func (a *applier) hardLink(target, fd int, e *entry) error {
	// AT_EMPTY_PATH needs a capability; /proc/self/fd names the same inode.
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", target), fd, e.base, unix.AT_SYMLINK_FOLLOW)
	if err == unix.ENOENT {
		return hostile(e.hdr, "hard link to something it replaces")
	}
	return err
}
