package policy_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

func TestZeroDecisionDenies(t *testing.T) {
	var d policy.Decision
	denied(t, d, "policy.undecided")
	b, err := json.Marshal(d)
	if err != nil || !strings.Contains(string(b), `"allow":false`) {
		t.Fatalf("%s %v", b, err)
	}
	var text strings.Builder
	if err := d.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "denied") {
		t.Fatalf("%q %v", text.String(), err)
	}
}

func TestNilEngineDenies(t *testing.T) {
	var e *policy.Engine
	d, err := e.Decide(t.Context(), good())
	refused(t, err, fault.Invalid, "policy.closed")
	denied(t, d, "policy.undecided")
}

func TestZeroEngineDenies(t *testing.T) {
	d, err := new(policy.Engine).Decide(t.Context(), good())
	if err != nil || d.Allowed() {
		t.Fatal(d, err)
	}
}

func TestZeroInputIsRefused(t *testing.T) {
	d, err := open(t).Decide(t.Context(), policy.Input{})
	refused(t, err, fault.Invalid, "policy.input")
	denied(t, d, "policy.undecided")
}

func TestAllowed(t *testing.T) {
	d := decide(t, open(t), good())
	if !d.Allowed() || len(d.Reasons()) != 0 || len(d.Warnings()) != 0 || d.Level() != "restricted" {
		t.Fatalf("%v %v", d.Reasons(), d.Level())
	}
	if !strings.HasPrefix(d.Revision(), "sha256:") || !strings.HasPrefix(d.InputDigest(), "sha256:") {
		t.Fatalf("%q %q", d.Revision(), d.InputDigest())
	}
}

// The JSON form is documented and other programs read it.
func TestDecisionJSON(t *testing.T) {
	d := decide(t, open(t), with(func(in *policy.Input) { in.Run.Network = "host" }))
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var got struct {
		Allow       *bool
		Deny, Warn  []policy.Reason
		Obligations *policy.Obligations
		Level       string
		Revision    string
		InputDigest string `json:"input_digest"`
	}
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Allow == nil || *got.Allow || len(got.Deny) != 1 || !reflect.DeepEqual(got.Deny[0], d.Reasons()[0]) || got.Warn == nil ||
		got.Obligations == nil || got.Level != "restricted" || got.Revision != d.Revision() || got.InputDigest != d.InputDigest() {
		t.Fatalf("%s", b)
	}
}

// A decision cannot be made from its JSON.
func TestDecisionIsNeverRead(t *testing.T) {
	var d policy.Decision
	//lint:ignore SA9005 that nothing can be read is what is tested
	if err := json.Unmarshal([]byte(`{"allow":true,"allowed":true}`), &d); err != nil {
		t.Fatal(err)
	}
	if d.Allowed() {
		t.Fatal("an allow was read from JSON")
	}
}

func TestTextNamesCodeMessageAndFix(t *testing.T) {
	var b strings.Builder
	d := decide(t, open(t), with(func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_SYS_ADMIN"} }))
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"denied by policy restricted", "baseline.capabilities", "capability SYS_ADMIN", "fix: run without --cap-add SYS_ADMIN", "grants.json"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestTextFitsOneScreen(t *testing.T) {
	in := with(func(in *policy.Input) {
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
			in.Run.Capabilities = append(in.Run.Capabilities, "CAP_"+string(c))
		}
	})
	d := decide(t, open(t), in)
	var b strings.Builder
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n > 40 || len(d.Reasons()) != 26 || !strings.Contains(b.String(), "more") {
		t.Fatalf("%d lines for %d reasons:\n%s", n, len(d.Reasons()), b.String())
	}
}

// Names in reasons come from images and requests, and end on terminals.
func TestReasonsAreSafeToPrint(t *testing.T) {
	evil := "\x1b[2Jallowed\nallowed\r\u202e\x00"
	e := open(t, "a.rego", `package ward.run
deny contains {"code": input.run.name, "msg": input.run.name, "fix": input.run.name} if input.run.name != ""
warn contains input.run.name if input.run.name != ""`)
	d := decide(t, e, with(func(in *policy.Input) { in.Run.Name = evil; in.Run.Network = evil }))
	var b strings.Builder
	if err := d.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\r\x00\u202e") || strings.Contains(b.String(), "\nallowed") {
		t.Fatalf("%q", b.String())
	}
	if len(d.Reasons()) != 2 || len(d.Warnings()) != 1 {
		t.Fatalf("%v %v", d.Reasons(), d.Warnings())
	}
}

func TestInputIsKeptExactly(t *testing.T) {
	e := open(t)
	a := decide(t, e, good())
	b := decide(t, e, with(func(in *policy.Input) { in.Run.Args = []string{"/bin/app", "x"} }))
	if a.InputDigest() == b.InputDigest() {
		t.Fatal("two inputs have one digest")
	}
	if c := decide(t, e, good()); c.InputDigest() != a.InputDigest() || !bytes.Equal(c.Input(), a.Input()) {
		t.Fatal("one input has two digests")
	}
	// The caller cannot change what was decided about.
	a.Input()[0] = 'x'
	if a.Input()[0] != '{' {
		t.Fatal("the input can be changed afterwards")
	}
}
