package receipt_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	flog "github.com/transparency-dev/formats/log"
	fproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ward-project/ward/audit/receipt"
)

const origin = "ward/host/0123456789abcdef"

// log is a small real log in memory.
type log struct {
	leaves [][]byte
	stored []tlog.Hash
	signer note.Signer
	vkey   string
}

// ReadHashes implements tlog.HashReader.
func (l *log) ReadHashes(ix []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range ix {
		out = append(out, l.stored[i])
	}
	return out, nil
}

func newLog(t testing.TB, name string, n int) *log {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	l := &log{vkey: vkey}
	if l.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		leaf := fmt.Appendf(nil, `{"v":1,"type":"run.intent","run":"r%d","plan":"sha256:%064d","data":{"plan":"not this"}}`, i, i)
		l.add(t, leaf)
	}
	return l
}

func (l *log) add(t testing.TB, leaf []byte) {
	t.Helper()
	hs, err := tlog.StoredHashes(int64(len(l.leaves)), leaf, l)
	if err != nil {
		t.Fatal(err)
	}
	l.stored, l.leaves = append(l.stored, hs...), append(l.leaves, leaf)
}

func (l *log) checkpoint(t testing.TB, name string) []byte {
	t.Helper()
	root, err := tlog.TreeHash(int64(len(l.leaves)), l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", name, len(l.leaves), root)}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *log) receipt(t testing.TB, i int64) receipt.Receipt {
	t.Helper()
	size := int64(len(l.leaves))
	p, err := tlog.ProveRecord(size, i, l)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.New(l.leaves[i], i, size, p, l.checkpoint(t, l.signer.Name()))
}

func TestReceiptProves(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 8, 100} {
		l := newLog(t, origin, n)
		for i := range n {
			r := l.receipt(t, int64(i))
			again, err := receipt.Parse(r.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Bytes(), r.Bytes()) || !bytes.HasSuffix(r.Bytes(), r.Proof()) {
				t.Fatal("reading and writing change the receipt")
			}
			for _, r := range []receipt.Receipt{r, again} {
				s, err := r.Verify(l.vkey)
				if err != nil {
					t.Fatal(err)
				}
				if s.Origin != origin || s.Index != int64(i) || s.TreeSize != int64(n) || s.Type != "run.intent" ||
					s.Run != fmt.Sprint("r", i) || s.Plan != fmt.Sprintf("sha256:%064d", i) || !bytes.Equal(s.Leaf, l.leaves[i]) {
					t.Fatalf("%+v", s)
				}
			}
		}
	}
}

// Somebody else's implementation of the three formats accepts the proof.
func TestProofIsC2SP(t *testing.T) {
	l := newLog(t, origin, 11)
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(11) {
		var p fproof.TLogProof
		if err := p.Unmarshal(l.receipt(t, i).Proof()); err != nil {
			t.Fatal(err)
		}
		cp, _, _, err := flog.ParseCheckpoint(p.Checkpoint, origin, v)
		if err != nil {
			t.Fatal(err)
		}
		var hashes [][]byte
		for _, h := range p.Hashes {
			hashes = append(hashes, h[:])
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(l.leaves[i])
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, cp.Size, leaf, hashes, cp.Hash); err != nil {
			t.Fatal(err)
		}
	}
}

func TestZeroReceiptProvesNothing(t *testing.T) {
	l := newLog(t, origin, 1)
	var zero receipt.Receipt
	if s, err := zero.Verify(l.vkey); !errors.Is(err, receipt.ErrUnproved) || s.Plan != "" {
		t.Fatal(s, err)
	}
	if zero.Bytes() != nil || zero.Proof() != nil {
		t.Fatal("a zero receipt has a wire form")
	}
	if _, err := receipt.Parse(nil); !errors.Is(err, receipt.ErrMalformed) {
		t.Fatal(err)
	}
}

func TestReceiptDoesNotProve(t *testing.T) {
	l, other := newLog(t, origin, 9), newLog(t, origin, 8)
	other.add(t, []byte(`{"type":"run.exit"}`)) // as many records, another tree
	elsewhere := newLog(t, "ward/other/0", 9)
	size := int64(len(l.leaves))
	p3, err := tlog.ProveRecord(size, 3, l)
	if err != nil {
		t.Fatal(err)
	}
	cp := l.checkpoint(t, origin)
	bad := bytes.Replace(l.leaves[3], []byte("r3"), []byte("r4"), 1)
	for name, tt := range map[string]struct {
		r    receipt.Receipt
		vkey string
	}{
		"another record":      {receipt.New(bad, 3, size, p3, cp), l.vkey},
		"another index":       {receipt.New(l.leaves[3], 4, size, p3, cp), l.vkey},
		"a negative index":    {receipt.New(l.leaves[3], -1, size, p3, cp), l.vkey},
		"index behind":        {receipt.New(l.leaves[3], size, size, p3, cp), l.vkey},
		"another size":        {receipt.New(l.leaves[3], 3, size-1, p3, cp), l.vkey},
		"no proof":            {receipt.New(l.leaves[3], 3, size, nil, cp), l.vkey},
		"a short proof":       {receipt.New(l.leaves[3], 3, size, p3[1:], cp), l.vkey},
		"no checkpoint":       {receipt.New(l.leaves[3], 3, size, p3, nil), l.vkey},
		"another checkpoint":  {receipt.New(l.leaves[3], 3, size, p3, other.checkpoint(t, origin)), other.vkey},
		"another key":         {receipt.New(l.leaves[3], 3, size, p3, cp), other.vkey},
		"another log's key":   {receipt.New(l.leaves[3], 3, size, p3, cp), elsewhere.vkey},
		"a foreign name":      {receipt.New(l.leaves[3], 3, size, p3, l.checkpoint(t, "ward/other/0")), l.vkey},
		"an unsigned note":    {receipt.New(l.leaves[3], 3, size, p3, cp[:bytes.Index(cp, []byte("— "))]), l.vkey},
		"a checkpoint of one": {receipt.New(l.leaves[3], 0, 1, nil, cp), l.vkey},
	} {
		if s, err := tt.r.Verify(tt.vkey); !errors.Is(err, receipt.ErrUnproved) || s.Type != "" {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	if _, err := l.receipt(t, 3).Verify("nonsense"); err == nil {
		t.Error("no key verifies everything")
	}
}

// A proved leaf that is not a record of ours says nothing.
func TestProvedLeafMustBeARecord(t *testing.T) {
	for _, leaf := range []string{"text", `{}`, `{"Type":"run.intent"}`, `{"type":7}`, `{"type":"x","plan":["y"]}`, `[]`} {
		l := newLog(t, origin, 2)
		l.add(t, []byte(leaf))
		if s, err := l.receipt(t, 2).Verify(l.vkey); !errors.Is(err, receipt.ErrUnproved) || s.Leaf != nil {
			t.Errorf("%s: %+v %v", leaf, s, err)
		}
	}
	l := newLog(t, origin, 2)
	l.add(t, []byte(`{"type":"x","Plan":"sha256:1","PLAN":"sha256:2"}`))
	if s, err := l.receipt(t, 2).Verify(l.vkey); err != nil || s.Plan != "" {
		t.Errorf("another name was taken for the plan's: %+v %v", s, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(newLog(t, origin, 9).receipt(t, 3).Bytes())
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, b := range map[string]string{
		"nothing":              "",
		"another first line":   "x" + good,
		"the first line alone": "ward.receipt/v1\n",
		"no record":            strings.Replace(good, "v1\n{", "v1\n\n{", 1),
		"no proof":             good[:strings.Index(good, "c2sp")],
		"another proof":        strings.Replace(good, "@v1", "@v2", 1),
		"an extra line":        strings.Replace(good, "index", "extra AA==\nindex", 1),
		"a signed index":       strings.Replace(good, "index 3", "index +3", 1),
		"a negative index":     strings.Replace(good, "index 3", "index -3", 1),
		"a padded index":       strings.Replace(good, "index 3", "index 03", 1),
		"a huge index":         strings.Replace(good, "index 3", "index 99999999999999999999", 1),
		"a bad hash":           strings.Replace(good, "index 3\n", "index 3\nAAAA\n", 1),
		"a loose hash":         strings.Replace(good, "index 3\n", "index 3\n"+hash[:43]+"\r\n", 1),
		"too many hashes":      strings.Replace(good, "index 3\n", "index 3\n"+strings.Repeat(hash+"\n", 64), 1),
		"no checkpoint":        good[:strings.Index(good, "\n\n")+2],
		"half a checkpoint":    good[:strings.Index(good, "\n\n")+2] + origin + "\n9\n",
		"too much":             good + strings.Repeat("x", receipt.MaxSize),
	} {
		if _, err := receipt.Parse([]byte(b)); !errors.Is(err, receipt.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every changed byte is noticed by Parse or Verify, or leaves the statement as
// it was (base64 padding bits and the like are refused, so there are none but
// in the names of unknown signers).
func TestEveryChangedByte(t *testing.T) {
	l := newLog(t, origin, 9)
	good := l.receipt(t, 3).Bytes()
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		r, err := receipt.Parse(b)
		if err != nil {
			continue
		}
		if s, err := r.Verify(l.vkey); err == nil {
			t.Fatalf("byte %d (%q): %+v", i, good[i], s)
		}
	}
}

func FuzzParse(f *testing.F) {
	l := newLog(f, origin, 9)
	good := l.receipt(f, 3).Bytes()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("ward.receipt/v1\n{}\nc2sp.org/tlog-proof@v1\nindex 0\n\na\n0\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := receipt.Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Bytes(), b) {
			t.Fatalf("read\n%q\nwrote\n%q", b, r.Bytes())
		}
		s, err := r.Verify(l.vkey)
		if err == nil && !bytes.Equal(b, good) && !bytes.Equal(s.Leaf, l.leaves[s.Index]) {
			t.Fatalf("proved %+v", s)
		}
	})
}
