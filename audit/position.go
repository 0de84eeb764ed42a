package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Position is a place in a log between two commits, with the tree of all
// records before it. Who goes on reading from there notices whether what was
// before is still what it was. The zero Position is the beginning of any log.
type Position struct {
	origin  string
	segment uint32
	offset  int64
	tree    tree
}

// Origin is the name of the log it is a place in, empty for the beginning.
func (p Position) Origin() string { return p.origin }

// Size is the number of records before it.
func (p Position) Size() int64 { return p.tree.size }

// String is for people: the file and the place in it.
func (p Position) String() string {
	return fmt.Sprintf("record %d (%s at byte %d)", p.tree.size, segmentName(p.segment), p.offset)
}

type positionWire struct {
	Origin   string   `json:"origin"`
	Segment  uint32   `json:"segment"`
	Offset   int64    `json:"offset"`
	Size     int64    `json:"size"`
	Frontier [][]byte `json:"frontier,omitempty"`
}

// MarshalJSON writes it for UnmarshalJSON.
func (p Position) MarshalJSON() ([]byte, error) {
	w := positionWire{Origin: p.origin, Segment: p.segment, Offset: p.offset, Size: p.tree.size}
	for _, h := range p.tree.frontier {
		w.Frontier = append(w.Frontier, h[:])
	}
	return json.Marshal(w)
}

var errPosition = errors.New("malformed position in an audit log")

// UnmarshalJSON reads what MarshalJSON wrote; the log itself is not looked at.
func (p *Position) UnmarshalJSON(b []byte) error {
	var w positionWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	q := Position{origin: w.Origin, segment: w.Segment, offset: w.Offset, tree: tree{size: w.Size}}
	if w.Size < 0 || w.Offset < 0 || len(w.Origin) > maxOrigin || len(w.Frontier) != bits.OnesCount64(uint64(w.Size)) {
		return errPosition
	}
	for _, f := range w.Frontier {
		if len(f) != tlog.HashSize {
			return errPosition
		}
		q.tree.frontier = append(q.tree.frontier, tlog.Hash(f))
	}
	if q.origin == "" && (q.segment != 0 || q.offset != 0 || q.tree.size != 0) {
		return errPosition
	}
	*p = q
	return nil
}

// Head is the number of records in the log's newest whole commit, and the
// log's name. It reads the end of one file, takes no lock and checks no
// signature: it is for saying how far behind a reader is.
func Head(dir string) (origin string, size int64, err error) {
	vkey, err := VKey(dir)
	if err != nil {
		return "", 0, err
	}
	origin, _, _ = strings.Cut(vkey, "+")
	dir = filepath.Join(dir, journalDir)
	ns, err := segments(dir)
	if err != nil || len(ns) == 0 {
		return origin, 0, errors.Join(err, ErrNoLog)
	}
	s, err := openSegment(dir, ns[len(ns)-1])
	if err != nil {
		return origin, 0, err
	}
	defer s.f.Close() // opened for reading: nothing to lose
	c, err := s.commitBefore(s.size, origin)
	if errors.Is(err, errNoCommit) { // a write under way, or a torn one
		var fe *frameError
		if c, _, err = scanCommits(io.NewSectionReader(s.f, 0, s.size), origin); errors.As(err, &fe) {
			err = nil
		}
	}
	return origin, c.tree.size, err
}

// commitBefore is the commit that ends at byte end of the segment.
func (s *segmentFile) commitBefore(end int64, origin string) (commit, error) {
	b := make([]byte, min(end, maxCommit))
	if _, err := s.f.ReadAt(b, end-int64(len(b))); err != nil {
		return commit{}, err
	}
	c, _, err := lastCommit(b, origin)
	return c, err
}

// openAt opens the position's segment and checks that the log up to there is
// the one the position was taken in.
func (p Position) openAt(dir string) (*segmentFile, error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLog
	}
	s, err := openSegment(dir, p.segment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Damage{Class: ClassMissing, Segment: segmentName(p.segment), Index: p.tree.size, Detail: "no such file"}
	}
	if err != nil || p.offset == 0 {
		return s, err
	}
	if s.size < p.offset {
		err = s.damage(ClassRollback, s.size, p.tree.size, "%d bytes, %d when last read", s.size, p.offset)
	} else if c, cerr := s.commitBefore(p.offset, p.origin); cerr != nil {
		err = s.damage(ClassRoot, p.offset, p.tree.size, "no commit ends where one did when last read: %v", cerr)
	} else if c.tree.size != p.tree.size || c.root != p.tree.root() {
		err = s.damage(ClassRoot, p.offset, p.tree.size, "the commit of size %d is not the one that was read here", c.tree.size)
	}
	if err != nil {
		s.f.Close()
		return nil, err
	}
	return s, nil
}

// successor is the header of the segment after this one, if there is one yet.
func successor(dir string, n uint32) (segmentHeader, bool, error) {
	s, err := openSegment(dir, n+1)
	if errors.Is(err, fs.ErrNotExist) {
		return segmentHeader{}, false, nil
	}
	if err != nil {
		return segmentHeader{}, false, err
	}
	defer s.f.Close()
	f, err := newScanner(io.NewSectionReader(s.f, 0, s.size), 0).next()
	if err == io.EOF {
		err = s.damage(ClassTorn, 0, 0, "file is empty")
	}
	if err != nil {
		return segmentHeader{}, false, s.located(err, 0)
	}
	h, err := parseSegmentHeader(f.payload)
	if f.kind != kindSegment || err != nil || h.number != n+1 {
		return h, false, s.damage(ClassFrame, 0, 0, "is not the header of segment %d", n+1)
	}
	return h, true, nil
}

// sameFile says whether the segment at its path is the one that is open.
func (s *segmentFile) sameFile(dir string) (bool, error) {
	there, err := os.Lstat(filepath.Join(dir, s.name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	here, err := s.f.Stat()
	return err == nil && os.SameFile(there, here), err
}

// isDamage takes damage out of an error.
func isDamage(err error) (*Damage, bool) {
	var d *Damage
	ok := errors.As(err, &d)
	return d, ok
}

// sameBytes says whether two looks at a bad place saw the same.
func sameBytes(a, b []byte) bool { return a != nil && bytes.Equal(a, b) }
