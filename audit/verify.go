package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// Expect is what a verifier knows of a log from elsewhere. Taken from the log
// itself it would prove nothing.
type Expect struct {
	// VKey is the log's public key in signed-note form; required.
	VKey string
	// Origin is the log's name; empty means the key's name.
	Origin string
	// MinSize is how many records the log is known to have had.
	MinSize int64
	// Checkpoints are signed ones that the verifier has seen before: the log must
	// still begin with exactly the records that each was signed for.
	Checkpoints [][]byte
	// EverySignature checks every checkpoint's signature and not only the
	// last, whose tree covers all records. It is much slower.
	EverySignature bool
}

// LevelLocalKey is the level of a log that is vouched for by its own key
// alone: whoever has that key can have rewritten it.
const LevelLocalKey = "local-key"

// Report is what Verify found, up to the damage if there is any.
type Report struct {
	Origin string
	// Size is the number of records under a good commit, Root their base64
	// RFC 6962 root, Checkpoint the signed C2SP checkpoint over them.
	Size       int64
	Root       string
	Checkpoint []byte
	// Commits, Segments and Bytes were read; Superseded bytes lie behind a
	// failed flush and are no part of the log.
	Commits    int64
	Segments   int
	Bytes      int64
	Superseded int64
	// Level says against whom this holds.
	Level string
}

// Verify reads the whole log in dir and checks every byte of it against want:
// framing, checksums, tree, order, origin, length and the last signature. Its
// error is a *Damage for damage; an empty or unusable want.VKey is an error,
// since a log verified with a key of its own is not verified. The Report is
// meaningful with a *Damage too.
func Verify(dir string, want Expect) (Report, error) {
	r := Report{Level: LevelLocalKey}
	if want.VKey == "" {
		return r, fmt.Errorf("%w: verification without a key", ErrInvalid)
	}
	v, err := note.NewVerifier(want.VKey)
	if err != nil {
		return r, fmt.Errorf("%w: verification key: %w", ErrInvalid, err)
	}
	if want.Origin == "" {
		want.Origin = v.Name()
	}
	var seen []checkpoint
	for _, b := range want.Checkpoints {
		c, err := parseCheckpoint(b, v)
		if err != nil {
			return r, fmt.Errorf("%w: a checkpoint that it must continue: %w", ErrInvalid, err)
		}
		seen = append(seen, c)
	}
	j, err := openJournal(dir)
	if err != nil {
		return r, fmt.Errorf("audit log %s: %w", dir, err)
	}
	defer j.close()
	if err := j.verify(&r, want, seen, v); err != nil {
		return r, fmt.Errorf("audit log %s: %w", dir, err)
	}
	return r, nil
}

func (j *journal) verify(r *Report, want Expect, seen []checkpoint, v note.Verifier) error {
	if err := j.readHeaders(); err != nil {
		return err
	}
	first := j.segments[0]
	if r.Origin = j.origin; j.origin != want.Origin {
		return first.damage(ClassOrigin, 0, 0, "log %q, expected %q", j.origin, want.Origin)
	}
	var last *batch
	continues := allContinued(seen)
	err := j.walk(func(b *batch) error {
		if err := continues(b); err != nil {
			return err
		}
		if want.EverySignature {
			if err := b.checkSignature(v); err != nil {
				return err
			}
		}
		last = b
		r.Commits++
		r.Size, r.Root, r.Checkpoint = b.commit.tree.size, b.commit.root.String(), b.commit.note
		return nil
	})
	for _, s := range j.segments {
		r.Segments++
		r.Bytes += s.size
		r.Superseded += s.size - s.limit
	}
	if last == nil {
		return err
	}
	// Also if there is damage further on: its place is the second thing to
	// know about a log that was not signed by this key at all.
	if serr := last.checkSignature(v); serr != nil {
		return j.firstBadSignature(v, serr)
	}
	if err == nil && r.Size < want.MinSize {
		return last.seg.damage(ClassRollback, last.commitOff, r.Size, "%d records, at least %d expected", r.Size, want.MinSize)
	}
	if err == nil {
		err = last.located(continues(nil))
	}
	return err
}

// firstBadSignature names the earliest checkpoint the key does not fit; a
// rewritten log is unsigned from where it was rewritten.
func (j *journal) firstBadSignature(v note.Verifier, last error) error {
	err := j.walk(func(b *batch) error { return b.checkSignature(v) })
	if err == nil {
		return last // changed while it was read
	}
	return err
}

// checkSignature checks the batch's checkpoint under v.
func (b *batch) checkSignature(v note.Verifier) error {
	err := b.commit.verify(note.VerifierList(v))
	var invalid *note.InvalidSignatureError
	var unverified *note.UnverifiedNoteError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid):
		return b.seg.damage(ClassSignature, b.commitOff, b.first, "signature of the checkpoint of size %d does not fit", b.commit.tree.size)
	case errors.As(err, &unverified):
		return b.seg.damage(ClassKey, b.commitOff, b.first, "checkpoint of size %d is not signed by %s", b.commit.tree.size, v.Name())
	}
	return b.seg.damage(ClassSignature, b.commitOff, b.first, "checkpoint of size %d: %v", b.commit.tree.size, err)
}
