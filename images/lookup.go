package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// File returns the content of the regular file at path in img's merged layers,
// as the container would see it, unpacking them if needed. Symbolic links are
// refused anywhere on the way, as is whatever is not a regular file of at most
// max bytes; a file that is not there is fault.NotFound.
func (s *Store) File(ctx context.Context, img Image, name string, max int64) ([]byte, error) {
	dirs, err := s.Unpack(ctx, img)
	if err != nil {
		return nil, err
	}
	bad := func(why string) error {
		return fault.New(fault.Invalid, "image.file", fmt.Sprintf("%.200s in image %s: %s", name, img.Reference, why), "use an image with a plain file there")
	}
	found, err := merged(dirs, name)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "image.file", fmt.Sprintf("image %s has no %.200s", img.Reference, name), "use an image that has it")
	}
	defer found.close()
	if found.mode != unix.S_IFREG || !found.last {
		return nil, bad("not a regular file, or beneath something that is not a directory")
	}
	// Known to be regular, so this cannot block on a FIFO.
	f, err := openAt(int(found.dir.Fd()), found.base, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("%s in image %s: %w", name, img.Reference, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > max {
		return nil, bad(fmt.Sprintf("not a regular file of at most %d bytes", max))
	}
	return readBounded(io.Reader(f), max, name)
}

// CheckRoot refuses an image in whose merged root /dev, /proc, /sys or /etc is
// there and not a directory, with rule "image.root-symlink": runtimes that
// mounted or wrote there followed the image's link to the host
// (CVE-2019-16884, CVE-2023-27561, CVE-2026-41579).
func (s *Store) CheckRoot(ctx context.Context, img Image) error {
	dirs, err := s.Unpack(ctx, img)
	if err != nil {
		return err
	}
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		found, err := merged(dirs, name)
		if err != nil {
			return err
		}
		if found == nil {
			continue
		}
		found.close()
		if found.mode != unix.S_IFDIR {
			what := "not a directory"
			if found.mode == unix.S_IFLNK {
				what = "a symbolic link"
			}
			return fault.New(fault.Invalid, "image.root-symlink", fmt.Sprintf("/%s in image %s is %s", name, img.Reference, what), "use an image in which /dev, /proc, /sys and /etc are directories")
		}
	}
	return nil
}

// place is where a name was found: base in directory dir of one layer.
type place struct {
	dir  *os.File
	base string
	mode uint32 // file type bits
	last bool   // base is the last component of the name
}

func (p *place) close() {
	if p.dir != nil {
		p.dir.Close()
	}
}

// merged walks name through the layers (lowest first) as overlayfs merges them:
// at each level the highest layer that has the name decides, directories of
// several layers merge, a whiteout or an opaque directory ends the search. It
// returns nil if the name is not there, and stops at the first component that
// is not a directory.
func merged(layers []string, name string) (*place, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return &place{mode: unix.S_IFDIR, last: true}, nil
	}
	var level []*os.File // highest first
	defer func() { closeAll(level) }()
	for i := len(layers) - 1; i >= 0; i-- {
		f, err := os.OpenFile(layers[i], os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		level = append(level, f)
	}
	parts := strings.Split(name, "/")
	for i, c := range parts {
		next, found, err := step(level, c)
		if err != nil {
			return nil, err
		}
		if found != nil && (found.mode != unix.S_IFDIR || i == len(parts)-1) {
			closeAll(next)
			found.last = i == len(parts)-1
			return found, nil
		}
		if found != nil {
			found.close()
		}
		closeAll(level)
		level = next
	}
	return nil, nil
}

// step looks c up in one level and returns the directories it merges to.
func step(level []*os.File, c string) (next []*os.File, found *place, err error) {
	fail := func(err error) ([]*os.File, *place, error) {
		closeAll(next)
		if found != nil {
			found.close()
		}
		return nil, nil, err
	}
	for _, d := range level {
		mode, err := kindAt(int(d.Fd()), c)
		if err != nil {
			return fail(err)
		}
		if mode == 0 {
			continue
		}
		if mode == unix.S_IFCHR { // the only device in a layer: a whiteout
			break
		}
		if found == nil {
			fd, err := unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return fail(err)
			}
			found = &place{dir: os.NewFile(uintptr(fd), d.Name()), base: c, mode: mode}
		}
		if mode != unix.S_IFDIR {
			break // hides what is lower, or is hidden by a directory above
		}
		sub, err := openAt(int(d.Fd()), c, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fail(err)
		}
		next = append(next, sub)
		if isOpaque(sub) {
			break
		}
	}
	return next, found, nil
}

// isOpaque reads both attributes: which one counts depends on the mount, and
// no layer of ours ever carries the other.
func isOpaque(d *os.File) bool {
	var b [4]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(d.Fd()), name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
