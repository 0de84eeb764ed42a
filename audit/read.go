package audit

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ward-project/ward/audit/receipt"
)

// Read calls fn for every committed record from index from on, in order. It
// checks framing, checksums and tree as it goes and stops at the first damage
// with a *Damage, after all records before it; it does not check signatures:
// that is Verify. An error of fn ends it and is returned as it is.
func Read(dir string, from int64, fn func(Entry) error) error {
	j, err := openJournal(dir)
	if err != nil {
		return fmt.Errorf("audit log %s: %w", dir, err)
	}
	defer j.close()
	return j.walk(func(b *batch) error {
		for i, leaf := range b.leaves {
			index := b.first + int64(i)
			if index < from {
				continue
			}
			e, err := parseEntry(index, leaf)
			if err != nil {
				return b.seg.damage(ClassLeaf, b.off, index, "%v", err)
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// Prove makes a receipt for the record at index under the log's newest
// checkpoint. It reads the whole log (32 bytes of memory a record) and checks
// it like Read.
func Prove(dir string, index int64) (receipt.Receipt, error) {
	j, err := openJournal(dir)
	if err != nil {
		return receipt.Receipt{}, fmt.Errorf("audit log %s: %w", dir, err)
	}
	defer j.close()
	var g grown
	var leaf, checkpoint []byte
	err = j.walk(func(b *batch) error {
		for i, l := range b.leaves {
			if b.first+int64(i) == index {
				leaf = l
			}
			g.leaves = append(g.leaves, tlog.RecordHash(l))
		}
		checkpoint = b.commit.note
		return nil
	})
	if err != nil {
		return receipt.Receipt{}, fmt.Errorf("audit log %s: %w", dir, err)
	}
	if leaf == nil {
		return receipt.Receipt{}, fmt.Errorf("audit log %s: %w: no record %d among %d", dir, ErrInvalid, index, len(g.leaves))
	}
	proof, err := g.prove(index)
	if err != nil {
		return receipt.Receipt{}, err
	}
	return receipt.New(leaf, index, int64(len(g.leaves)), proof, checkpoint), nil
}
