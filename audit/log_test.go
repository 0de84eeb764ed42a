package audit

import (
	"bytes"
	"strings"
	"testing"
)

func testPlan() string { return "sha256:" + strings.Repeat("ab", 32) }

func TestSmoke(t *testing.T) {
	dir := t.TempDir() + "/audit"
	if err := Create(Config{Dir: dir, Host: "h1"}); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Intend(t.Context(), Intent{Run: "r1", Plan: testPlan(), Actor: Caller(), Args: []string{"a<b"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Receipt().Verify(l.VKey())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %s\n%s", s, s.Leaf, p.Receipt().Bytes())
	if err := l.Append(t.Context(), Record{Type: RunExit, Run: "r1", Data: Exit{Code: 3}}); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(dir, Expect{VKey: l.VKey()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	pr, err := Prove(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = pr.Verify(l.VKey()); err != nil || s.Plan != testPlan() {
		t.Fatal(s, err)
	}
	n := 0
	if err := Read(dir, 0, func(e Entry) error { n++; return nil }); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	o, err := CreateOutput(dir + "/out.log")
	if err != nil {
		t.Fatal(err)
	}
	o.Write(Stdout, bytes.Repeat([]byte("a\x00"), 50000))
	o.Write(Stderr, []byte("x"))
	seal, err := o.Seal()
	if err != nil || seal.Chunks != 3 {
		t.Fatal(seal, err)
	}
	if err := VerifyOutput(dir+"/out.log", seal.Anchor()); err != nil {
		t.Fatal(err)
	}
}
