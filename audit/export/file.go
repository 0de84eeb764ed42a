package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
)

// stdout is a pipe's beginning: what it took counts as acknowledged.
type stdout struct{}

func openStdout(json.RawMessage) (sink, error) { return stdout{}, nil }

func (stdout) send(_ context.Context, ms []message) error {
	if _, err := os.Stdout.Write(lines(ms)); err != nil {
		return refused("standard output: %w", err) // part of it may be out
	}
	return nil
}

func (stdout) state() json.RawMessage { return nil }
func (stdout) close() error           { return nil }

// lines is one event a line.
func lines(ms []message) []byte {
	var b bytes.Buffer
	for _, m := range ms {
		b.Write(m.body)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// file appends to one file, and puts it aside when it is large.
type file struct {
	path   string
	rotate int64
	f      *os.File
	at     fileState
}

// fileState is which file it is, and how much of it was acknowledged: what is
// behind that was left by a crash, and is written again.
type fileState struct {
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Size int64  `json:"size"`
}

func openFile(path string, rotate int64, state json.RawMessage) (sink, error) {
	s := &file{path: path, rotate: rotate}
	if err := s.reopen(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var was fileState
	if len(state) > 0 && json.Unmarshal(state, &was) != nil {
		return nil, errors.Join(fmt.Errorf("%w: state of %s", ErrCursor, path), s.f.Close())
	}
	if was.Dev == s.at.Dev && was.Ino == s.at.Ino && was.Size < s.at.Size {
		if err := s.f.Truncate(was.Size); err != nil {
			return nil, errors.Join(err, s.f.Close())
		}
		s.at.Size = was.Size
	}
	if err := s.endsWhole(); err != nil {
		return nil, errors.Join(err, s.f.Close())
	}
	return s, nil
}

// endsWhole: what others wrote there before must not become part of a line of
// ours.
func (s *file) endsWhole() error {
	if s.at.Size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := s.f.ReadAt(last[:], s.at.Size-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		return fmt.Errorf("%w: %s ends inside a line that is not this export's", ErrConfig, s.path)
	}
	return nil
}

// reopen opens what is at the path now, and makes it if there is nothing.
func (s *file) reopen() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", s.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if s.f != nil {
		s.f.Close() // flushed at each batch
	}
	s.f, s.at = f, stateOf(st)
	return fsx.SyncDir(filepath.Dir(s.path))
}

func stateOf(st os.FileInfo) fileState {
	sys := st.Sys().(*syscall.Stat_t)
	return fileState{Dev: sys.Dev, Ino: sys.Ino, Size: st.Size()}
}

func (s *file) send(_ context.Context, ms []message) error {
	st, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (stateOf(st).Ino != s.at.Ino || stateOf(st).Dev != s.at.Dev) {
		err = s.reopen() // somebody put it aside
	} else if err == nil && st.Size() > s.at.Size {
		err = s.f.Truncate(s.at.Size) // a write that failed half way
	}
	if err != nil {
		return err
	}
	b := lines(ms)
	if s.rotate > 0 && s.at.Size > 0 && s.at.Size+int64(len(b)) > s.rotate {
		if err := s.turn(ms[0].Index); err != nil {
			return err
		}
	}
	_, err = s.f.Write(b)
	if err == nil {
		err = unix.Fdatasync(int(s.f.Fd()))
	}
	if err != nil {
		return err
	}
	s.at.Size += int64(len(b))
	return nil
}

// turn puts the file aside under the index that the next one begins with. It
// takes nobody's place: what is put aside is never written again.
func (s *file) turn(next int64) error {
	to := fmt.Sprintf("%s.%012d", s.path, next)
	err := unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: s.path, New: to, Err: err}
	}
	return s.reopen()
}

func (s *file) state() json.RawMessage {
	b, err := json.Marshal(s.at)
	if err != nil {
		return nil // three numbers always marshal
	}
	return b
}

func (s *file) close() error { return s.f.Close() }

// dir seals one file for each batch, by a rename: whoever collects them sees
// none that is not whole. A batch that is written again, after a crash, has
// the name of the first and takes its place.
type dir struct{ path string }

func openDir(path string) (sink, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return dir{path}, nil
}

func (d dir) send(_ context.Context, ms []message) error {
	return fsx.WriteFile(filepath.Join(d.path, fmt.Sprintf("audit-%012d.jsonl", ms[0].Index)), lines(ms), 0o600)
}

func (dir) state() json.RawMessage { return nil }
func (dir) close() error           { return nil }
