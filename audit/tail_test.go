package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// damaged asserts that err is Damage of one of the classes.
func damaged(t testing.TB, err error, classes ...Class) *Damage {
	t.Helper()
	var d *Damage
	if !errors.As(err, &d) || !errors.Is(err, ErrDamaged) {
		t.Fatalf("not damage: %v", err)
	}
	for _, c := range classes {
		if d.Class == c {
			return d
		}
	}
	t.Fatalf("class %s, want %v: %v", d.Class, classes, d)
	return nil
}

// lastBatch returns a log of three records, its segment, and where the last
// batch of two records begins.
func lastBatch(t testing.TB) (dir, vkey string, whole []byte, from int) {
	l, dir := newLog(t)
	intend(t, l, "before")
	from = len(readSegment(t, dir, 0))
	err := l.Append(t.Context(),
		Record{Type: RunStart, Run: "r", Actor: Caller(), Data: Start{PID: 7}},
		Record{Type: RunExit, Run: "r", Actor: Caller(), Data: Exit{Code: 3}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, l.VKey(), readSegment(t, dir, 0), from
}

// tornAfter says whether a writer would recover b, whose last whole commit
// ends at from.
func tornAfter(t testing.TB, b []byte, from int) bool {
	t.Helper()
	_, end, err := scanCommits(bytes.NewReader(b), mustOrigin(t, b))
	var fe *frameError
	if err == nil {
		return end == int64(from) // whole frames, no commit
	}
	if !errors.As(err, &fe) || end != int64(from) {
		t.Fatalf("last commit ends at %d, not %d: %v", end, from, err)
	}
	return torn(b[end:], int(fe.off-end), end)
}

// Every prefix of the last write is what a crash can leave: it is torn to a
// verifier, recovered by the next writer, and the evidence is kept.
func TestEveryTruncationRecovers(t *testing.T) {
	dir, vkey, whole, from := lastBatch(t)
	for n := from + 1; n < len(whole); n++ {
		if !tornAfter(t, whole[:n], from) {
			t.Fatalf("cut at %d is taken for damage", n)
		}
	}
	// The same on disk, for some: each costs several flushes.
	for n := from; n <= len(whole); n = min(n+7, max(len(whole), n+1)) {
		writeSegment(t, dir, 0, whole[:n])
		clean := n == from || n == len(whole)
		want := int64(2) // genesis and the intent before
		if n == len(whole) {
			want = 4
		}
		r, err := Verify(dir, Expect{VKey: vkey})
		if !clean {
			d := damaged(t, err, ClassTorn)
			if d.Segment != segmentName(0) || d.Offset < int64(from) || d.Offset > int64(n) {
				t.Fatalf("cut at %d: %v", n, d)
			}
		} else if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if r.Size != want {
			t.Fatalf("cut at %d: size %d", n, r.Size)
		}
		l, err := Open(dir)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		intend(t, l, "after")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		es := entries(t, dir)
		if got := verified(t, dir, vkey).Size; got != int64(len(es)) {
			t.Fatalf("cut at %d: %d records read, %d verified", n, len(es), got)
		}
		if clean {
			if int64(len(es)) != want+1 {
				t.Fatalf("cut at %d: %d records", n, len(es))
			}
			continue
		}
		checkRecovered(t, dir, es[2], whole[from:n])
		if len(es) != 4 || es[3].Type != RunIntent {
			t.Fatalf("cut at %d: %d records", n, len(es))
		}
	}
}

// checkRecovered asserts that e says that the bytes lost were put aside, and
// that they were.
func checkRecovered(t testing.TB, dir string, e Entry, lost []byte) {
	t.Helper()
	if e.Type != LogRecovered {
		t.Fatalf("record %d is %s", e.Index, e.Type)
	}
	var r Recovered
	decode(t, e.Data, &r)
	kept, err := os.ReadFile(filepath.Join(dir, journalDir, r.Evidence))
	if err != nil || !bytes.Equal(kept, lost) || r.Bytes != int64(len(lost)) || r.Reason != "torn" {
		t.Fatalf("evidence %q of %d bytes: %+v, %v", kept, len(lost), r, err)
	}
}

// No flipped bit of the last batch passes for a crash: the writer refuses, and
// so does the verifier, at the right place.
func TestEveryBitFlipIsRefused(t *testing.T) {
	dir, vkey, whole, from := lastBatch(t)
	for i := from; i < len(whole); i++ {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			if tornAfter(t, b, from) {
				t.Fatalf("flip of bit %d of byte %d is taken for a crash", bit, i)
			}
			if bit != i%8 {
				continue // one bit of each byte on disk too
			}
			writeSegment(t, dir, 0, b)
			_, err := Verify(dir, Expect{VKey: vkey})
			d := damaged(t, err, ClassCRC, ClassFrame, ClassTorn)
			if d.Offset < int64(from) || d.Offset > int64(i) || d.Index < 2 || d.Index > 4 {
				t.Fatalf("flip of bit %d of byte %d: %v", bit, i, d)
			}
			l, err := Open(dir)
			if err == nil {
				// The end of the file decides whether a writer goes on; a flip
				// in a record before an intact commit is the verifier's to find.
				l.Close()
				if i >= len(whole)-commitLen(t, whole) {
					t.Fatalf("flip of bit %d of byte %d: opened", bit, i)
				}
			} else if damaged(t, err, ClassCRC, ClassFrame, ClassTorn); !bytes.Equal(readSegment(t, dir, 0), b) {
				t.Fatalf("flip of bit %d of byte %d: the file was changed", bit, i)
			}
		}
	}
	if es, err := os.ReadDir(filepath.Join(dir, journalDir, tornDir)); err != nil || len(es) != 0 {
		t.Fatalf("something was recovered: %v %v", es, err)
	}
}

// commitLen is the length of the commit frame that ends b.
func commitLen(t testing.TB, b []byte) int {
	t.Helper()
	_, n, err := lastCommit(b, mustOrigin(t, b))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustOrigin(t testing.TB, b []byte) string {
	t.Helper()
	f, err := newScanner(bytes.NewReader(b), 0).next()
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseSegmentHeader(f.payload)
	if err != nil {
		t.Fatal(err)
	}
	return h.origin
}

// A file that was extended but not filled, wholly or in single sectors, is
// what a power cut leaves.
func TestUnwrittenSectorsRecover(t *testing.T) {
	dir, vkey, whole, from := lastBatch(t)
	first := (from + sector - 1) / sector * sector
	for at := first; at+sector <= len(whole); at += sector {
		for name, to := range map[string]int{"one sector": at + sector, "all from there": len(whole)} {
			b := bytes.Clone(whole)
			clear(b[at:to])
			if to == len(whole) {
				clear(b[at:])
			}
			writeSegment(t, dir, 0, b)
			l, err := Open(dir)
			if holdsCommit(b[at:]) { // the commit survived, its record did not
				if err == nil {
					l.Close()
				}
				_, err := Verify(dir, Expect{VKey: vkey})
				damaged(t, err, ClassCRC, ClassFrame)
				continue
			}
			if err != nil {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			l.Close()
			es := entries(t, dir)
			checkRecovered(t, dir, es[2], b[from:])
			verified(t, dir, vkey)
		}
	}
}

// Sectors are written in any order: a record whose length is right may lack one
// of its sectors, if its commit did not arrive either.
func TestTornBySector(t *testing.T) {
	l, dir := newLog(t)
	from := len(readSegment(t, dir, 0))
	if err := l.Append(t.Context(), Record{Type: RunExit, Run: "r", Data: Exit{Error: strings.Repeat("x", 4<<10)}}); err != nil {
		t.Fatal(err)
	}
	whole := readSegment(t, dir, 0)
	at := (from + 2*sector) / sector * sector
	for name, tt := range map[string]struct {
		spoil func(b []byte) []byte
		want  bool
	}{
		"sector missing, commit cut":    {func(b []byte) []byte { clear(b[at : at+sector]); return b[:len(b)-3] }, true},
		"sector missing, commit whole":  {func(b []byte) []byte { clear(b[at : at+sector]); return b }, false},
		"sector missing, end unwritten": {func(b []byte) []byte { clear(b[at : at+sector]); clear(b[len(b)-8:]); return b }, true},
		"zeros that are no sector":      {func(b []byte) []byte { clear(b[at+1 : at+sector]); return b[:len(b)-3] }, false},
		"end unwritten":                 {func(b []byte) []byte { clear(b[len(b)-20:]); return b }, true},
		"byte changed, commit cut":      {func(b []byte) []byte { b[at] ^= 1; return b[:len(b)-3] }, false},
	} {
		if got := tornAfter(t, tt.spoil(bytes.Clone(whole)), from); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A recovery that is itself interrupted is recovered, with both tails kept.
func TestInterruptedRecoveryRecovers(t *testing.T) {
	l, dir := newLog(t)
	from := len(readSegment(t, dir, 0))
	var many []Record
	for range 40 {
		many = append(many, Record{Type: RunOOM, Run: "r", Data: OOM{Kills: 1}})
	}
	if err := l.Append(t.Context(), many...); err != nil {
		t.Fatal(err)
	}
	l.Close()
	old := readSegment(t, dir, 0)
	old = old[:len(old)-1]
	writeSegment(t, dir, 0, old)
	openLog(t, dir).Close()
	recovered := readSegment(t, dir, 0)
	verified(t, dir, l.VKey())
	if len(recovered) != len(old) {
		t.Fatalf("recovery covers %d of %d bytes", len(recovered), len(old))
	}
	for n := from; n < len(recovered); n += 61 {
		if n-from < headerLen+minPad {
			continue // less than the mark of a recovery: writes are cut at pages
		}
		b := append(bytes.Clone(recovered[:n]), old[n:]...)
		writeSegment(t, dir, 0, b)
		r, err := Open(dir)
		if err != nil {
			t.Fatalf("recovery cut at %d: %v", n, err)
		}
		r.Close()
		verified(t, dir, l.VKey())
	}
}
