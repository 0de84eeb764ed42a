package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func decode(t testing.TB, b []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

// part is a frame taken out of a segment, to be tampered with.
type part struct {
	kind    kind
	payload []byte
	off     int64
}

func split(t testing.TB, b []byte) []part {
	t.Helper()
	var ps []part
	for sc := newScanner(bytes.NewReader(b), 0); ; {
		f, err := sc.next()
		if err == io.EOF {
			return ps
		}
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, part{f.kind, bytes.Clone(f.payload), f.off})
	}
}

// join frames the parts again, with good checksums.
func join(ps []part) []byte {
	var b []byte
	for _, p := range ps {
		b = appendFrame(b, p.kind, p.payload)
	}
	return b
}

// rewrite makes every commit fit its records again, as an attacker would: with
// a signer all is signed anew, without one the old signatures stay.
func rewrite(t testing.TB, ps []part, signer note.Signer) []part {
	t.Helper()
	var tr tree
	out := slices.Clone(ps)
	origin := mustOrigin(t, join(ps))
	for i, p := range out {
		if p.kind == kindRecord {
			tr.add(tlog.RecordHash(p.payload))
		}
		if p.kind != kindCommit {
			continue
		}
		old, err := parseCommit(p.payload, origin)
		if err != nil {
			t.Fatal(err)
		}
		c := commit{tree: tr.clone(), root: tr.root(), text: checkpointText(origin, tr.size, tr.root())}
		c.note = append([]byte(c.text), old.note[len(old.text):]...)
		if signer != nil {
			if c, err = signCommit(tr.clone(), signer); err != nil {
				t.Fatal(err)
			}
		}
		out[i].payload = appendCommit(nil, c)[headerLen:]
	}
	return out
}

// forger is another key under the log's own name.
func forger(t testing.TB, origin string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

// The parts of tamperLog: header, commit of nothing, genesis, commit, then
// three batches of two records each.
const (
	pGenesis = 2
	pFirst   = 4 // batch: record 1, record 2, commit
	pSecond  = 7 // batch: record 3, record 4, commit
	pThird   = 10
)

func tamperLog(t testing.TB) (dir, vkey string, ps []part) {
	l, dir := newLog(t)
	for i := range 3 {
		r := Record{Type: RunExit, Run: "r", Data: Exit{Code: i}}
		if err := l.Append(t.Context(), r, r); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	return dir, l.VKey(), split(t, readSegment(t, dir, 0))
}

// noteOf is the note in the commit that is part i.
func noteOf(t testing.TB, ps []part, i int) []byte {
	t.Helper()
	c, err := parseCommit(ps[i].payload, mustOrigin(t, join(ps)))
	if err != nil {
		t.Fatal(err)
	}
	return c.note
}

// edited is a record with another exit status.
func edited(p part) part {
	return part{p.kind, bytes.Replace(p.payload, []byte(`"code":1`), []byte(`"code":0`), 1), p.off}
}
