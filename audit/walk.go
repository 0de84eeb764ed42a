package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// segmentFile is a segment opened for reading.
type segmentFile struct {
	name string
	f    *os.File
	head segmentHeader
	// size is what was there when the log was opened for reading; limit is how
	// much of it counts, end of file or where the next segment takes over.
	size, limit int64
}

// batch is what one commit covers: its records and where they are.
type batch struct {
	seg *segmentFile
	// off is where the batch begins, commitOff where its commit does.
	off, commitOff int64
	first          int64 // index of the first record
	leaves         [][]byte
	commit         commit
}

// journal is a log opened for reading.
type journal struct {
	origin   string
	segments []*segmentFile
}

// openJournal opens all segments of the log in dir as of one moment. It takes
// the lock, shared and only while it looks at the sizes, so that it sees no
// write half done. A lock that cannot be had does not stop a reader: then an
// unfinished write may look torn.
func openJournal(dir string) (_ *journal, err error) {
	dir = filepath.Join(dir, journalDir)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, ErrNoLog
	} else if err != nil {
		return nil, err
	}
	if f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
		defer f.Close() // and with it the lock
		shareLock(f, time.Now().Add(lockTimeout/4))
	}
	j := &journal{}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	ns, err := segments(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i := range max(len(ns), 1) {
		if i >= len(ns) || ns[i] != uint32(i) {
			return j, &Damage{Class: ClassMissing, Segment: segmentName(uint32(i)), Detail: "no such file"}
		}
		s, err := openSegment(dir, ns[i])
		if err != nil {
			return j, err
		}
		j.segments = append(j.segments, s)
	}
	return j, nil
}

func openSegment(dir string, n uint32) (*segmentFile, error) {
	s := &segmentFile{name: segmentName(n)}
	f, err := os.OpenFile(filepath.Join(dir, s.name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &Damage{Class: ClassMissing, Segment: s.name, Detail: "not a regular file"}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	s.f, s.size, s.limit = f, st.Size(), st.Size()
	return s, nil
}

func (j *journal) close() {
	for _, s := range j.segments {
		s.f.Close() // opened for reading: nothing to lose
	}
}

// shareLock waits for no writer to be in the middle of a write, or gives up.
func shareLock(f *os.File, deadline time.Time) {
	for time.Now().Before(deadline) {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			time.Sleep(200 * time.Microsecond)
		default:
			return
		}
	}
}

func (s *segmentFile) damage(c Class, off, index int64, format string, args ...any) error {
	return &Damage{Class: c, Segment: s.name, Offset: off, Index: index, Detail: fmt.Sprintf(format, args...)}
}

// readHeaders reads each segment's header and cuts each segment off where its
// successor says that it ends.
func (j *journal) readHeaders() error {
	for i, s := range j.segments {
		f, err := newScanner(io.NewSectionReader(s.f, 0, s.size), 0).next()
		if err == io.EOF {
			err = s.damage(ClassTorn, 0, 0, "file is empty")
		}
		if err != nil {
			return s.located(err, 0)
		}
		if f.kind != kindSegment {
			return s.damage(ClassFrame, 0, 0, "segment begins with a frame of kind %d", f.kind)
		}
		if s.head, err = parseSegmentHeader(f.payload); err != nil {
			return s.damage(ClassFrame, 0, 0, "%v", err)
		}
		if s.head.number != uint32(i) {
			return s.damage(ClassFrame, 0, s.head.first, "header is of segment %d", s.head.number)
		}
		if i == 0 {
			j.origin = s.head.origin
			continue
		}
		prev := j.segments[i-1]
		if s.head.origin != j.origin {
			return s.damage(ClassOrigin, 0, s.head.first, "segment of log %q in log %q", s.head.origin, j.origin)
		}
		if s.head.prevEnd > prev.size {
			return prev.damage(ClassRollback, prev.size, s.head.first, "%d bytes, %d when the next segment was begun", prev.size, s.head.prevEnd)
		}
		prev.limit = s.head.prevEnd
	}
	return nil
}

// located turns what a scanner says into Damage with its place.
func (s *segmentFile) located(err error, index int64) error {
	var fe *frameError
	if errors.As(err, &fe) {
		return s.damage(fe.class, fe.off, index, "%s", fe.detail)
	}
	return err
}

// walk reads the whole log and gives each batch to fn once its framing, its
// checksums and its tree have been checked. Signatures are fn's business. The
// batch is fn's to keep.
func (j *journal) walk(fn func(*batch) error) error {
	if err := j.readHeaders(); err != nil {
		return err
	}
	var t tree
	for _, s := range j.segments {
		var err error
		if t, err = s.walk(j.origin, t, fn); err != nil {
			return err
		}
	}
	return nil
}

// walk reads one segment that continues t.
func (s *segmentFile) walk(origin string, t tree, fn func(*batch) error) (tree, error) {
	sc := newScanner(io.NewSectionReader(s.f, 0, s.limit), 0)
	if _, err := sc.next(); err != nil { // the header, read before
		return t, s.located(err, t.size)
	}
	if s.head.first != t.size {
		return t, s.damage(ClassFrame, 0, t.size, "segment begins at record %d", s.head.first)
	}
	b := &batch{seg: s, off: sc.off, first: t.size}
	bytes, opened := 0, false
	for {
		f, err := sc.next()
		switch {
		case err == io.EOF && len(b.leaves) == 0 && opened:
			return t, nil
		case err == io.EOF:
			return t, s.damage(ClassTorn, b.off, b.first, "file ends without a commit after record %d", t.size-1)
		case err != nil:
			return t, s.located(err, t.size)
		}
		switch {
		case f.kind == kindPad && isPadding(f.payload):
		case f.kind == kindRecord && opened:
			if bytes += len(f.payload); len(f.payload) > maxLeaf || bytes > maxBatch {
				return t, s.damage(ClassFrame, f.off, t.size, "record or batch over its bound")
			}
			leaf := append([]byte(nil), f.payload...)
			b.leaves = append(b.leaves, leaf)
			t.add(tlog.RecordHash(leaf))
		case f.kind == kindCommit:
			// A segment's first commit restates the tree it continues.
			c, err := parseCommit(f.payload, origin)
			if err != nil {
				return t, s.damage(ClassFrame, f.off, b.first, "%v", err)
			}
			if c.tree.size != t.size || c.root != t.root() {
				return t, s.damage(ClassRoot, b.off, b.first, "records %d to %d are not those of the commit at byte %d, size %d", b.first, t.size-1, f.off, c.tree.size)
			}
			b.commit, b.commitOff = c, f.off
			if err := fn(b); err != nil {
				return t, err
			}
			b, bytes, opened = &batch{seg: s, off: sc.off, first: t.size}, 0, true
		default:
			return t, s.damage(ClassFrame, f.off, t.size, "frame of kind %d out of place", f.kind)
		}
	}
}
