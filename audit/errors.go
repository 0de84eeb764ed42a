package audit

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Errors of this package; test with errors.Is.
var (
	// ErrNoLog says that the directory holds no log.
	ErrNoLog = errors.New("no audit log")
	// ErrKey says that the signing key is missing, unreadable, readable by
	// others, or not the key this log was signed with.
	ErrKey = errors.New("audit log key unusable")
	// ErrReadOnly says that the log cannot be opened for writing.
	ErrReadOnly = errors.New("audit log not writable")
	// ErrFull says that there is no room: nothing was recorded.
	ErrFull = errors.New("no space for the audit log")
	// ErrLocked says that another process held the log's lock for too long.
	ErrLocked = errors.New("audit log locked by another process")
	// ErrPoisoned says that a flush failed: what was not acknowledged before
	// may be lost, and this Log accepts nothing more. Opening the log anew
	// continues in a new segment.
	ErrPoisoned = errors.New("audit log flush failed")
	// ErrFileSystem says that the file system cannot keep the log's promises.
	ErrFileSystem = errors.New("unsuitable file system for the audit log")
	// ErrTooLarge says that a record or batch exceeds its bound.
	ErrTooLarge = errors.New("audit record too large")
	// ErrInvalid says that a record lacks what its type requires.
	ErrInvalid = errors.New("invalid audit record")
	// ErrClosed says that the Log was closed.
	ErrClosed = errors.New("audit log closed")
	// ErrDamaged matches every *Damage.
	ErrDamaged = errors.New("audit log damaged")
)

// Class is a kind of damage.
type Class string

// The kinds of damage, each meaning one thing; docs/audit-format.md has the
// table of causes.
const (
	// ClassTorn is an interrupted last write; the next writer recovers it.
	ClassTorn Class = "torn"
	// ClassCRC is a frame whose checksum is wrong.
	ClassCRC Class = "crc"
	// ClassFrame is a frame that is malformed or out of place.
	ClassFrame Class = "frame"
	// ClassLeaf is a record that is in the tree but is not a record of ours.
	ClassLeaf Class = "leaf"
	// ClassRoot is a commit whose tree is not that of the records before it.
	ClassRoot Class = "root"
	// ClassSignature is a checkpoint the expected key's signature does not fit.
	ClassSignature Class = "signature"
	// ClassMissing is a file that must be there and is not.
	ClassMissing Class = "missing"
	// ClassOrigin is a log of another name.
	ClassOrigin Class = "origin"
	// ClassRollback is a log shorter than it was known to be.
	ClassRollback Class = "rollback"
	// ClassKey is a checkpoint that carries no signature by the expected key.
	ClassKey Class = "key"
)

// Damage is damage to a log and its place. It matches ErrDamaged.
type Damage struct {
	Class Class
	// Segment is the file, relative to the log's directory or as given for an
	// output log.
	Segment string
	// Offset is where in the file the damaged frame or batch begins, in bytes.
	Offset int64
	// Index is the first record that cannot be relied on.
	Index int64
	// Detail says what was seen.
	Detail string
}

// Error is one line with class, place and detail.
func (d *Damage) Error() string {
	return fmt.Sprintf("%s damage in %s at byte %d, record %d: %s", d.Class, d.Segment, d.Offset, d.Index, d.Detail)
}

// Is makes every Damage match ErrDamaged.
func (d *Damage) Is(target error) bool { return target == ErrDamaged }

// classify gives an error of the operating system its sentinel, so that
// callers need not know errno values. The original stays in the chain.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}
