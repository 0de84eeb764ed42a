package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// grow appends n records.
func grow(t testing.TB, l *Log, n int) {
	t.Helper()
	for n > 0 {
		var rs []Record
		for range min(n, 400) {
			rs = append(rs, Record{Type: RunLost, Run: "r"})
		}
		if err := l.Post(t.Context(), rs...); err != nil {
			t.Fatal(err)
		}
		n -= len(rs)
	}
}

// tileFiles reads a published log as a client of tiles does.
type tileFiles string

// Height implements tlog.TileReader.
func (tileFiles) Height() int { return tileHeight }

// ReadTiles implements tlog.TileReader.
func (d tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range tiles {
		name := tileName(fmt.Sprint(t.L), t.N)
		if t.W < tileWidth {
			name += fmt.Sprintf(".p/%d", t.W)
		}
		b, err := os.ReadFile(filepath.Join(string(d), name))
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// SaveTiles implements tlog.TileReader.
func (tileFiles) SaveTiles([]tlog.Tile, [][]byte) {}

// checkPublished checks all of out as a stranger with the public key does.
func checkPublished(t *testing.T, out, vkey string, size int64) {
	t.Helper()
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(out, checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(b, v)
	if err != nil || c.size != size {
		t.Fatalf("checkpoint of %d, want %d: %v", c.size, size, err)
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: c.size, Hash: c.root}, tileFiles(out))
	for n := int64(0); n < size; n += tileWidth {
		name := tileName("entries", n/tileWidth)
		if w := size - n; w < tileWidth {
			name += fmt.Sprintf(".p/%d", w)
		}
		bundle, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		var indexes []int64
		var want []tlog.Hash
		for i := n; len(bundle) > 0; i++ {
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			want = append(want, tlog.RecordHash(bundle[2:end]))
			indexes = append(indexes, tlog.StoredHashIndex(0, i))
			bundle = bundle[end:]
		}
		if len(want) != int(min(tileWidth, size-n)) {
			t.Fatalf("%s holds %d records", name, len(want))
		}
		got, err := hashes.ReadHashes(indexes)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("record %d has another hash in the tiles", n+int64(i))
			}
		}
	}
	for name := range files(t, out) {
		if at, _, partial := strings.Cut(name, ".p/"); partial {
			if _, err := os.Stat(filepath.Join(out, at)); err == nil {
				t.Errorf("%s is there beside the full one", name)
			}
		}
	}
}

// files are those below dir, with their content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTileNames(t *testing.T) {
	for n, want := range map[int64]string{0: "tile/0/000", 255: "tile/0/255", 1000: "tile/0/x001/000", 1234067: "tile/0/x001/x234/067"} {
		if got := tileName("0", n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// Whatever sizes the log had when it was published, the result is what one
// publication at the end would have made.
func TestPublishGrows(t *testing.T) {
	l, dir := newLog(t)
	out := filepath.Join(t.TempDir(), "public")
	size, before := int64(1), int64(0)
	for _, n := range []int{0, 1, 253, 1, 1, 300, 0, 65536, 700} {
		grow(t, l, n)
		size += int64(n)
		p, err := Publish(dir, out, l.VKey())
		if err != nil {
			t.Fatal(err)
		}
		if p.Size != size || p.Before != before || p.Origin != l.Origin() || (p.Files == 0) != (size == before) {
			t.Fatalf("%+v, size %d, before %d", p, size, before)
		}
		checkPublished(t, out, l.VKey(), size)
		before = size
	}
	atOnce := filepath.Join(t.TempDir(), "once")
	if _, err := Publish(dir, atOnce, l.VKey()); err != nil {
		t.Fatal(err)
	}
	want, got := files(t, atOnce), files(t, out)
	for name, b := range want {
		if got[name] != b {
			t.Errorf("%s differs from what one publication makes", name)
		}
	}
}

func TestPublishRefusesAnotherPast(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, dir, origin string)
		class  Class
	}{
		"cut":               {func(t *testing.T, dir, _ string) { cutTo(t, dir, pThird) }, ClassRollback},
		"rewritten, signed": {func(t *testing.T, dir, _ string) { forge(t, dir, pThird+2) }, ClassRoot},
		"cut and rewritten": {func(t *testing.T, dir, _ string) {
			ps := split(t, readSegment(t, dir, 0))
			ps = append(ps[:pSecond:pSecond], ps[pSecond+1:]...) // one record less: no commit has the old size
			writeSegment(t, dir, 0, join(rewrite(t, append(ps, ps[pFirst:pFirst+3]...), ownSigner(t, dir))))
		}, ClassRoot},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vkey, _ := tamperLog(t)
			out := filepath.Join(t.TempDir(), "public")
			if _, err := Publish(dir, out, vkey); err != nil {
				t.Fatal(err)
			}
			seen := files(t, out)
			tt.change(t, dir, "")
			_, err := Publish(dir, out, vkey)
			damaged(t, err, tt.class)
			_, err = Verify(dir, Expect{VKey: vkey, Checkpoints: [][]byte{[]byte(seen[checkpointFile])}})
			damaged(t, err, tt.class)
			if now := files(t, out); now[checkpointFile] != seen[checkpointFile] {
				t.Error("the checkpoint was replaced")
			}
			// Nobody who has not seen the old one can tell.
			if _, err := Verify(dir, Expect{VKey: vkey}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// cutTo leaves the first n parts of the log.
func cutTo(t *testing.T, dir string, n int) {
	t.Helper()
	writeSegment(t, dir, 0, join(split(t, readSegment(t, dir, 0))[:n]))
}

// forge rewrites the log from its third batch on, with its own key, up to and
// with part n.
func forge(t *testing.T, dir string, n int) {
	t.Helper()
	ps := split(t, readSegment(t, dir, 0))[:n+1]
	ps[pFirst+1] = part{kindRecord, bytes.Replace(ps[pFirst+1].payload, []byte(`"code":0`), []byte(`"code":9`), 1), 0}
	writeSegment(t, dir, 0, join(rewrite(t, ps, ownSigner(t, dir))))
}

func ownSigner(t *testing.T, dir string) note.Signer {
	t.Helper()
	s, err := loadKey(filepath.Join(dir, journalDir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPublishUnderTheLogsKeyAlone(t *testing.T) {
	dir, vkey, ps := tamperLog(t)
	_, other := forger(t, mustOrigin(t, join(ps)))
	out := filepath.Join(t.TempDir(), "public")
	_, err := Publish(dir, out, other)
	damaged(t, err, ClassKey)
	if _, err := os.Stat(filepath.Join(out, checkpointFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a checkpoint was published: %v", err)
	}
	// A checkpoint that somebody else put there is not continued.
	if err := os.WriteFile(filepath.Join(out, checkpointFile), []byte("x\n1\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Publish(dir, out, vkey); err == nil {
		t.Fatal("a foreign checkpoint was continued")
	}
}

// A link that leads out of the directory is not followed.
func TestPublishStaysInside(t *testing.T) {
	dir, vkey, _ := tamperLog(t)
	for _, name := range []string{"tile", "tile/0", ".new"} {
		out, decoy := filepath.Join(t.TempDir(), "public"), t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(out, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(decoy, filepath.Join(out, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := Publish(dir, out, vkey); err == nil {
			t.Errorf("%s: published through a link", name)
		}
		if got := files(t, decoy); len(got) != 0 {
			t.Errorf("%s: the link's target has %v", name, got)
		}
	}
}

func TestConsistency(t *testing.T) {
	l, dir := newLog(t)
	v, err := note.NewVerifier(l.VKey())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]checkpoint{}
	for range 6 {
		grow(t, l, 3)
		r := verified(t, dir, l.VKey())
		c, err := parseCheckpoint(r.Checkpoint, v)
		if err != nil {
			t.Fatal(err)
		}
		seen[c.size] = c
	}
	for old, c := range seen {
		b, err := Consistency(dir, l.VKey(), old)
		if err != nil {
			t.Fatal(err)
		}
		head, signed, _ := strings.Cut(string(b), "\n\n")
		lines := strings.Split(head, "\n")
		if lines[0] != fmt.Sprintf("old %d", old) {
			t.Fatal(lines[0])
		}
		var proof tlog.TreeProof
		for _, line := range lines[1:] {
			h, err := base64.StdEncoding.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			proof = append(proof, tlog.Hash(h))
		}
		now, err := parseCheckpoint([]byte(signed), v)
		if err != nil {
			t.Fatal(err)
		}
		if old != now.size {
			err = tlog.CheckTree(proof, now.size, now.root, c.size, c.root)
		} else if len(proof) > 0 {
			err = errors.New("a proof that a tree is itself")
		}
		if err != nil {
			t.Errorf("from %d: %v", old, err)
		}
	}
	for _, bad := range []int64{-1, 20} {
		if _, err := Consistency(dir, l.VKey(), bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: %v", bad, err)
		}
	}
}
