package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/internal/fsx"
)

// maxTorn is more than any single write of ours; a longer tail without a
// commit is not what an interrupted write leaves.
const maxTorn = 2 * maxBatch

// recover deals with a segment that does not end in a commit of ours: the
// lock is held, so nobody is in the middle of a write. What an interrupted
// write explains is kept as evidence and the log goes on from the last whole
// commit; anything else is damage, and stays as it is.
func (l *Log) recover(size int64) error {
	c, end, err := scanCommits(io.NewSectionReader(l.seg, 0, size), l.Origin())
	var fe *frameError
	if err != nil && !errors.As(err, &fe) {
		return err
	}
	if end == 0 { // a segment appears with its first commit in it
		return l.damageAt(fe, "segment has no commit")
	}
	if n := max(l.tree.size, l.synced.Load()); end < l.end || c.tree.size < n {
		return l.damage(ClassRollback, end, "commit of size %d is gone", n)
	}
	if err := c.verifyOwn(l.signer, l.verifier); err != nil {
		return l.damage(signatureClass(err), end, "last checkpoint: %v", err)
	}
	l.tree, l.end = c.tree, end
	if end == size {
		return nil
	}
	if size-end > maxTorn {
		return l.damageAt(fe, "%d bytes behind the last readable commit", size-end)
	}
	rest := make([]byte, size-end)
	if _, err := l.seg.ReadAt(rest, end); err != nil {
		return err
	}
	if fe != nil && !torn(rest, int(fe.off-end), end) {
		return l.damageAt(fe, "not what an interrupted write leaves")
	}
	return l.keepTorn(rest)
}

// damageAt is damage at a frame that could not be read, or behind the last
// commit if all could.
func (l *Log) damageAt(fe *frameError, format string, args ...any) error {
	if fe == nil {
		return l.damage(ClassFrame, l.end, format, args...)
	}
	return l.damage(fe.class, fe.off, "%s (%s)", fe.detail, fmt.Sprintf(format, args...))
}

func signatureClass(err error) Class {
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return ClassKey
	}
	return ClassSignature
}

// scanCommits reads frames up to the first that is not whole and returns the
// last commit before it, where that commit ends (0 if there is none), and the
// *frameError that ended it, if it was not the end of the file.
func scanCommits(r io.Reader, origin string) (last commit, end int64, err error) {
	sc := newScanner(r, 0)
	for {
		f, err := sc.next()
		if err == io.EOF {
			return last, end, nil
		}
		if err != nil {
			return last, end, err
		}
		if f.kind == kindSegment {
			if h, err := parseSegmentHeader(f.payload); err == nil && h.origin != origin {
				return last, end, &frameError{ClassOrigin, f.off, fmt.Sprintf("segment of log %q, key of %q", h.origin, origin)}
			}
		}
		if f.kind != kindCommit {
			continue
		}
		c, err := parseCommit(f.payload, origin)
		if err != nil {
			return last, end, &frameError{ClassFrame, f.off, err.Error()}
		}
		last, end = c, sc.off
	}
}

const sector = 512

// torn says whether rest, the bytes behind the last commit, can be what an
// interrupted write left: a prefix of a batch, or a batch of which some
// sectors never reached the disk. at is where in rest the first unreadable
// frame begins, off where in the file rest does.
//
// A whole batch with wrong bytes in it is not: that is damage or tampering,
// and repairing it would destroy a record that may have been acknowledged.
func torn(rest []byte, at int, off int64) bool {
	bad := rest[at:]
	if holdsCommit(bad) {
		return false
	}
	if len(bad) < headerLen || endsUnwritten(bad) || hasUnwrittenSector(bad, off+int64(at)) {
		return true
	}
	if kind(rest[8]) == kindPad && bytes.HasPrefix(rest[headerLen:], padding[:minPad]) {
		return true // a recovery that was itself interrupted, over the old bytes
	}
	if int64(binary.BigEndian.Uint32(bad))+headerLen <= int64(len(bad)) {
		return false // all of the frame is there, and it is wrong
	}
	// The frame says that it is longer than what is there. That is a prefix,
	// unless it is a whole commit whose length was changed.
	n := int64(binary.BigEndian.Uint32(bad[len(bad)-4:]))
	if n < headerLen+4 || n > int64(len(bad)) {
		return true
	}
	whole := bytes.Clone(bad[int64(len(bad))-n:])
	binary.BigEndian.PutUint32(whole, uint32(n-headerLen))
	_, _, ok := parseFrame(whole)
	return !ok
}

// holdsCommit says whether a whole commit frame begins anywhere in b. A commit
// behind a bad place means that the bad place was once good.
func holdsCommit(b []byte) bool {
	for i := 0; i+headerLen <= len(b); i++ {
		n := int64(binary.BigEndian.Uint32(b[i:]))
		if kind(b[i+8]) != kindCommit || n > maxCommit || int64(i)+headerLen+n > int64(len(b)) {
			continue
		}
		if _, _, ok := parseFrame(b[i : i+headerLen+int(n)]); ok {
			return true
		}
	}
	return false
}

// endsUnwritten: no frame of ours ends in eight zero bytes, but a file that
// was extended and never filled does.
func endsUnwritten(b []byte) bool {
	return len(b) >= 8 && bytes.Equal(b[len(b)-8:], make([]byte, 8))
}

// hasUnwrittenSector: no frame of ours holds 512 zero bytes, but a batch of
// which one sector was not written does.
func hasUnwrittenSector(b []byte, off int64) bool {
	zero := make([]byte, sector)
	for i := int((sector - off%sector) % sector); i+sector <= len(b); i += sector {
		if bytes.Equal(b[i:i+sector], zero) {
			return true
		}
	}
	return false
}

// minPad is the least a recovery's first pad frame holds: it marks the write
// as a recovery, even if no more than that of it was written.
const minPad = 8

// padding is what a pad frame holds.
var padding = bytes.Repeat([]byte{0xff}, 4096)

// appendPad adds pad frames of at least n bytes in all, and exactly n if that
// is possible.
func appendPad(b []byte, n int) []byte {
	for n > 0 {
		size := min(max(n, headerLen), headerLen+len(padding))
		if left := n - size; left > 0 && left < headerLen {
			size -= headerLen // leave room for the last frame's header
		}
		b = appendFrame(b, kindPad, padding[:size-headerLen])
		n -= size
	}
	return b
}

// isPadding says whether a pad frame's payload is what it must be: nothing is
// hidden in it.
func isPadding(p []byte) bool { return bytes.Count(p, []byte{0xff}) == len(p) }

// keepTorn puts the bytes behind the last commit aside, durably, and then
// writes padding and a log.recovered record over them in one write. There is
// no moment at which they are gone and nothing says so.
func (l *Log) keepTorn(rest []byte) error {
	sum := sha256.Sum256(rest)
	digest := hex.EncodeToString(sum[:])
	name := fmt.Sprintf("%s/%08d-%d-%s", tornDir, l.number, l.end, digest[:16])
	err := fsx.CreateFile(filepath.Join(l.dir, name), rest, 0o400)
	if err != nil && !errors.Is(err, fs.ErrExist) { // it is there after an interrupted recovery
		return fmt.Errorf("keep torn tail: %w", classify(err))
	}
	r, err := newRecord(Record{Type: LogRecovered, Actor: Caller(), Data: Recovered{
		Reason: "torn", Segment: segmentName(l.number), Offset: l.end, Bytes: int64(len(rest)), SHA256: digest, Evidence: name,
	}}, l.stamp)
	if err != nil {
		return err
	}
	b, c, err := appendBatch(nil, l.tree, l.signer, [][]byte{r})
	if err != nil {
		return err
	}
	b = append(appendPad(nil, max(len(rest)-len(b), headerLen+minPad)), b...)
	if err := l.pwrite(b, false); err != nil {
		return err
	}
	l.tree, l.end = c.tree, l.end+int64(len(b))
	l.written.Store(&mark{l.seg, l.tree.size})
	return l.syncLocked()
}
