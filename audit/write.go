package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// maxBatch bounds the records of one commit, in bytes with their frames.
const maxBatch = 1 << 20

// segmentLimit is the size from which on a new segment is begun.
var segmentLimit int64 = 64 << 20

// writeNext writes as much of the queue as one batch may hold and tells each
// request what became of it. The caller holds l.mu.
func (l *Log) writeNext() {
	l.queueMu.Lock()
	n, size := 0, 0
	for n < len(l.queue) && (n == 0 || size+l.queue[n].bytes <= maxBatch) {
		size += l.queue[n].bytes
		n++
	}
	batch := l.queue[:n:n]
	l.queue = l.queue[n:]
	l.queueMu.Unlock()

	err := l.usable()
	if err == nil {
		err = l.locked(func() error { return l.write(batch) })
	}
	for _, q := range batch {
		q.done, q.err = true, err
	}
}

func (l *Log) usable() error {
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// locked runs fn with the lock between processes held and the end of the log
// known. The caller holds l.mu.
func (l *Log) locked(fn func() error) error {
	if err := flock(l.lock, deadline()); err != nil {
		return err
	}
	err := l.refresh()
	if err == nil {
		err = fn()
	}
	if uerr := funlock(l.lock); uerr != nil {
		// The lock stays until this process ends; do not add to its writes.
		err = errors.Join(err, fmt.Errorf("unlock %s: %w", l.lock.Name(), uerr))
	}
	return err
}

// refresh catches up with what other processes wrote. The lock is held.
func (l *Log) refresh() error {
	if _, err := os.Lstat(filepath.Join(l.dir, segmentName(l.number+1))); err == nil {
		return l.follow()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return classify(err)
	}
	st, err := l.seg.Stat()
	if err != nil {
		return err
	}
	if n, ok := st.Sys().(*syscall.Stat_t); ok && n.Nlink == 0 {
		// Deleted or replaced under us: what is written here nobody will find.
		return l.damage(ClassMissing, 0, "deleted while in use")
	}
	size := st.Size()
	if size == l.end && size > 0 {
		return nil
	}
	if size < l.end {
		return l.damage(ClassRollback, size, "%d bytes were cut off", l.end-size)
	}
	c, err := l.tail(size)
	if err != nil {
		return l.recover(size)
	}
	// Put back to an older state meanwhile? A new segment may hold less than was
	// seen here, never less than was flushed.
	if n := max(l.tree.size, l.synced.Load()); c.tree.size < n {
		return l.damage(ClassRollback, 0, "%d records, %d before", c.tree.size, n)
	}
	l.tree, l.end = c.tree, size
	return nil
}

// follow goes on to the newest segment. What this process wrote to the old one
// is flushed first, under mu, so that nobody who waits for that takes a flush
// of the new segment for it.
func (l *Log) follow() error {
	if _, err := l.sync(l.written.Load().size); err != nil {
		return err
	}
	if err := l.openLast(); err != nil {
		return err
	}
	l.tree = tree{}
	if err := l.refresh(); err != nil {
		return err
	}
	l.written.Store(&mark{l.seg, l.tree.size})
	return nil
}

func (l *Log) damage(c Class, off int64, format string, args ...any) error {
	return &Damage{Class: c, Segment: segmentName(l.number), Offset: off, Index: l.tree.size, Detail: fmt.Sprintf(format, args...)}
}

// write adds the batch's records and their commit in one pwrite. The lock is
// held and the end of the log is known.
func (l *Log) write(batch []*request) error {
	if l.end >= segmentLimit {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	var leaves [][]byte
	begins := true
	for _, q := range batch {
		leaves = append(leaves, q.leaves...)
		begins = begins && q.begins
	}
	base := l.tree
	b, c, err := appendBatch(nil, base, l.signer, leaves)
	if err != nil {
		return err
	}
	if err := l.pwrite(b, begins); err != nil {
		return err
	}
	l.tree, l.end = c.tree, l.end+int64(len(b))
	l.written.Store(&mark{l.seg, l.tree.size})
	return grant(batch, base, c)
}

// grant tells the requests their place in the tree.
func grant(batch []*request, base tree, c commit) error {
	g := grown{base: base}
	for _, q := range batch {
		q.index, q.size, q.note = base.size+int64(len(g.leaves)), c.tree.size, c.note
		for _, b := range q.leaves {
			g.leaves = append(g.leaves, tlog.RecordHash(b))
		}
	}
	for _, q := range batch {
		if !q.prove {
			continue
		}
		p, err := g.prove(q.index)
		if err != nil {
			return err
		}
		q.proof = p
	}
	return nil
}

// appendBatch adds record frames and their commit to b.
func appendBatch(b []byte, t tree, signer note.Signer, leaves [][]byte) ([]byte, commit, error) {
	t = t.clone()
	for _, l := range leaves {
		b = appendFrame(b, kindRecord, l)
		t.add(tlog.RecordHash(l))
	}
	c, err := signCommit(t, signer)
	if err != nil {
		return nil, c, err
	}
	return appendCommit(b, c), c, nil
}

// pwrite writes b at the end of the log with one system call. On a full disk
// it is tried again without the ballast, unless b only begins something new.
// If not all of it is taken, the part that was is cut off again: nobody was
// told of it, and its space is what the next record needs.
func (l *Log) pwrite(b []byte, begins bool) error {
	for {
		n, err := unix.Pwrite(int(l.seg.Fd()), b, l.end)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == len(b) {
			return nil
		}
		if err == nil {
			err = unix.ENOSPC // a short write to a regular file has no other cause
		}
		err = classify(&os.PathError{Op: "write", Path: l.seg.Name(), Err: err})
		if errors.Is(err, ErrFull) && !begins && l.dropBallast() {
			continue
		}
		if terr := l.seg.Truncate(l.end); terr != nil {
			return errors.Join(err, terr) // the next writer finds a torn tail
		}
		return err
	}
}

// rotate begins a new segment. The old one is flushed first: the new one's
// first commit covers records in it, and must not survive them.
func (l *Log) rotate() error {
	if err := l.syncLocked(); err != nil {
		return err
	}
	if _, _, err := createSegment(l.dir, l.number+1, l.tree, l.end, l.signer); err != nil {
		return classify(err)
	}
	return l.follow()
}

// tail reads the commit that ends the segment at size, and checks that it is
// this log's: the next checkpoint vouches for everything it says.
func (l *Log) tail(size int64) (commit, error) {
	b := make([]byte, min(size, 4096))
	if _, err := l.seg.ReadAt(b, size-int64(len(b))); err != nil {
		return commit{}, err
	}
	c, n, err := lastCommit(b, l.Origin())
	if n > len(b) && int64(n) <= size { // a deep frontier or many cosignatures
		b = make([]byte, n)
		if _, err := l.seg.ReadAt(b, size-int64(n)); err != nil {
			return commit{}, err
		}
		c, _, err = lastCommit(b, l.Origin())
	}
	if err != nil {
		return c, err
	}
	return c, c.verifyOwn(l.signer, l.verifier)
}

var errNoCommit = errors.New("segment does not end in a commit")

// lastCommit reads the commit frame at the end of b; n is that frame's length,
// larger than b if more bytes are needed.
func lastCommit(b []byte, origin string) (c commit, n int, err error) {
	if len(b) < headerLen+4 {
		return c, 0, errNoCommit
	}
	last := b[len(b)-4:]
	n = int(uint32(last[0])<<24 | uint32(last[1])<<16 | uint32(last[2])<<8 | uint32(last[3]))
	if n < headerLen || n > maxCommit {
		return c, 0, errNoCommit
	}
	if n > len(b) {
		return c, n, errNoCommit
	}
	k, p, ok := parseFrame(b[len(b)-n:])
	if !ok || k != kindCommit {
		return c, n, errNoCommit
	}
	c, err = parseCommit(p, origin)
	return c, n, err
}
