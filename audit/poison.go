package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// poison begins a new segment after a failed flush. The caller holds no lock.
func (l *Log) poison() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if err := flock(l.lock, deadline()); err != nil {
		return err
	}
	return errors.Join(l.supersede(), funlock(l.lock))
}

// syncLocked flushes the segment for a caller that holds mu and the lock.
func (l *Log) syncLocked() error {
	poisoned, err := l.sync(math.MaxInt64) // also what others only posted
	if poisoned {
		return errors.Join(err, l.supersede())
	}
	return err
}

// retire makes every later use of this Log fail with the first cause. The
// kernel reports a failed flush once and then forgets the pages: going on with
// the same descriptor would acknowledge what is not there.
func (l *Log) retire(cause error) error {
	err := cause
	if cause != ErrClosed {
		err = fmt.Errorf("%w: %w", ErrPoisoned, cause)
	}
	l.failed.CompareAndSwap(nil, &err)
	return *l.failed.Load()
}

// supersede begins the next segment at the last commit the disk holds, read
// past the page cache, which still shows what was not written. The old segment
// stays as it is; what lies behind that commit is no longer part of the log
// and a record says so. mu and the lock are held.
//
// If that cannot be written either, nothing is: the next writer meets the same
// disk.
func (l *Log) supersede() error {
	if _, err := os.Lstat(filepath.Join(l.dir, segmentName(l.number+1))); err == nil {
		return nil // another process met the same error first
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := filepath.Join(l.dir, segmentName(l.number))
	c, end, err := scanDisk(path, l.Origin())
	if err != nil {
		return err
	}
	if err := c.verifyOwn(l.signer, l.verifier); err != nil {
		return l.damage(signatureClass(err), end, "last checkpoint on disk: %v", err)
	}
	lost, err := readFrom(path, end)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(lost)
	r, err := newRecord(Record{Type: LogRecovered, Actor: Caller(), Data: Recovered{
		Reason: "flush", Segment: segmentName(l.number), Offset: end, Bytes: int64(len(lost)), SHA256: hex.EncodeToString(sum[:]),
	}}, l.stamp)
	if err != nil {
		return err
	}
	_, _, err = createSegment(l.dir, l.number+1, c.tree, end, l.signer, r)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return classify(err)
}

// scanDisk finds the last commit of the segment at path as it is on the disk.
func scanDisk(path, origin string) (commit, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // tmpfs: the page cache is all there is
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return commit{}, 0, err
	}
	defer f.Close()
	// Direct reads need an aligned buffer; mmap's are.
	buf, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return commit{}, 0, err
	}
	defer unix.Munmap(buf)
	c, end, err := scanCommits(&directReader{f: f, buf: buf}, origin)
	var fe *frameError
	if err != nil && !errors.As(err, &fe) {
		return c, end, err
	}
	if end == 0 {
		return c, end, fmt.Errorf("%w: no commit on disk in %s", ErrDamaged, path)
	}
	return c, end, nil
}

// directReader reads a file from its start in whole buffers.
type directReader struct {
	f    *os.File
	buf  []byte
	have []byte
	end  bool
}

// Read implements io.Reader.
func (d *directReader) Read(p []byte) (int, error) {
	if len(d.have) == 0 {
		if d.end {
			return 0, io.EOF
		}
		n, err := d.f.Read(d.buf)
		if err != nil {
			return 0, err
		}
		// A short read is the end; another one would be unaligned.
		d.have, d.end = d.buf[:n], n < len(d.buf)
	}
	n := copy(p, d.have)
	d.have = d.have[n:]
	return n, nil
}

// readFrom reads the file at path from off to its end, at most maxTorn bytes.
func readFrom(path string, off int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxTorn))
}
