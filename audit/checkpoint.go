package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ward-project/ward/audit/receipt"
)

// checkpoint is a signed tree head that was checked. The zero value is the
// empty tree's, which needs no signature.
type checkpoint struct {
	size int64
	root tlog.Hash
}

// parseCheckpoint opens a signed checkpoint under v, of the log that v names.
func parseCheckpoint(b []byte, v note.Verifier) (checkpoint, error) {
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil {
		return checkpoint{}, err
	}
	origin, size, root, err := receipt.ParseCheckpoint(n.Text)
	if err != nil || origin != v.Name() || n.Text != checkpointText(origin, size, root) {
		return checkpoint{}, fmt.Errorf("not a checkpoint of %s", v.Name())
	}
	return checkpoint{size, root}, nil
}

// continued returns a function that is to see every batch of a log, and then
// nil: its error says that the log is not one that c was signed for.
func (c checkpoint) continued() func(*batch) error {
	met := c.size == 0
	var size int64
	return func(b *batch) error {
		switch {
		case b == nil && met:
			return nil
		case b == nil && size < c.size:
			return &Damage{Class: ClassRollback, Index: size, Detail: fmt.Sprintf("%d records, a checkpoint is known of %d", size, c.size)}
		case b == nil:
			return &Damage{Class: ClassRoot, Index: c.size, Detail: fmt.Sprintf("no commit of size %d, of which a checkpoint is known", c.size)}
		}
		if size = b.commit.tree.size; size != c.size || c.size == 0 {
			return nil
		}
		if met = b.commit.root == c.root; !met {
			return b.seg.damage(ClassRoot, b.off, b.first, "the %d records up to here are others than those of a checkpoint that is known", size)
		}
		return nil
	}
}

// located gives damage that was seen only at the end the place of the last batch.
func (b *batch) located(err error) error {
	var d *Damage
	if errors.As(err, &d) {
		d.Segment, d.Offset = b.seg.name, b.commitOff
	}
	return err
}

// allContinued is continued for several.
func allContinued(seen []checkpoint) func(*batch) error {
	var each []func(*batch) error
	for _, c := range seen {
		each = append(each, c.continued())
	}
	return func(b *batch) error {
		for _, continued := range each {
			if err := continued(b); err != nil {
				return err
			}
		}
		return nil
	}
}

// Consistency proves that the log's newest tree continues the one of size old:
// the body of a C2SP tlog-witness add-checkpoint request
// (https://c2sp.org/tlog-witness), which anybody with a checkpoint of size old
// can check. It reads the whole log (32 bytes of memory a record) and checks it
// like Read, and the last checkpoint under vkey.
func Consistency(dir, vkey string, old int64) ([]byte, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("%w: verification key: %w", ErrInvalid, err)
	}
	j, err := openJournal(dir)
	if err != nil {
		return nil, fmt.Errorf("audit log %s: %w", dir, err)
	}
	defer j.close()
	var g grown
	var last *batch
	err = j.walk(func(b *batch) error {
		for _, l := range b.leaves {
			g.leaves = append(g.leaves, tlog.RecordHash(l))
		}
		last = b
		return nil
	})
	if err == nil && last == nil {
		err = ErrNoLog
	}
	if err == nil {
		err = last.checkSignature(v)
	}
	if err != nil {
		return nil, fmt.Errorf("audit log %s: %w", dir, err)
	}
	size := last.commit.tree.size
	if old < 0 || old > size {
		return nil, fmt.Errorf("audit log %s: %w: it has %d records, not %d", dir, ErrInvalid, size, old)
	}
	var proof tlog.TreeProof
	if old > 0 && old < size { // nothing follows from, or to, the same or an empty tree
		if proof, err = tlog.ProveTree(size, old, g); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintln(&out, base64.StdEncoding.EncodeToString(h[:]))
	}
	out.WriteByte('\n')
	out.Write(last.commit.note)
	return out.Bytes(), nil
}
