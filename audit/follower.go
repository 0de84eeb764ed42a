package audit

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Committed is a record with what its receiver needs to check it later.
type Committed struct {
	Entry
	// Hash is the record's RFC 6962 leaf hash.
	Hash tlog.Hash
	// TreeSize is the size of the tree in which it was committed.
	TreeSize int64
}

// Follower reads a log as it grows. It never takes the log's lock: a reader
// that is stopped, or slow, holds up nobody. What it gives out is whole, in
// the tree, under a signature of the log's key, and on disk: a power cut must
// not take a record that somebody else was already told of. It is not safe for
// concurrent use.
type Follower struct {
	dir      string // the journal's
	verifier note.Verifier
	at       Position
	seg      *segmentFile
}

// NewFollower reads the log in dir from at on. The public key comes from the
// caller, as for Verify.
func NewFollower(dir, vkey string, at Position) (*Follower, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("%w: verification key: %w", ErrInvalid, err)
	}
	f := &Follower{dir: filepath.Join(dir, journalDir), verifier: v, at: at}
	if at.origin != "" && at.origin != v.Name() {
		return nil, fmt.Errorf("audit log %s: %w", dir, &Damage{Class: ClassOrigin, Segment: segmentName(at.segment),
			Detail: fmt.Sprintf("log %q, but what was read before is of %q", v.Name(), at.origin)})
	}
	f.at.origin = v.Name()
	if f.seg, err = f.at.openAt(f.dir); err != nil {
		return nil, fmt.Errorf("audit log %s: %w", dir, err)
	}
	if at.offset == 0 { // whoever waits for the first record wants to know whose
		if err := f.header(newScanner(io.NewSectionReader(f.seg.f, 0, f.seg.size), 0)); err != nil {
			f.Close()
			return nil, f.named(err)
		}
	}
	return f, nil
}

// Close releases the file.
func (f *Follower) Close() error { return f.seg.f.Close() }

// Position is behind the last record Next returned.
func (f *Follower) Position() Position {
	p := f.at
	p.tree = p.tree.clone()
	return p
}

// A bad place at the log's end is looked at again before it is believed: a
// writer, or a recovery, may be in the middle of it.
const (
	looks     = 5
	lookAgain = 50 * time.Millisecond
)

// Next returns the records that follow, whole commits of them, about n at
// most; none if there are none yet, or if the last write was interrupted and
// the next writer will say so. Damage is a *Damage, after all records before
// it were returned.
func (f *Follower) Next(n int) ([]Committed, error) {
	var seen []byte
	for i := 1; ; i++ {
		out, bad, err := f.read(n)
		if err == nil || bad == nil {
			return out, f.named(err)
		}
		if i >= looks && sameBytes(bad, seen) {
			return nil, f.named(err)
		}
		if i >= 20*looks { // it changes, and is never whole
			return nil, f.named(err)
		}
		seen = bad
		time.Sleep(lookAgain)
	}
}

func (f *Follower) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("audit log %s: %w", filepath.Dir(f.dir), err)
}

// read is one look. With an error that may pass, bad is what was there.
func (f *Follower) read(n int) (out []Committed, bad []byte, err error) {
	for {
		same, err := f.seg.sameFile(f.dir)
		if err != nil {
			return nil, nil, err
		}
		if !same { // restored, or put in its place: is it the same log?
			s, err := f.at.openAt(f.dir)
			if err != nil {
				return nil, nil, err
			}
			f.seg.f.Close()
			f.seg = s
		}
		next, final, err := successor(f.dir, f.at.segment)
		if err != nil {
			return nil, []byte(err.Error()), err
		}
		st, err := f.seg.f.Stat()
		if err != nil {
			return nil, nil, err
		}
		limit := st.Size()
		if final {
			if limit < next.prevEnd {
				return nil, nil, f.seg.damage(ClassRollback, limit, f.at.tree.size, "%d bytes, %d when the next segment was begun", limit, next.prevEnd)
			}
			limit = next.prevEnd
		}
		if f.at.offset > limit {
			return nil, nil, f.seg.damage(ClassRollback, limit, f.at.tree.size, "the log ends at byte %d, and was read to byte %d before", limit, f.at.offset)
		}
		if f.at.offset < limit {
			return f.batches(n, limit, final)
		}
		if !final {
			return nil, nil, nil
		}
		if err := f.advance(); err != nil {
			return nil, nil, err
		}
	}
}

// advance goes to the beginning of the next segment.
func (f *Follower) advance() error {
	at := f.at
	at.segment, at.offset = at.segment+1, 0
	s, err := at.openAt(f.dir)
	if err != nil {
		return err
	}
	f.seg.f.Close()
	f.seg, f.at = s, at
	return nil
}

// stretch is what was read of a segment so far: whole commits.
type stretch struct {
	at   Position
	last *commit
	off  int64 // of the last commit
	out  []Committed
}

// batches reads commits between the position and limit.
func (f *Follower) batches(n int, limit int64, final bool) ([]Committed, []byte, error) {
	s, err := f.scan(n, limit)
	if s.last == nil {
		if err == nil {
			return nil, nil, nil
		}
		return f.unfinished(err, limit, final)
	}
	// Of what comes behind whole commits the next call hears.
	b := &batch{seg: f.seg, commitOff: s.off, first: f.at.tree.size, commit: *s.last}
	if err := b.checkSignature(f.verifier); err != nil {
		return nil, nil, err
	}
	if len(s.out) > 0 {
		if err := fdatasync(f.seg.f); err != nil {
			return nil, nil, fmt.Errorf("flush before export: %w", classify(err))
		}
	}
	f.at = s.at
	if len(s.out) == 0 { // a segment's beginning
		return f.read(n)
	}
	return s.out, nil, nil
}

// scan reads frames until about n records are under a commit, or to the end.
func (f *Follower) scan(n int, limit int64) (stretch, error) {
	s := stretch{at: f.Position()}
	t := f.at.tree.clone()
	sc := newScanner(io.NewSectionReader(f.seg.f, f.at.offset, limit-f.at.offset), f.at.offset)
	if f.at.offset == 0 {
		if err := f.header(sc); err != nil {
			return s, err
		}
	}
	var pending []Committed
	first, bytes, total := sc.off, 0, 0
	for {
		fr, err := sc.next()
		if err == io.EOF && len(pending) > 0 {
			err = &frameError{ClassTorn, sc.off, "file ends without a commit"}
		}
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return s, f.seg.located(err, t.size)
		}
		switch {
		case fr.kind == kindPad && isPadding(fr.payload):
		case fr.kind == kindRecord && (f.at.offset > 0 || s.last != nil):
			if bytes += len(fr.payload); len(fr.payload) > maxLeaf || bytes > maxBatch {
				return s, f.seg.damage(ClassFrame, fr.off, t.size, "record or batch over its bound")
			}
			leaf := append([]byte(nil), fr.payload...)
			e, err := parseEntry(t.size, leaf)
			if err != nil {
				return s, f.seg.damage(ClassLeaf, fr.off, t.size, "%v", err)
			}
			h := tlog.RecordHash(leaf)
			pending = append(pending, Committed{Entry: e, Hash: h})
			t.add(h)
		case fr.kind == kindCommit:
			c, err := parseCommit(fr.payload, f.at.origin)
			if err != nil {
				return s, f.seg.damage(ClassFrame, fr.off, s.at.tree.size, "%v", err)
			}
			if c.tree.size != t.size || c.root != t.root() {
				return s, f.seg.damage(ClassRoot, first, s.at.tree.size, "records %d to %d are not those of the commit at byte %d, size %d", s.at.tree.size, t.size-1, fr.off, c.tree.size)
			}
			for i := range pending {
				pending[i].TreeSize = t.size
			}
			s.out, s.last, s.off = append(s.out, pending...), &c, fr.off
			s.at.offset, s.at.tree = sc.off, t.clone()
			total += bytes
			if pending, bytes, first = nil, 0, sc.off; len(s.out) >= n || total >= maxStretch {
				return s, nil
			}
		default:
			return s, f.seg.damage(ClassFrame, fr.off, t.size, "frame of kind %d out of place", fr.kind)
		}
	}
}

// maxStretch bounds what Next holds in memory, beside one batch.
const maxStretch = 4 << 20

// header checks that the segment is the one that continues the position.
func (f *Follower) header(sc *scanner) error {
	fr, err := sc.next()
	if err == io.EOF {
		err = &frameError{ClassTorn, 0, "file is empty"}
	}
	if err != nil {
		return f.seg.located(err, f.at.tree.size)
	}
	h, err := parseSegmentHeader(fr.payload)
	switch {
	case fr.kind != kindSegment || err != nil || h.number != f.at.segment:
		return f.seg.damage(ClassFrame, 0, f.at.tree.size, "is not the header of segment %d", f.at.segment)
	case h.origin != f.at.origin:
		return f.seg.damage(ClassOrigin, 0, f.at.tree.size, "segment of log %q in log %q", h.origin, f.at.origin)
	case h.first != f.at.tree.size:
		return f.seg.damage(ClassRollback, 0, f.at.tree.size, "segment goes on at record %d, and %d were read before", h.first, f.at.tree.size)
	}
	return nil
}

// unfinished decides about a bad place with no whole commit before it: what
// an interrupted write leaves at the log's end is waited for, all else is
// damage.
func (f *Follower) unfinished(err error, limit int64, final bool) ([]Committed, []byte, error) {
	d, ok := isDamage(err)
	if !ok || final || f.at.offset == 0 || limit-f.at.offset > maxTorn {
		return nil, nil, err
	}
	rest := make([]byte, limit-f.at.offset)
	if _, rerr := f.seg.f.ReadAt(rest, f.at.offset); rerr != nil {
		return nil, nil, errors.Join(err, rerr)
	}
	if d.Class == ClassTorn || d.Class == ClassCRC || d.Class == ClassFrame {
		if at := d.Offset - f.at.offset; at >= 0 && at <= int64(len(rest)) && torn(rest, int(at), f.at.offset) {
			return nil, nil, nil
		}
	}
	return nil, rest, err
}
