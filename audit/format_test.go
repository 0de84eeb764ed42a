package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	flog "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/audit"
)

// thirdParty verifies a log of one segment as docs/audit-format.md says, with
// other people's tree and checkpoint code and none of this package's.
func thirdParty(b []byte, vkey string) (size uint64, err error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	var checkpoint []byte
	for at := 0; len(b) > 0; at++ {
		if len(b) < 9 || uint64(binary.BigEndian.Uint32(b))+9 > uint64(len(b)) {
			return 0, fmt.Errorf("frame %d is cut off", at)
		}
		n := int(binary.BigEndian.Uint32(b))
		kind, p := b[8], b[9:9+n]
		sum := append(append(bytes.Clone(b[:4]), kind), p...)
		if crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[4:]) {
			return 0, fmt.Errorf("checksum of frame %d", at)
		}
		b = b[9+n:]
		switch {
		case kind == 0 && bytes.Count(p, []byte{0xff}) == n:
		case kind == 1 && at > 1 && n <= 61440:
			if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(p), nil); err != nil {
				return 0, err
			}
		case kind == 2 && at > 0:
			if checkpoint, err = checkCommit(p, tree, v.Name()); err != nil {
				return 0, fmt.Errorf("frame %d: %w", at, err)
			}
			if len(b) == 0 {
				cp, _, _, err := flog.ParseCheckpoint(checkpoint, v.Name(), v)
				if err != nil {
					return 0, err
				}
				return cp.Size, nil
			}
		case kind == 3 && at == 0 && bytes.HasPrefix(p, []byte("wardlog1")) && string(p[34:]) == v.Name():
		default:
			return 0, fmt.Errorf("frame %d of kind %d out of place", at, kind)
		}
	}
	return 0, fmt.Errorf("no commit at the end")
}

// checkCommit compares a commit with the tree so far and returns its note.
func checkCommit(p []byte, tree *compact.Range, origin string) ([]byte, error) {
	size, k := binary.BigEndian.Uint64(p), int(p[40])
	root := sha256.Sum256(nil)
	if tree.End() > 0 {
		r, err := tree.GetRootHash(nil)
		if err != nil {
			return nil, err
		}
		copy(root[:], r)
	}
	if size != tree.End() || !bytes.Equal(p[8:40], root[:]) || k != bits.OnesCount64(size) {
		return nil, fmt.Errorf("size %d or root is not the tree's", size)
	}
	for i, h := range tree.Hashes() {
		if !bytes.Equal(p[41+32*i:][:32], h) {
			return nil, fmt.Errorf("hash %d of the frontier", i)
		}
	}
	rest := p[41+32*k:]
	m := int(binary.BigEndian.Uint16(rest))
	if len(rest) != 2+m+4 || int(binary.BigEndian.Uint32(rest[2+m:])) != 9+len(p) {
		return nil, fmt.Errorf("length")
	}
	text := fmt.Sprintf("%s\n%d\n%s\n\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
	if !bytes.HasPrefix(rest[2:2+m], []byte(text)) {
		return nil, fmt.Errorf("checkpoint %q", rest[2:2+m])
	}
	return rest[2 : 2+m], nil
}

// The document is enough: a verifier written from it alone agrees with ours.
func TestFormatIsAsDocumented(t *testing.T) {
	dir := t.TempDir()
	if err := audit.Create(audit.Config{Dir: dir, Host: "h"}); err != nil {
		t.Fatal(err)
	}
	seg := filepath.Join(dir, "journal/log/00000000.seg")
	var vkey string
	for round := range 3 {
		l, err := audit.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		vkey = l.VKey()
		for i := range 5 {
			r := audit.Record{Type: audit.RunExit, Run: fmt.Sprint(i), Data: audit.Exit{Code: i}}
			if err := l.Append(t.Context(), r, r, r); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		// A torn write each round, so that there is padding too.
		st, err := os.Stat(seg)
		if err != nil {
			t.Fatal(err)
		}
		if round < 2 {
			if err := os.Truncate(seg, st.Size()-100); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Verify(dir, audit.Expect{VKey: vkey})
	if err != nil {
		t.Fatal(err)
	}
	size, err := thirdParty(b, vkey)
	if err != nil || size != uint64(r.Size) || size != 1+12+1+12+1+15 {
		t.Fatalf("third party: %d records, ours %d: %v", size, r.Size, err)
	}
	for _, i := range []int{12, len(b) / 2, len(b) - 200, len(b) - 1} {
		b[i] ^= 1
		if _, err := thirdParty(b, vkey); err == nil {
			t.Errorf("byte %d changed", i)
		}
		b[i] ^= 1
	}
}
