package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// SendFiles writes what is at name in dir, and everything below it, as entries
// of which the first is ".". It follows no symbolic link. What is no file, no
// directory and no link is left out; left counts it, and files that changed
// while they were read.
func SendFiles(w *FileWriter, dir *os.File, name string) (left int64, err error) {
	s := &sender{w: w}
	err = s.send(int(dir.Fd()), name, ".", 0)
	return s.left, err
}

type sender struct {
	w    *FileWriter
	left int64
}

func (s *sender) send(dir int, name, as string, depth int) error {
	if depth > maxDepth {
		return fault.New(fault.Invalid, "cp.depth", fmt.Sprintf("directories are more than %d deep at %.255q", maxDepth, as), "copy parts of it")
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) && depth > 0 {
			return nil // removed since its directory was read
		}
		return taken(as, err)
	}
	e := FileEntry{Name: as, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, ModTime: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return s.sendDir(dir, name, as, depth, e)
	case unix.S_IFREG:
		return s.sendFile(dir, name, e)
	case unix.S_IFLNK:
		buf := make([]byte, maxName+1)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return taken(as, err)
		}
		e.Type, e.Link = FileSymlink, string(buf[:n])
		return s.w.Next(e)
	}
	if depth == 0 {
		return fault.New(fault.Invalid, "cp.type", "it is no file, no directory and no symbolic link", "")
	}
	s.left++
	return nil
}

func taken(name string, err error) error {
	return fault.Wrap(fault.Invalid, "cp.read", fmt.Errorf("read %.255q: %w", name, err), "")
}

func (s *sender) sendFile(dir int, name string, e FileEntry) error {
	// Without blocking: it may have become a pipe since it was looked at.
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return taken(e.Name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return s.sendOpen(f, e.Name)
}

// SendFile writes an open file as the entry ".".
func SendFile(w *FileWriter, f *os.File) (left int64, err error) {
	s := &sender{w: w}
	err = s.sendOpen(f, ".")
	if err == nil && w.Entries == 0 {
		err = fault.New(fault.Invalid, "cp.type", "it is no file, no directory and no symbolic link", "")
	}
	return s.left, err
}

func (s *sender) sendOpen(f *os.File, as string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return taken(as, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		s.left++
		return nil
	}
	attrs, err := fileAttrs(int(f.Fd()))
	if err != nil {
		return taken(as, err)
	}
	if err := s.w.Next(FileEntry{Name: as, Type: FileRegular, Attrs: attrs, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Size: st.Size, ModTime: st.Mtim.Nano()}); err != nil {
		return err
	}
	n, err := io.Copy(onlyWriter{s.w}, io.LimitReader(f, st.Size))
	if err != nil {
		return taken(as, err)
	}
	if n == st.Size {
		return nil
	}
	s.left++ // it shrank: its header has gone out
	_, err = io.CopyN(onlyWriter{s.w}, zeros{}, st.Size-n)
	return err
}

type onlyWriter struct{ io.Writer }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
	}
	return len(p), nil
}

func (s *sender) sendDir(dir int, name, as string, depth int, e FileEntry) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return taken(as, err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	e.Type = FileDir
	if e.Attrs, err = fileAttrs(fd); err != nil {
		return taken(as, err)
	}
	if err := s.w.Next(e); err != nil {
		return err
	}
	for {
		names, err := d.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return taken(as, err)
		}
		for _, n := range names {
			if err := s.send(fd, n, path.Join(as, n), depth+1); err != nil {
				return err
			}
		}
	}
}
