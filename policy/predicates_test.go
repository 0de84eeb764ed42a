package policy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ward-project/ward/policy"
)

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// stating is an input whose evidence has these predicates, each of the type
// "https://example.com/<n>", as the engine hands it over.
func stating(more string, predicates ...string) policy.Input {
	return with(func(in *policy.Input) {
		var list []string
		in.Predicates = map[string]json.RawMessage{}
		for i, p := range predicates {
			in.Predicates[sha([]byte(p))] = json.RawMessage(p)
			list = append(list, fmt.Sprintf(`{"predicate_type":"https://example.com/%d","digest":%q,"envelope":"sha256:e","predicate_digest":%q,"predicate_size":%d,"signers":[{"kind":"key"}]}`,
				i, in.Image.Checksum, sha([]byte(p)), len(p)))
		}
		in.Evidence = json.RawMessage(fmt.Sprintf(`{"verified":true,"digest":%q,"signers":[{"kind":"key"}],"attestations":[%s],"attestations_refused":0,"refused":[],"omitted":[%s]}`,
			in.Image.Checksum, strings.Join(list, ","), more))
	})
}

func why(d policy.Decision) string { return strings.Join(codes(d.Reasons()), " ") }

// looking is a rule that looks at a predicate, as the one who wrote it would.
const looking = "package ward.run\n\ndeny contains \"found\" if {\n\tsome a in input.evidence.attestations\n\ta.predicate.bad == true\n}\n"

func TestPredicatesReachRules(t *testing.T) {
	e := open(t, "rules.rego", looking)
	for predicate, want := range map[string]bool{`{"bad": true}`: false, `{"bad":false, "text":"\ufffd <b> \u2028"}`: true, `"text"`: true, `null`: true} {
		in := stating("", predicate, `{"other":1}`)
		d := decide(t, e, in)
		if d.Allowed() != want {
			t.Errorf("%s: %v", predicate, why(d))
		}
		// In the bytes that were verified, in its place, once.
		if !bytes.Contains(d.Input(), []byte(`"predicate":`+predicate+`}`)) || len(d.Predicates()) != 2 {
			t.Errorf("%s", d.Input())
		}
		for _, s := range d.Predicates() {
			if sha(d.Input()[s.At:s.At+s.Size]) != s.Digest {
				t.Errorf("%+v is %s", s, d.Input()[s.At:s.At+s.Size])
			}
		}
		// The same answer again from the bytes alone.
		r, err := policy.NewReplayer(policy.Config{Dir: dir(t, "rules.rego", looking)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := r.Decide(t.Context(), d.Input())
		if err != nil || again.InputDigest() != d.InputDigest() || why(again) != why(d) {
			t.Errorf("%v: %s, %s", err, why(again), why(d))
		}
		_, schema := schemaOf(t)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.Input()))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Error(err)
		}
	}
	// A predicate that is not the one that was verified is no input at all.
	in := stating("", `{"bad":true}`)
	for digest := range in.Predicates {
		in.Predicates[digest] = json.RawMessage(`{"bad":false}`)
	}
	if _, err := e.Decide(t.Context(), in); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("%v", err)
	}
}

// What does not get in is never taken for absent: who looks is told, and who
// does not is not bothered.
func TestPredicatesThatDoNotFit(t *testing.T) {
	half := `{"text":"` + strings.Repeat("x", 5<<20) + `"}`
	values := "[" + strings.Repeat("1,", 500_000) + "1]"
	omitted := `{"predicate_type":"https://spdx.dev/Document","digest":"sha256:1","size":104857600,"reason":"too large"}`
	shipped, looks := open(t), open(t, "rules.rego", looking)
	minds := open(t, "rules.rego", looking+"\ndeny contains \"omitted\" if input.evidence.omitted[_].predicate_type == \"https://example.com/vuln\"\n")
	for name, c := range map[string]struct {
		in   policy.Input
		e    *policy.Engine
		want string
	}{
		"too long, nobody looks":     {stating("", half, half+" "), shipped, ""},
		"too long":                   {stating("", half, half+" "), looks, "policy.predicates"},
		"too many values":            {stating("", values), looks, "policy.predicates"},
		"one fits":                   {stating("", half), looks, ""},
		"omitted, nobody looks":      {stating(omitted), shipped, ""},
		"omitted":                    {stating(omitted), looks, "policy.omitted"},
		"omitted, and a rule for it": {stating(omitted), minds, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if d := decide(t, c.e, c.in); d.Allowed() != (c.want == "") || c.want != "" && why(d) != c.want {
				t.Errorf("%s", why(d))
			}
		})
	}
}

// Who may look at attestations is told from the files, erring on that side.
func TestWhoLooksAtAttestations(t *testing.T) {
	omitted := `{"predicate_type":"","digest":"sha256:1","size":1,"reason":"too large"}`
	for rule, looks := range map[string]bool{
		`deny contains "x" if input.run.network == "never"`:                                 false,
		`deny contains "x" if input.evidence.signers[_].kind == "never"`:                    false,
		`deny contains "x" if input.evidence.attestations[_].predicate_type == "never"`:     true,
		`deny contains "x" if input["evidence"]["attestations"][_].predicate_type == "nev"`: true,
		`deny contains "x" if input.evidence[k] == "never"`:                                 true,
		`deny contains "x" if { some k; input[k].attestations[_] == "never" }`:              true,
		`deny contains "x" if f(input)` + "\n" + `f(i) if i.evidence.attestations == 1`:     true,
		`deny contains "x" if { e := input.evidence; e.attestations == 1 }`:                 true,
		`deny contains "x" if walk(input, [["no"], _])`:                                     true,
		`deny contains "x" if data.t[input.evidence.attestations[0].predicate_type]`:        true,
		`deny contains "x" if "never" in [a | a := input.evidence.attestations[_]]`:         true,
		`deny contains "x" if sprintf("%v", [input.evidence.attestations]) == "never"`:      true,
		`deny contains "x" if $"{input.evidence.attestations}" == "never"`:                  true,
		`deny contains "x" if object.get(input, ["evidence", "attestations"], 1) == 1`:      true,
		`import input.evidence as e` + "\n" + `deny contains "x" if e.attestations == 1`:    true,
	} {
		e := open(t, "rules.rego", "package ward.run\n\n"+rule+"\n", "t.json", `{"t":{}}`)
		d := decide(t, e, stating(omitted))
		if (why(d) == "policy.omitted") != looks {
			t.Errorf("%s: %q", rule, why(d))
		}
	}
}

// The published example of evidence decides as it is, and provenance gets to
// where policies for buildx look for it.
func TestProvenanceOfTheImage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "attestations", "evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := decide(t, open(t), with(func(in *policy.Input) { in.Evidence = b }))
	var got struct{ Image policy.Image }
	if err := json.Unmarshal(d.Input(), &got); err != nil {
		t.Fatal(err)
	}
	p := got.Image.Provenance
	if !got.Image.HasProvenance || p.PredicateType != "https://slsa.dev/provenance/v1" || p.StartedOn != "2026-03-01T09:58:11Z" ||
		p.BuilderID != "https://github.com/team/app/.github/workflows/release.yml@refs/tags/v1.4.2" ||
		p.ConfigSource.URI != "git+https://github.com/team/app@refs/tags/v1.4.2" || p.ConfigSource.Path != ".github/workflows/release.yml" {
		t.Errorf("%+v", got.Image)
	}
}
