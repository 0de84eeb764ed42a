package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/internal/fault"
)

// cosigner signs as https://c2sp.org/tlog-cosignature says. The real witness is
// in tests/conformance; this one can also do wrong.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
	at   time.Time
}

func newCosigner(t testing.TB, name string) (*cosigner, string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte{algCosignature}, pub...)
	sum := sha256.Sum256(append([]byte(name+"\n"), b...))
	c := &cosigner{name, binary.BigEndian.Uint32(sum[:]), key, time.Unix(1764300000, 0).UTC()}
	return c, fmt.Sprintf("%s+%08x+%s", name, c.hash, base64.StdEncoding.EncodeToString(b))
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Sign(msg []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.at.Unix()))
	return append(b, ed25519.Sign(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", c.at.Unix(), msg))...), nil
}

func newLog(t testing.TB) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "ward/host/1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func signed(t testing.TB, size int64, by ...note.Signer) []byte {
	t.Helper()
	root := sha256.Sum256(fmt.Append(nil, size))
	b, err := note.Sign(&note.Note{Text: fmt.Sprintf("ward/host/1\n%d\n%s\n", size, base64.StdEncoding.EncodeToString(root[:]))}, by...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParsePolicy(t *testing.T) {
	_, a := newCosigner(t, "a.example")
	_, b := newCosigner(t, "b.example")
	_, log := newLog(t)
	logKey := "" // as the policy file names it
	skey, vkey, err := note.GenerateKey(rand.Reader, log.Name())
	if logKey = vkey; err != nil || skey == "" {
		t.Fatal(err)
	}
	_, other, err := note.GenerateKey(rand.Reader, "another")
	if err != nil {
		t.Fatal(err)
	}
	two := "witness a " + a + " https://a.example/\nwitness b " + b + " # no address\n"
	for text, want := range map[string]string{
		two + "quorum a":    "",
		two + "quorum none": "",
		"\t\n" + two + "group g 2 a b\ngroup h any g a\nquorum h\n":   "",
		"log " + logKey + " https://log.example\n" + two + "quorum b": "",
		"log " + other + "\n" + two + "quorum b":                      "other logs",
		"":                                                            `no "quorum"`,
		two:                                                           `no "quorum"`,
		two + "quorum c":                                              "line 3: no witness",
		two + "quorum a b":                                            "line 3: one quorum",
		two + "quorum":                                                "line 3: one quorum",
		two + "quorum none\nquorum none":                              "line 4: one quorum",
		two + "group g 3 a b\nquorum g":                               `line 3: "3" of 2`,
		two + "group g 0 a b\nquorum g":                               `line 3: "0" of 2`,
		two + "group g -1 a b\nquorum g":                              `line 3: "-1" of 2`,
		two + "group g 1 a a\nquorum g":                               "member twice",
		two + "group g 1 c\nquorum g":                                 "no witness or group",
		two + "group a 1 b\nquorum a":                                 "is taken",
		two + "group none 1 b\nquorum none":                           "is taken",
		two + "group g 1\nquorum g":                                   "line 3: group NAME",
		two + "witness a " + a + "\nquorum a":                         "is taken",
		two + "witness c " + a + "\nquorum a":                         "there twice",
		"witness c\nquorum c":                                         "line 1: witness NAME",
		"witness c " + logKey + "\nquorum c":                          "type 4",
		"witness c " + a[:len(a)-3] + "\nquorum c":                    "not a verifier key",
		"witness c x" + a + "\nquorum c":                              "its hash",
		"witness c " + a + " ftp://x\nquorum c":                       "no address",
		"witness c " + a + " https://u:p@x\nquorum c":                 "no address",
		"witness c " + a + " https://x?y\nquorum c":                   "no address",
		"log x\nquorum none":                                          "log key",
		"sigsum x\nquorum none":                                       "unknown word",
		strings.Repeat("#", MaxPolicy+1):                              "at most",
	} {
		p, err := ParsePolicy([]byte(text), log.Name())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && (p.Level(nil).Met || len(p.Witnesses) > 0) {
			t.Errorf("%q: an error, and a policy with it", text)
		}
	}
	if (Policy{}).Level(nil).Met {
		t.Error("the zero policy is met")
	}
}

func TestLevel(t *testing.T) {
	text := ""
	for _, n := range []string{"a", "b", "c"} {
		_, k := newCosigner(t, n)
		text += "witness " + n + " " + k + "\n"
	}
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	a, b, c := Cosigned{"a", 10, at(1), nil}, Cosigned{"b", 7, at(2), nil}, Cosigned{"c", 20, at(3), nil}
	for name, tt := range map[string]struct {
		quorum string
		kept   []Cosigned
		want   Level
	}{
		"nobody":            {"group g 2 a b c\nquorum g", nil, Level{Witnesses: 3}},
		"one of two":        {"group g 2 a b c\nquorum g", []Cosigned{a}, Level{Witnesses: 3, Cosigned: 1}},
		"two of three":      {"group g 2 a b c\nquorum g", []Cosigned{a, b}, Level{3, 2, true, 7, at(2)}},
		"the two that lead": {"group g 2 a b c\nquorum g", []Cosigned{a, b, c}, Level{3, 3, true, 10, at(3)}},
		"all":               {"group g all a b c\nquorum g", []Cosigned{c, b, a}, Level{3, 3, true, 7, at(3)}},
		"any":               {"group g any a b c\nquorum g", []Cosigned{b, c}, Level{3, 2, true, 20, at(3)}},
		"one by name":       {"quorum a", []Cosigned{b, c}, Level{Witnesses: 3, Cosigned: 2}},
		"nested":            {"group g any a b\ngroup h all g c\nquorum h", []Cosigned{b, c}, Level{3, 2, true, 7, at(3)}},
		"nothing demanded":  {"quorum none", []Cosigned{b, c}, Level{3, 2, true, 0, time.Time{}}},
	} {
		p, err := ParsePolicy([]byte(text+tt.quorum), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Level(tt.kept); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestKept(t *testing.T) {
	log, v := newLog(t)
	otherLog, _ := newLog(t)
	a, ka := newCosigner(t, "a")
	b, kb := newCosigner(t, "b")
	p, err := ParsePolicy([]byte("witness a "+ka+"\nwitness b "+kb+"\nquorum none"), v.Name())
	if err != nil {
		t.Fatal(err)
	}
	w := p.Witnesses[0]
	dir := t.TempDir()
	good := signed(t, 5, log, a)
	for name, content := range map[string][]byte{
		"not signed by the witness": signed(t, 5, log),
		"signed by another witness": signed(t, 5, log, b),
		"not signed by the log":     signed(t, 5, a),
		"signed by another log":     signed(t, 5, otherLog, a),
		"another size":              bytes.Replace(good, []byte("\n5\n"), []byte("\n6\n"), 1),
		"another time":              otherTime(t, good),
		"empty":                     {},
		"too long":                  append(bytes.Clone(good), bytes.Repeat([]byte("x"), maxNote)...),
	} {
		if err := os.WriteFile(w.file(dir), content, 0o644); err != nil {
			t.Fatal(err)
		}
		if cs, err := p.Kept(dir, v); err == nil || len(cs) > 0 {
			t.Errorf("%s: %+v %v", name, cs, err)
		}
	}
	if err := os.Remove(w.file(dir)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{5, 9, 7} { // what is older does not replace
		c, err := w.open(signed(t, size, log, a), v)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.keep(t.Context(), dir, v, c); err != nil {
			t.Fatal(err)
		}
	}
	cs, err := p.Kept(dir, v)
	if err != nil || len(cs) != 1 || cs[0].Size != 9 || cs[0].Witness != "a" || !cs[0].Time.Equal(a.at) {
		t.Fatalf("%+v %v", cs, err)
	}
}

// otherTime changes the time in the last signature.
func otherTime(t *testing.T, b []byte) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	last := strings.Fields(lines[len(lines)-1])
	raw, err := base64.StdEncoding.DecodeString(last[2])
	if err != nil {
		t.Fatal(err)
	}
	raw[11]++
	lines[len(lines)-1] = last[0] + " " + last[1] + " " + base64.StdEncoding.EncodeToString(raw)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// What a witness answers is not believed, but checked; nothing of it is kept otherwise.
func TestUpdateBelievesNoWitness(t *testing.T) {
	log, v := newLog(t)
	a, ka := newCosigner(t, "a")
	b, _ := newCosigner(t, "b")
	cosignature := func(size int64, by *cosigner) string {
		_, sigs, _ := bytes.Cut(signed(t, size, by), []byte("\n\n"))
		return string(sigs)
	}
	for name, tt := range map[string]struct {
		status []int
		answer []string
		class  fault.Class
		rule   string
		size   int64
	}{
		"good":                   {[]int{200}, []string{cosignature(5, a)}, 0, "", 5},
		"among others":           {[]int{200}, []string{cosignature(5, b) + cosignature(5, a)}, 0, "", 5},
		"of another tree":        {[]int{200}, []string{cosignature(6, a)}, fault.Unavailable, "witness.unavailable", 0},
		"of another witness":     {[]int{200}, []string{cosignature(5, b)}, fault.Unavailable, "witness.unavailable", 0},
		"nothing":                {[]int{200}, []string{""}, fault.Unavailable, "witness.unavailable", 0},
		"too much":               {[]int{200}, []string{strings.Repeat("— x\n", 1<<20)}, fault.Unavailable, "witness.unavailable", 0},
		"knows some":             {[]int{409, 200}, []string{"3\n", cosignature(5, a)}, 0, "", 5},
		"knows more":             {[]int{409}, []string{"6\n"}, fault.Unverified, RuleConflict, 0},
		"knows what it was told": {[]int{409}, []string{"0\n"}, fault.Unavailable, "witness.unavailable", 0},
		"knows nonsense":         {[]int{409}, []string{"-1"}, fault.Unavailable, "witness.unavailable", 0},
		"changes its mind":       {[]int{409, 409}, []string{"3\n", "4\n"}, fault.Unavailable, "witness.unavailable", 0},
		"another log":            {[]int{422}, []string{"no"}, fault.Unverified, RuleConflict, 0},
		"does not know us":       {[]int{404}, []string{"no"}, fault.Unavailable, "witness.unavailable", 0},
		"sends us elsewhere":     {[]int{302}, []string{"no"}, fault.Unavailable, "witness.unavailable", 0},
	} {
		var olds []int64
		s := answering(t, tt.status, tt.answer)
		p, err := ParsePolicy([]byte("witness a "+ka+" "+s+"\nquorum a"), v.Name())
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "kept")
		c, err := p.Witnesses[0].Update(t.Context(), dir, v, func(old int64) ([]byte, error) {
			olds = append(olds, old)
			return append(fmt.Appendf(nil, "old %d\n\n", old), signed(t, 5, log)...), nil
		})
		if tt.rule == "" && err != nil || tt.rule != "" && (!errors.Is(err, tt.class) || fault.As(err).Rule != tt.rule) || c.Size != tt.size {
			t.Errorf("%s: %+v %v", name, c, err)
		}
		if kept, err := p.Kept(dir, v); err != nil || (len(kept) == 1) != (tt.rule == "") {
			t.Errorf("%s: kept %+v, %v", name, kept, err)
		}
		if len(olds) != len(tt.status) {
			t.Errorf("%s: asked from %v", name, olds)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	_, a := newCosigner(f, "a")
	f.Add([]byte("witness a " + a + " https://a.example\ngroup g any a\nquorum g\n"))
	f.Add([]byte("log x\nquorum none"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b, "o")
		if err == nil && p.quorum != nil && p.Level(nil).Met {
			t.Fatal("a quorum that nobody meets is met")
		}
	})
}

func FuzzCosigned(f *testing.F) {
	log, v := newLog(f)
	a, ka := newCosigner(f, "a")
	p, err := ParsePolicy([]byte("witness a "+ka+"\nquorum a"), v.Name())
	if err != nil {
		f.Fatal(err)
	}
	good := signed(f, 5, log, a)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := p.Witnesses[0].open(b, v); err == nil && (c.Size != 5 || !bytes.HasPrefix(b, good[:bytes.Index(good, []byte("\n\n"))])) {
			t.Fatalf("%q passes for a cosigned checkpoint", b)
		}
	})
}
