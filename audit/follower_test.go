package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func follow(t testing.TB, dir, vkey string, at Position) *Follower {
	t.Helper()
	f, err := NewFollower(dir, vkey, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Every record comes once, over segments, with a reader that is stopped and
// goes on from its written-down position after each call.
func TestFollowerResumesAnywhere(t *testing.T) {
	dir, vkey, size := threeSegments(t)
	want := entries(t, dir)
	var at Position
	var got []Committed
	for {
		f := follow(t, dir, vkey, at)
		out, err := f.Next(1)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) == 0 {
			break
		}
		got = append(got, out...)
		b, err := json.Marshal(f.Position())
		if err != nil {
			t.Fatal(err)
		}
		at = Position{}
		if err := json.Unmarshal(b, &at); err != nil {
			t.Fatal(err)
		}
	}
	if int64(len(got)) != size || at.Size() != size {
		t.Fatalf("%d records, position %v, want %d", len(got), at, size)
	}
	for i, c := range got {
		if c.Index != int64(i) || string(c.Leaf) != string(want[i].Leaf) || c.Hash != tlog.RecordHash(c.Leaf) || c.TreeSize <= c.Index {
			t.Fatalf("record %d: %+v", i, c)
		}
	}
	if origin, n, err := Head(dir); err != nil || n != size || origin != at.Origin() {
		t.Fatal(origin, n, err)
	}
}

// Readers beside writers of several processes see every record and no damage.
func TestFollowerBesideWriters(t *testing.T) {
	l, dir := newLog(t)
	vkey := l.VKey()
	var cmds []interface{ Wait() error }
	for range 3 {
		cmd := childCommand(t, nil, "intend", dir, "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	f, next := follow(t, dir, vkey, Position{}), int64(0)
	end := time.Now().Add(time.Minute)
	for next < 181 && time.Now().Before(end) {
		out, err := f.Next(7)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out {
			if c.Index != next {
				t.Fatalf("record %d, want %d", c.Index, next)
			}
			next++
		}
	}
	for _, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if next != 181 {
		t.Fatalf("%d records", next)
	}
}

// A reader that is stopped must not stop writers: it never takes the lock.
func TestFollowerTakesNoLock(t *testing.T) {
	_, dir := newLog(t)
	prefix, trace := straced(t, "-y", "-e", "trace=flock,fcntl,openat,fdatasync")
	cmd := childCommand(t, prefix, "follow", dir, mustVKey(t, dir))
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Fatalf("%s %v", out, err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); strings.Contains(s, "flock(") || strings.Contains(s, "F_SETLK") || strings.Contains(s, journalDir+"/"+lockFile) || !strings.Contains(s, "fdatasync(") {
		t.Fatal(s)
	}
}

func mustVKey(t testing.TB, dir string) string {
	t.Helper()
	k, err := VKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The last write cut off at every byte: what came before is read, the rest is
// waited for, and once a writer has recovered it the reader goes on.
func TestFollowerWaitsForATornTail(t *testing.T) {
	dir, vkey, whole, from := lastBatch(t)
	for cut := from; cut < len(whole); cut += 13 {
		writeSegment(t, dir, 0, whole[:cut])
		f := follow(t, dir, vkey, Position{})
		n := 0
		for {
			out, err := f.Next(100)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if len(out) == 0 {
				break
			}
			n += len(out)
		}
		if n != 2 {
			t.Fatalf("cut at %d: %d records", cut, n)
		}
		if _, size, err := Head(dir); err != nil || size != 2 {
			t.Fatal(size, err)
		}
		intend(t, openLog(t, dir), "after")
		out, err := f.Next(100)
		if err != nil || len(out) == 0 || out[len(out)-1].Run != "after" || cut > from && out[0].Type != LogRecovered {
			t.Fatalf("cut at %d: %v, %v", cut, out, err)
		}
	}
}

// recoded is a record of the first batch with another exit status, and as long
// as it was: so the reader stands between two frames all the same.
func recoded(p part) part {
	return part{p.kind, bytes.Replace(p.payload, []byte(`"code":0`), []byte(`"code":9`), 1), 0}
}

// TestFollowerNamesDamage changes the log before and behind where a reader
// stands; nothing of what is bad is given out.
func TestFollowerNamesDamage(t *testing.T) {
	_, other := newLog(t)
	flip := func(t *testing.T, dir string, off int) {
		b := readSegment(t, dir, 0)
		b[off] ^= 4
		writeSegment(t, dir, 0, b)
	}
	for name, tt := range map[string]struct {
		tamper func(t *testing.T, dir string, ps []part)
		class  Class
	}{
		"record changed": {func(t *testing.T, dir string, ps []part) { flip(t, dir, int(ps[pSecond].off)+20) }, ClassCRC},
		"checksum mended": {func(t *testing.T, dir string, ps []part) {
			ps[pSecond] = edited(ps[pSecond])
			writeSegment(t, dir, 0, join(ps))
		}, ClassRoot},
		"tree mended": {func(t *testing.T, dir string, ps []part) {
			ps[pSecond] = edited(ps[pSecond])
			writeSegment(t, dir, 0, join(rewrite(t, ps, nil)))
		}, ClassSignature},
		"other key": {func(t *testing.T, dir string, ps []part) {
			s, _ := forger(t, mustOrigin(t, join(ps)))
			writeSegment(t, dir, 0, join(rewrite(t, ps, s)))
		}, ClassKey},
		"cut": {func(t *testing.T, dir string, ps []part) { writeSegment(t, dir, 0, join(ps[:pGenesis+2])) }, ClassRollback},
		"rewritten before": {func(t *testing.T, dir string, ps []part) {
			ps[pFirst] = recoded(ps[pFirst])
			writeSegment(t, dir, 0, join(rewrite(t, ps, testSigner(t, dir))))
		}, ClassRoot},
		"another log": {func(t *testing.T, dir string, ps []part) { writeSegment(t, dir, 0, readSegment(t, other, 0)) }, ClassRollback},
		"no file":     {func(t *testing.T, dir string, ps []part) { os.Remove(segPath(dir, 0)) }, ClassMissing},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				dir, vkey, ps := tamperLog(t)
				f := follow(t, dir, vkey, Position{})
				if out, err := f.Next(3); err != nil || len(out) != 3 {
					t.Fatal(out, err)
				}
				tt.tamper(t, dir, ps)
				out, err := []Committed(nil), error(nil)
				if restart {
					f, err = NewFollower(dir, vkey, f.Position())
				}
				for n := 1; err == nil && n > 0; n = len(out) {
					if out, err = f.Next(100); len(out) > 0 && out[0].Index != 3 {
						t.Fatal(out)
					}
				}
				class := tt.class
				if name == "other key" { // the commit it stood at is another one
					class = ClassKey
				}
				damaged(t, err, class, ClassRoot)
			}
		})
	}
	// All was read, and then it was written anew, with the log's own key.
	dir, vkey, ps := tamperLog(t)
	f := follow(t, dir, vkey, Position{})
	if out, err := f.Next(100); err != nil || len(out) != 7 {
		t.Fatal(out, err)
	}
	ps[pFirst] = recoded(ps[pFirst])
	writeSegment(t, dir, 0, join(rewrite(t, ps, testSigner(t, dir))))
	_, err := NewFollower(dir, vkey, f.Position())
	damaged(t, err, ClassRoot, ClassRollback)

	_, err = NewFollower(other, mustVKey(t, other), f.Position())
	damaged(t, err, ClassOrigin)
}

// After a failed flush the log goes on before where the reader stood: it may
// have told of records that are gone, and must not go on as if nothing was.
func TestFollowerAheadOfTheLog(t *testing.T) {
	l, dir := newLog(t)
	intend(t, l, "kept")
	f := follow(t, dir, l.VKey(), Position{})
	if _, err := f.Next(10); err != nil {
		t.Fatal(err)
	}
	b := readSegment(t, dir, 0)
	at := f.Position()
	intend(t, l, "lost")
	if out, err := f.Next(10); err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	if _, _, err := createSegment(filepath.Join(dir, journalDir), 1, at.tree, int64(len(b)), testSigner(t, dir)); err != nil {
		t.Fatal(err)
	}
	_, err := f.Next(10)
	damaged(t, err, ClassRollback)
	_, err = follow(t, dir, l.VKey(), f.Position()).Next(10)
	damaged(t, err, ClassRollback)
}

func FuzzPosition(f *testing.F) {
	f.Add([]byte(`{"origin":"ward/h/1","segment":0,"offset":9,"size":1,"frontier":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}`))
	f.Add([]byte(`{"size":-1}`))
	f.Add([]byte(`{"origin":"x","offset":-5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Position
		if json.Unmarshal(b, &p) != nil {
			return
		}
		if p.offset < 0 || p.tree.size < 0 {
			t.Fatal(p)
		}
		p.tree.root()
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q Position
		if err := json.Unmarshal(again, &q); err != nil || fmt.Sprint(p) != fmt.Sprint(q) {
			t.Fatal(p, q, err)
		}
	})
}
