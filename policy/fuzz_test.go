package policy_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// judged opens the directory and decides about a run that the shipped policy
// denies. Whatever the file says, nothing panics, errors have a class and a
// rule, and no file but one that may loosen makes it an allow.
func judged(t *testing.T, mayLoosen bool, name, text string) {
	e, err := policy.Open(policy.Config{Dir: dir(t, name, text)})
	var f *fault.Error
	if err != nil {
		if !errors.As(err, &f) || f.Class != fault.Invalid || f.Rule == "" || f.Remedy == "" {
			t.Fatalf("%T %v", err, err)
		}
		return
	}
	d, err := e.Decide(t.Context(), with(caps("CAP_SYS_ADMIN")))
	if err != nil && (!errors.As(err, &f) || f.Class != fault.Unavailable) {
		t.Fatalf("%T %v", err, err)
	}
	if d.Allowed() && !mayLoosen {
		t.Fatalf("%s allowed SYS_ADMIN:\n%s", name, text)
	}
	if !d.Allowed() && len(d.Reasons()) == 0 {
		t.Fatal("denied without a reason")
	}
}

func FuzzRego(f *testing.F) {
	for _, s := range []string{
		"", "package ward.run", "package ward.run\ndeny contains \"x\" if true", "package ward.run\ndeny contains x if some x in input.run.args",
		"package ward.levels.baseline\nviolations := set()", "package ward.granted\ncapabilities contains \"SYS_ADMIN\"",
		"package ward.run\ndecision := {\"allow\": true}", "package ward[\"run\"]\ndecision.allow := true", "package ward.run.decision\nallow := true",
		"package ward.run\nobligations contains {\"max_pids\": 1}", "package ward.run\nimport data.ward.levels as l\ndeny contains 1 if l.x",
		"package ward.run\ndeny contains $\"{input.run.name}\"", "package a\nx := [y | y := 1]\n\np[x] := 2 if { x := input.z with input as {} }",
		"# METADATA\n# scope: package\npackage ward.run\n", "package ward.run\ndeny[\"x\"]", "package ward.run\ndeny contains {\"msg\":\"x\"} if not input.run.mounts[0]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { judged(t, false, "a.rego", text) })
}

func FuzzData(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, ``, `{"a":1}`, `{"a":1,"a":2}`, `{"ward":{"level":"x"}}`, `{"a":{"b":[1e999,-0,"\ud800"]}}`, `{"input":{"run":{}}}`,
		`{"ward\u0000":1}`, "\xef\xbb\xbf{}", `{"":{"":{}}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { judged(t, false, "a.json", text) })
}

func FuzzDataYAML(f *testing.F) {
	for _, s := range []string{"", "{}", "a: 1", "a: &a [*a]", "a: &x {b: 1}\nc: {<<: *x}", "? [1,2]\n: 3", "1: 2", "a: !!binary AA==", "---\na: 1\n---\nb: 2\n", "ward: {level: x}", "a: .inf", "a: 0o7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { judged(t, false, "a.yaml", text) })
}

func FuzzGrants(f *testing.F) {
	for _, s := range []string{`{}`, `{"level":"baseline"}`, `{"capabilities":["SYS_ADMIN"]}`, `{"binds":["/a:ro"],"networks":["host"]}`,
		`{"limits":{"memory":"8g","pids":1,"cpus":0.5,"swap":1}}`, `{"images":{"a/**":{"capabilities":["KILL"]}}}`, `{"images":{"*/[a":{}}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { judged(t, true, "grants.json", text) })
}

// FuzzInput: an input is refused, or what was decided about is what went in.
func FuzzInput(f *testing.F) {
	e, err := policy.Open(policy.Config{})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, "name", "/srv", "none")
	f.Add([]byte(`{}`), "\xff", "/srv/../etc", "host")
	f.Add([]byte(`{"point":"run","now":"2026-01-01T00:00:00Z","evidence":{"verified":true,"digest":""}}`), "\ufffd\\ufffd", "/", "\u0000none")
	f.Fuzz(func(t *testing.T, b []byte, name, source, network string) {
		var in policy.Input
		if json.Unmarshal(b, &in) != nil {
			return
		}
		in.Run.Name, in.Run.Network = name, network
		in.Run.Mounts = append(in.Run.Mounts, bind(source, true))
		d, err := e.Decide(t.Context(), in)
		if d.Allowed() {
			t.Fatalf("a bind mount was allowed: %s", d.Input())
		}
		if err != nil {
			return
		}
		var back policy.Input
		if err := json.Unmarshal(d.Input(), &back); err != nil {
			t.Fatal(err)
		}
		if back.Run.Name != name || back.Run.Network != network || back.Run.Mounts[len(back.Run.Mounts)-1].Source != source {
			t.Fatalf("decided about %q %q, asked about %q %q", back.Run.Name, back.Run.Network, name, network)
		}
	})
}
