package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fsx"
)

// maxNote bounds a cosigned checkpoint, in bytes.
const maxNote = 16 << 10

// Cosigned is a checkpoint with a witness's signature, verified.
type Cosigned struct {
	// Witness is its name in the policy.
	Witness string
	// Size is how many records it is about, Time when the witness signed.
	Size int64
	Time time.Time
	// Note is the signed checkpoint.
	Note []byte
}

// open checks a cosigned checkpoint: signed by the log and by the witness.
func (w Witness) open(b []byte, log note.Verifier) (Cosigned, error) {
	n, err := note.Open(b, note.VerifierList(log, w.key))
	if err != nil {
		return Cosigned{}, err
	}
	c := Cosigned{Witness: w.Name, Note: b}
	logged, cosigned := false, false
	for _, s := range n.Sigs {
		switch {
		case s.Name == log.Name() && s.Hash == log.KeyHash():
			logged = true
		case s.Name == w.key.Name() && s.Hash == w.key.KeyHash():
			if c.Time, err = signedAt(s); err != nil {
				return Cosigned{}, err
			}
			cosigned = true
		}
	}
	if !logged || !cosigned {
		return Cosigned{}, errors.New("it is not signed by the log and the witness")
	}
	origin, size, _, err := receipt.ParseCheckpoint(n.Text)
	if err != nil || origin != log.Name() {
		return Cosigned{}, fmt.Errorf("not a checkpoint of %s", log.Name())
	}
	c.Size = size
	return c, nil
}

// file is where a witness's newest cosigned checkpoint is kept.
func (w Witness) file(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%08x", w.key.KeyHash()))
}

// last is the newest checkpoint that w cosigned, or false.
func (w Witness) last(dir string, log note.Verifier) (Cosigned, bool, error) {
	f, err := os.Open(w.file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return Cosigned{}, false, nil
	}
	if err != nil {
		return Cosigned{}, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNote+1))
	if err == nil && len(b) > maxNote {
		err = fmt.Errorf("more than %d bytes", maxNote)
	}
	var c Cosigned
	if err == nil {
		c, err = w.open(b, log)
	}
	if err != nil {
		return c, false, fmt.Errorf("%s, which witness %s is said to have signed: %w", w.file(dir), w.Name, err)
	}
	return c, true, nil
}

// Kept returns the newest checkpoint of each witness that is kept in dir,
// verified. A file that does not verify is an error, never as if it were not
// there.
func (p Policy) Kept(dir string, log note.Verifier) ([]Cosigned, error) {
	var cs []Cosigned
	for _, w := range p.Witnesses {
		c, ok, err := w.last(dir, log)
		if err != nil {
			return nil, err
		}
		if ok {
			cs = append(cs, c)
		}
	}
	return cs, nil
}

// keep stores c unless a larger one is there. Safe among processes.
func (w Witness) keep(ctx context.Context, dir string, log note.Verifier, c Cosigned) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := fsx.WaitLock(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	old, there, err := w.last(dir, log)
	if err == nil && (!there || old.Size <= c.Size) {
		err = fsx.WriteFile(w.file(dir), c.Note, 0o644)
	}
	return errors.Join(err, lock.Unlock())
}
