package audit

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// nasty output: what naive line logs lose or change.
var nasty = [][]byte{
	[]byte("line\n"), {0}, []byte("\x00\x00a\x00\n"), []byte("\x1b[31mred\x1b[0m\r\n"),
	{0xff, 0xfe, 0x80}, []byte("no newline"), []byte("{\"log\":\"x\"}\n"), bytes.Repeat([]byte{0}, 2*sector),
	bytes.Repeat([]byte("0123456789abcdef"), 3*maxChunk/16), bytes.Repeat([]byte("y"), maxChunk), {}, []byte("end"),
}

func newOutput(t testing.TB) (*Output, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.log")
	o, err := CreateOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o, path
}

// writeNasty writes to both streams in turn and returns what each got.
func writeNasty(t testing.TB, o *Output) (want map[Stream][]byte) {
	t.Helper()
	want = map[Stream][]byte{}
	for i, p := range nasty {
		s := Stdout + Stream(i%2)
		want[s] = append(want[s], p...)
		if err := o.Write(s, p); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

func TestOutputKeepsEveryByte(t *testing.T) {
	o, path := newOutput(t)
	before := time.Now()
	want := writeNasty(t, o)
	seal, err := o.Seal()
	if err != nil {
		t.Fatal(err)
	}
	got := map[Stream][]byte{}
	n := int64(0)
	err = ReadOutput(path, func(c Chunk) error {
		if c.Index != n || len(c.Data) == 0 || len(c.Data) > maxChunk || c.Time.Before(before) || c.Time.After(time.Now()) {
			t.Errorf("chunk %d: index %d, %d bytes, %v", n, c.Index, len(c.Data), c.Time)
		}
		got[c.Stream] = append(got[c.Stream], c.Data...)
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Stream{Stdout, Stderr} {
		if !bytes.Equal(got[s], want[s]) {
			t.Errorf("%v: %d bytes, want %d", s, len(got[s]), len(want[s]))
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if seal.Chunks != n || seal.OutputSize != st.Size() || seal.Stdout != int64(len(want[Stdout])) ||
		seal.Stderr != int64(len(want[Stderr])) || seal.Bytes != seal.Stdout+seal.Stderr || seal.Dropped != 0 || st.Mode().Perm() != 0o600 {
		t.Errorf("%+v, %d chunks, %v", seal, n, st)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Error(err)
	}
}

func TestEmptyOutput(t *testing.T) {
	o, path := newOutput(t)
	seal, err := o.Seal()
	if err != nil || seal.Chunks != 0 || seal.OutputRoot != (tree{}).root().String() {
		t.Fatal(seal, err)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Fatal(err)
	}
	if err := ReadOutput(path, func(Chunk) error { return errors.New("a chunk") }); err != nil {
		t.Fatal(err)
	}
}

// The root is RFC 6962 over the documented leaves, recomputed here by hand.
func TestOutputRootIsRFC6962(t *testing.T) {
	o, path := newOutput(t)
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(ix []int64) (out []tlog.Hash, err error) {
		for _, i := range ix {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for range 11 {
		if err := o.Write(Stderr, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, p := range split(t, b)[1:] {
		hs, err := tlog.StoredHashesForRecordHash(n, chunkHash(p.payload[:chunkHead], p.payload[chunkHead:]), read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		n++
	}
	want, err := tlog.TreeHash(n, read)
	if size, root := o.Root(); err != nil || size != 11 || root != want.String() {
		t.Fatal(size, root, want, err)
	}
}

func TestOutputTamperMatrix(t *testing.T) {
	for name, tt := range map[string]struct {
		tamper func(ps []part) []byte
		class  Class
	}{
		"bit flipped":     {func(ps []part) []byte { b := join(ps); b[ps[3].off+headerLen+chunkHead] ^= 1; return b }, ClassCRC},
		"byte changed":    {func(ps []part) []byte { ps[3].payload[chunkHead] ^= 1; return join(ps) }, ClassRoot},
		"time changed":    {func(ps []part) []byte { ps[3].payload[8] ^= 1; return join(ps) }, ClassRoot},
		"stream changed":  {func(ps []part) []byte { ps[3].payload[0] ^= 3; return join(ps) }, ClassRoot},
		"salt changed":    {func(ps []part) []byte { ps[3].payload[20] ^= 1; return join(ps) }, ClassRoot},
		"no such stream":  {func(ps []part) []byte { ps[3].payload[0] = 9; return join(ps) }, ClassFrame},
		"chunk deleted":   {func(ps []part) []byte { return join(slices.Delete(ps, 3, 4)) }, ClassRollback},
		"chunk repeated":  {func(ps []part) []byte { return join(append(ps, ps[3])) }, ClassRoot},
		"chunks moved":    {func(ps []part) []byte { ps[3], ps[4] = ps[4], ps[3]; return join(ps) }, ClassRoot},
		"last chunk gone": {func(ps []part) []byte { return join(ps[:len(ps)-1]) }, ClassRollback},
		"end cut":         {func(ps []part) []byte { b := join(ps); return b[:len(b)-1] }, ClassTorn},
		"kind changed":    {func(ps []part) []byte { ps[3].kind = kindRecord; return join(ps) }, ClassFrame},
		"header gone":     {func(ps []part) []byte { return join(ps[1:]) }, ClassFrame},
		"emptied":         {func([]part) []byte { return nil }, ClassRollback},
	} {
		t.Run(name, func(t *testing.T) {
			o, path := newOutput(t)
			writeNasty(t, o)
			seal, err := o.Seal()
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.tamper(split(t, b)), 0o600); err != nil {
				t.Fatal(err)
			}
			damaged(t, VerifyOutput(path, seal.Anchor()), tt.class)
		})
	}
	damaged(t, VerifyOutput(filepath.Join(t.TempDir(), "gone"), Anchor{}), ClassMissing)
}

// A reader that follows sees each chunk once, also across an unfinished one.
func TestOutputFollow(t *testing.T) {
	o, path := newOutput(t)
	r, err := OpenOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 3 {
		if _, err := r.Next(); err != io.EOF {
			t.Fatal(err)
		}
		for _, s := range []string{"one", "two"} {
			if err := o.Write(Stdout, []byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		for j, s := range []string{"one", "two"} {
			c, err := r.Next()
			if err != nil || string(c.Data) != s || c.Index != int64(2*i+j) {
				t.Fatal(c, err)
			}
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	more := appendFrame(bytes.Clone(whole), kindChunk, append([]byte{byte(Stdout)}, make([]byte, chunkHead-1)...), []byte("late"))
	for n := len(whole) + 1; n < len(more); n++ {
		if err := os.WriteFile(path, more[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := r.Next()
		damaged(t, err, ClassTorn)
	}
	if err := os.WriteFile(path, more, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := r.Next(); err != nil || string(c.Data) != "late" {
		t.Fatal(c, err)
	}
}

func TestOutputLimitIsCounted(t *testing.T) {
	o, path := newOutput(t)
	o.Limit(10)
	for _, s := range []string{"12345", "67890abc", "defg"} {
		if err := o.Write(Stdout, []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	seal, err := o.Seal()
	if err != nil || seal.Bytes != 10 || seal.Dropped != 7 || seal.Chunks != 2 {
		t.Fatalf("%+v %v", seal, err)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Fatal(err)
	}
}

func TestOutputRefuses(t *testing.T) {
	o, path := newOutput(t)
	if _, err := CreateOutput(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if err := o.Write(3, []byte("x")); !errors.Is(err, ErrInvalid) {
		t.Errorf("stream 3: %v", err)
	}
	if _, err := o.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := o.Write(Stdout, []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("after the seal: %v", err)
	}
	if err := ReadOutput(segPathOf(t), func(Chunk) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("a journal: %v", err)
	}
}

func segPathOf(t *testing.T) string {
	_, dir := newLog(t)
	return segPath(dir, 0)
}

// On a full disk no chunk is half written, what is lost is counted, and output
// goes on once there is space.
func TestOutputOnFullDisk(t *testing.T) {
	dir := mounted(t, "size=256k")
	path := dir + "/out.log"
	o, err := CreateOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	big := []byte(strings.Repeat("x", 100<<10))
	var lost int64
	for range 5 {
		if err := o.Write(Stdout, big); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("the disk did not fill")
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := o.Write(Stderr, []byte("again")); err != nil {
		t.Fatal(err)
	}
	seal, err := o.Seal()
	if err != nil || seal.Bytes+seal.Dropped != int64(5*len(big)+5) || seal.Stderr != 5 {
		t.Fatalf("%+v %v", seal, err)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Fatal(err)
	}
}

// A payload that writes byte by byte costs a whole chunk for each: the bound is
// one of disk space, not only of what the payload said.
func TestOutputLimitCountsFraming(t *testing.T) {
	o, path := newOutput(t)
	const limit = 256 << 10
	o.Limit(limit)
	const wrote = 64 << 10
	for range wrote {
		if err := o.Write(Stdout, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	seal, err := o.Seal()
	if err != nil || seal.Bytes+seal.Dropped != wrote || seal.Dropped == 0 {
		t.Fatalf("%+v %v", seal, err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 2*limit+2*maxChunk {
		t.Errorf("%d bytes on disk for a limit of %d (%v)", st.Size(), limit, err)
	}
	if err := VerifyOutput(path, seal.Anchor()); err != nil {
		t.Fatal(err)
	}
}
