package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// What concerns whole files.
func TestTamperedFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		tamper func(t *testing.T, dir, other string)
		class  Class
		seg    uint32
	}{
		"first segment gone": {func(t *testing.T, dir, _ string) { remove(t, segPath(dir, 0)) }, ClassMissing, 0},
		"middle segment gone": {func(t *testing.T, dir, _ string) {
			remove(t, segPath(dir, 1))
		}, ClassMissing, 1},
		"segments gone": {func(t *testing.T, dir, _ string) { remove(t, filepath.Join(dir, journalDir, logDir)) }, ClassMissing, 0},
		"segments exchanged": {func(t *testing.T, dir, _ string) {
			a, b := readSegment(t, dir, 0), readSegment(t, dir, 1)
			writeSegment(t, dir, 0, b)
			writeSegment(t, dir, 1, a)
		}, ClassFrame, 0},
		"header says another first record": {func(t *testing.T, dir, _ string) {
			ps := split(t, readSegment(t, dir, 1))
			ps[0].payload[8+4+4+7]++
			writeSegment(t, dir, 1, join(ps))
		}, ClassFrame, 1},
		"segment of another log": {func(t *testing.T, dir, other string) {
			writeSegment(t, dir, 1, readSegment(t, other, 1))
		}, ClassOrigin, 1},
		"all of another log": {func(t *testing.T, dir, other string) {
			for n := range uint32(3) {
				writeSegment(t, dir, n, readSegment(t, other, n))
			}
		}, ClassOrigin, 0},
		"segment cut at a commit": {func(t *testing.T, dir, _ string) {
			b := readSegment(t, dir, 0)
			writeSegment(t, dir, 0, b[:len(b)-commitAndRecord(t, b)])
		}, ClassRollback, 0},
		"last segment gone": {func(t *testing.T, dir, _ string) { remove(t, segPath(dir, 2)) }, ClassRollback, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vkey, size := threeSegments(t)
			other, _, _ := threeSegments(t)
			if _, err := Verify(dir, Expect{VKey: vkey, MinSize: size}); err != nil {
				t.Fatal(err)
			}
			tt.tamper(t, dir, other)
			_, err := Verify(dir, Expect{VKey: vkey, MinSize: size})
			if d := damaged(t, err, tt.class); d.Segment != segmentName(tt.seg) {
				t.Fatal(d)
			}
		})
	}
}

// commitAndRecord is the length of the last batch of one record.
func commitAndRecord(t testing.TB, b []byte) int {
	ps := split(t, b)
	return len(b) - int(ps[len(ps)-2].off)
}

func threeSegments(t *testing.T) (dir, vkey string, size int64) {
	t.Helper()
	defer func(n int64) { segmentLimit = n }(segmentLimit)
	segmentLimit = 4 << 10
	l, dir := newLog(t)
	for i := 0; ; i++ {
		if ns, err := segments(filepath.Join(dir, journalDir)); err != nil {
			t.Fatal(err)
		} else if len(ns) == 3 {
			return dir, l.VKey(), verified(t, dir, l.VKey()).Size
		}
		intend(t, l, fmt.Sprint(i))
	}
}

// Rotation keeps one tree: every record can be proved under the last checkpoint.
func TestSegmentsAreOneLog(t *testing.T) {
	dir, vkey, size := threeSegments(t)
	for i := range size {
		r, err := Prove(dir, i)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := r.Verify(vkey); err != nil || s.TreeSize != size {
			t.Fatal(s, err)
		}
	}
	l := openLog(t, dir)
	intend(t, l, "on")
	if r := verified(t, dir, vkey); r.Size != size+1 || r.Segments != 3 {
		t.Fatalf("%+v", r)
	}
}

func TestVerifierBringsWhatItKnows(t *testing.T) {
	dir, vkey, _ := tamperLog(t)
	if _, err := Verify(dir, Expect{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
	if _, err := Verify(dir, Expect{VKey: "nonsense"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("bad key: %v", err)
	}
	_, err := Verify(dir, Expect{VKey: vkeyOf(t)})
	damaged(t, err, ClassOrigin)
	_, err = Verify(dir, Expect{VKey: vkey, Origin: "ward/other/0"})
	damaged(t, err, ClassOrigin)
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	_, forged := forger(t, v.Name())
	_, err = Verify(dir, Expect{VKey: forged})
	damaged(t, err, ClassKey)
	_, err = Verify(dir, Expect{VKey: vkey, MinSize: 8})
	damaged(t, err, ClassRollback)
	if r, err := Verify(dir, Expect{VKey: vkey, MinSize: 7, Origin: v.Name()}); err != nil || r.Size != 7 {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := Verify(t.TempDir(), Expect{VKey: vkey}); !errors.Is(err, ErrNoLog) {
		t.Errorf("no log: %v", err)
	}
}

// What docs/audit-format.md says is not detected: this test fails the day one
// of these claims becomes untrue, in either direction.
func TestWhatIsNotDetected(t *testing.T) {
	t.Run("the holder of the key rewrites", func(t *testing.T) {
		dir, vkey, ps := tamperLog(t)
		ps[pSecond] = edited(ps[pSecond])
		writeSegment(t, dir, 0, join(rewrite(t, ps, testSigner(t, dir))))
		if _, err := Verify(dir, Expect{VKey: vkey, MinSize: 7, EverySignature: true}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("cut at a commit the verifier has not seen", func(t *testing.T) {
		dir, vkey, ps := tamperLog(t)
		writeSegment(t, dir, 0, join(ps[:pThird]))
		if _, err := Verify(dir, Expect{VKey: vkey, MinSize: 5}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("an earlier signature, unless asked for", func(t *testing.T) {
		dir, vkey, ps := tamperLog(t)
		b := ps[pFirst+2].payload
		b[len(b)-4-20] ^= 1 // base64 of the signature
		writeSegment(t, dir, 0, join(ps))
		if _, err := Verify(dir, Expect{VKey: vkey}); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(dir, Expect{VKey: vkey, EverySignature: true})
		damaged(t, err, ClassSignature)
	})
}

// A record in the tree that is none of ours: only the holder of the key can
// have put it there, and reading says so.
func TestForeignLeaf(t *testing.T) {
	for _, leaf := range []string{"not JSON", `{"v":2,"type":"x"}`, `{"v":1}`, `[]`, `{"v":1,"type":"x","time":"yesterday"}`} {
		dir, vkey, ps := tamperLog(t)
		ps[pSecond].payload = []byte(leaf)
		writeSegment(t, dir, 0, join(rewrite(t, ps, testSigner(t, dir))))
		if _, err := Verify(dir, Expect{VKey: vkey}); err != nil {
			t.Fatal(err)
		}
		n := 0
		d := damaged(t, Read(dir, 0, func(Entry) error { n++; return nil }), ClassLeaf)
		if d.Index != 3 || n != 3 {
			t.Fatalf("%s: %v after %d", leaf, d, n)
		}
	}
}

// Reading stops at damage, after everything before it, and does not go on
// behind it as if nothing were missing.
func TestReadStopsAtDamage(t *testing.T) {
	dir, _, ps := tamperLog(t)
	b := join(ps)
	b[ps[pSecond+1].off+headerLen] ^= 1
	writeSegment(t, dir, 0, b)
	n := 0
	d := damaged(t, Read(dir, 0, func(Entry) error { n++; return nil }), ClassCRC)
	if n != 3 || d.Offset != ps[pSecond+1].off {
		t.Fatalf("%d records, %v", n, d)
	}
	if _, err := Prove(dir, 0); err == nil {
		t.Fatal("a damaged log gave a proof")
	}
	if _, err := os.Stat(segPath(dir, 0)); err != nil {
		t.Fatal(err)
	}
}
