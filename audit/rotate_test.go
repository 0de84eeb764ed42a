package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestRotate keeps the newest output, in bounded files, each of which still
// verifies against the seal over everything.
func TestRotate(t *testing.T) {
	for _, files := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(files), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.log")
			o, err := CreateOutput(path)
			if err != nil {
				t.Fatal(err)
			}
			const size = maxChunk
			if err := o.Rotate(size, files); err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			for i := range 3000 {
				line := fmt.Appendf(nil, "line %d\n", i)
				want.Write(line)
				if err := o.Write(Stdout, line); err != nil {
					t.Fatal(err)
				}
			}
			seal, err := o.Seal()
			if err != nil {
				t.Fatal(err)
			}
			if err := VerifyOutput(path, seal.Anchor()); err != nil {
				t.Fatal(err)
			}
			var kept bytes.Buffer
			next := int64(-1)
			for i := files - 1; i >= 0; i-- {
				st, err := os.Stat(OutputPart(path, i))
				if err != nil || st.Size() > size+1024 {
					t.Fatalf("file %d: %v, %v", i, st, err)
				}
				err = ReadOutput(OutputPart(path, i), func(c Chunk) error {
					if next >= 0 && c.Index != next {
						t.Errorf("chunk %d after %d", c.Index, next-1)
					}
					next = c.Index + 1
					kept.Write(c.Data)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(OutputPart(path, files)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("more than %d files: %v", files, err)
			}
			if !bytes.HasSuffix(want.Bytes(), kept.Bytes()) || kept.Len() == 0 || next != seal.Chunks {
				t.Errorf("%d bytes kept are not the end of the %d written", kept.Len(), want.Len())
			}
			// A beginning that was altered does not lead to the sealed root.
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := newScanner(bytes.NewReader(b), 0).next()
			if err != nil {
				t.Fatal(err)
			}
			rest := b[len(appendFrame(nil, kindOutput, f.payload)):]
			head := bytes.Clone(f.payload)
			head[len(head)-1] ^= 1
			if err := os.WriteFile(path, append(appendFrame(nil, kindOutput, head), rest...), 0o600); err != nil {
				t.Fatal(err)
			}
			var d *Damage
			if err := VerifyOutput(path, seal.Anchor()); !errors.As(err, &d) || d.Class != ClassRoot {
				t.Errorf("an altered beginning: %v", err)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	o, err := CreateOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	o.Discard()
	if err := o.Write(Stderr, []byte("gone")); err != nil {
		t.Fatal(err)
	}
	seal, err := o.Seal()
	if err != nil || seal.Dropped != 4 || seal.Bytes != 0 {
		t.Fatalf("%+v %v", seal, err)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Fatal(err)
	}
}
