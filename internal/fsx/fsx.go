// Package fsx holds the few file operations whose order matters: durable
// replacement, exclusive creation, and locks between processes.
//
// It promises that after a crash a file is either its old or its new content,
// never a mix (ext4, xfs, btrfs, tmpfs), and that creating never overwrites.
// It does not follow symbolic links in the last path component.
package fsx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// WriteFile replaces path with data so that a crash leaves the old or the new
// content: temporary file in the same directory, fsync, rename, fsync of the
// directory. Concurrent writers are safe; the last rename wins.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return place(path, data, perm, true, os.Rename)
}

// ReplaceFile is WriteFile without the flushes: other processes see the old or
// the new content, but a power cut may lose both. For state that means nothing
// after a reboot.
func ReplaceFile(path string, data []byte, perm os.FileMode) error {
	return place(path, data, perm, false, os.Rename)
}

// CreateFile makes path with data and fails with fs.ErrExist if it is there.
// The file appears whole or not at all: it is linked into place only when its
// content is on disk, so a crash cannot leave half a key behind.
func CreateFile(path string, data []byte, perm os.FileMode) error {
	return place(path, data, perm, true, os.Link)
}

func place(path string, data []byte, perm os.FileMode, durable bool, into func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // finds nothing once renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := into(f.Name(), path); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	return SyncDir(dir)
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// Lock is an exclusive flock(2) between processes. It is released by Unlock,
// or by the kernel when the last descriptor of it is closed, also on a crash.
type Lock struct{ f *os.File }

// ErrLocked says that somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// TryLock takes the lock at path, creating the file (0600) if needed, or
// returns ErrLocked at once.
func TryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		return &Lock{f}, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// WaitLock takes the lock at path, waiting until ctx ends. It polls: a
// blocking flock cannot be bounded in time without signals.
func WaitLock(ctx context.Context, path string) (*Lock, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		l, err := TryLock(path)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, errors.Join(ErrLocked, ctx.Err()))
		case <-time.After(pause):
		}
	}
}

// File is the descriptor that carries the lock. A child that inherits it
// keeps the lock alive after the parent has gone.
func (l *Lock) File() *os.File { return l.f }

// Unlock releases the lock unless another process inherited its descriptor.
func (l *Lock) Unlock() error { return l.f.Close() }

// DirSize is the sum of the sizes of the files below dir, each counted once
// however many names it has. What goes away meanwhile is not counted; no link
// is followed.
func DirSize(dir string) (int64, error) {
	seen := map[[2]uint64]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			// A container can make names too deep to be opened by their path.
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG) {
				return nil
			}
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
