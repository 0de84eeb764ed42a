package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/policy"
)

// statedInput is an input with two predicates, the larger one of size bytes.
func statedInput(name string, size int) policy.Input {
	in := replayInputs()[0]
	in.Run.Name = name
	in.Predicates = map[string]json.RawMessage{}
	var list []string
	for i, p := range []string{`{"small": true}`, `{"text":"` + strings.Repeat("x<>", size/3) + `"}`} {
		sum := sha256.Sum256([]byte(p))
		digest := "sha256:" + hex.EncodeToString(sum[:])
		in.Predicates[digest] = json.RawMessage(p)
		list = append(list, fmt.Sprintf(`{"predicate_type":"https://example.com/%d","predicate_digest":%q,"predicate_size":%d,"signers":[]}`, i, digest, len(p)))
	}
	in.Evidence = json.RawMessage(strings.TrimSuffix(string(in.Evidence), "}") + `,"attestations":[` + strings.Join(list, ",") + `]}`)
	return in
}

// Decisions about images with large statements keep each statement once, and
// are made again from it byte for byte.
func TestKeptPredicatesReplay(t *testing.T) {
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(l.Lib, 0o755), audit.Create(audit.Config{Dir: l.Audit(), Host: "h"})); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(l.Audit())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e, err := policy.Open(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		d, err := e.Decide(t.Context(), statedInput(fmt.Sprint("run", i), 3<<20))
		if err != nil {
			t.Fatal(err)
		}
		why, err := Explained(l, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Append(t.Context(), audit.Record{Type: audit.ContainerCreate, Actor: audit.Caller(), Data: audit.ContainerEvent{Name: fmt.Sprint("run", i), Decision: why, Input: d.InputDigest()}}); err != nil {
			t.Fatal(err)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(l.Audit(), "kept", "*"))
	var size int64
	for _, f := range kept {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if len(kept) != 6 || size > 4<<20 { // the statement, and what is left of each input
		t.Errorf("%d files of %d bytes are kept", len(kept), size)
	}
	if _, totals, err := replayAll(t, l, policy.Config{}); err != nil || totals.Exact != 5 {
		t.Errorf("%+v, %v", totals, err)
	}

	// A statement that is not what it was makes all five unknown.
	for _, f := range kept {
		if st, err := os.Stat(f); err == nil && st.Size() > 1<<20 {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if b[100] ^= 1; os.Remove(f) != nil || os.WriteFile(f, b, 0o400) != nil {
				t.Fatal("cannot alter it")
			}
		}
	}
	if _, totals, err := replayAll(t, l, policy.Config{}); err != nil || totals.Changes[NotReplayable] != 5 {
		t.Errorf("%+v, %v", totals, err)
	}
	// And the next decision about it makes it good.
	d, err := e.Decide(t.Context(), statedInput("run0", 3<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Explained(l, d); err != nil {
		t.Fatal(err)
	}
	if _, totals, err := replayAll(t, l, policy.Config{}); err != nil || totals.Exact != 5 {
		t.Errorf("%+v, %v", totals, err)
	}
}

// An input with a document, however small, lies beside the log and not in a
// record: in a file stand values of environment variables. It replays from there.
func TestKeptDocuments(t *testing.T) {
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(l.Lib, 0o755), audit.Create(audit.Config{Dir: l.Audit(), Host: "h"})); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(l.Audit())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e, err := policy.Open(policy.Config{Point: policy.PointCI})
	if err != nil {
		t.Fatal(err)
	}
	in := replayInputs()[0]
	in.Point, in.Document = policy.PointCI, json.RawMessage(`{"services":{"a":{"environment":{"TOKEN":"hush<"}}}}`)
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	why, err := Explained(l, d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(why), "hush") || !strings.Contains(string(why), `"input_kept"`) {
		t.Errorf("the record says %s", why)
	}
	if err := log.Append(t.Context(), audit.Record{Type: audit.GateDecision, Actor: audit.Caller(), Data: audit.Verdict{Outcome: "allow", Point: in.Point, Decision: why, Input: d.InputDigest()}}); err != nil {
		t.Fatal(err)
	}
	if _, totals, err := replayAll(t, l, policy.Config{}); err != nil || totals.Exact != 1 {
		t.Errorf("%+v, %v", totals, err)
	}
	// Under a policy that came later it is judged with its document.
	later := t.TempDir()
	rule := "package main\n\ndeny_token contains \"a token\" if input.services[_].environment.TOKEN\n"
	if err := errors.Join(os.Chmod(later, 0o755), os.Mkdir(filepath.Join(later, "conftest"), 0o755), os.WriteFile(filepath.Join(later, "conftest", "a.rego"), []byte(rule), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, totals, err := replayAll(t, l, policy.Config{Dir: later}); err != nil || totals.Changes[policy.NewlyDenied] != 1 {
		t.Errorf("%+v, %v", totals, err)
	}
}

// Parts that do not fit together are nothing, and cost nothing.
func TestKeptPartsThatDoNotFit(t *testing.T) {
	read := func(digest string) ([]byte, error) { return []byte(digest), nil }
	sum := sha256.Sum256([]byte("abXYcd"))
	right := "sha256:" + hex.EncodeToString(sum[:])
	if b, err := (KeptBytes{Digest: right, Rest: "abcd", Parts: []KeptPart{{2, "XY", 2}}}).assemble(read); err != nil || string(b) != "abXYcd" {
		t.Fatalf("%s %v", b, err)
	}
	for _, k := range []KeptBytes{
		{Digest: right, Rest: "abcd", Parts: []KeptPart{{3, "XY", 2}}},
		{Digest: right, Rest: "abcd", Parts: []KeptPart{{-1, "XY", 2}}},
		{Digest: right, Rest: "abcd", Parts: []KeptPart{{1 << 60, "XY", 2}}},
		{Digest: right, Rest: "abcd", Parts: []KeptPart{{2, "XY", 2}, {1, "", 0}}},
		{Digest: "sha256:" + strings.Repeat("0", 64), Rest: "abcd", Parts: []KeptPart{{2, "XY", 2}}},
	} {
		if b, err := k.assemble(read); err == nil {
			t.Errorf("%+v: %s", k, b)
		}
	}
}
