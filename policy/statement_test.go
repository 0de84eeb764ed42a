package policy_test

import (
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

const aStatement = `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://x.test/v1","subject":[],"predicate":{"critical":0}}`

func TestStatementPolicy(t *testing.T) {
	for what, c := range map[string]struct {
		rego  string
		class fault.Class
		rule  string
	}{
		"v1":               {"package signature\nimport rego.v1\nallow if input.predicate.critical == 0", 0, ""},
		"v0, as cosign":    {"package signature\nallow { input.predicate.critical == 0 }", 0, ""},
		"no":               {"package signature\nallow { input.predicate.critical > 0 }", fault.Denied, "attestation.policy"},
		"false":            {"package signature\ndefault allow = false", fault.Denied, "attestation.policy"},
		"text":             {"package signature\nallow = \"true\"", fault.Denied, "attestation.policy"},
		"contradiction":    {"package signature\nallow = true\nallow = false { true }", fault.Denied, "attestation.policy"},
		"a failing call":   {"package signature\nallow { not base64.decode(\"%\") }", fault.Denied, "attestation.policy"},
		"other package":    {"package sigstore\nallow = true", fault.Invalid, "policy.package"},
		"syntax":           {"package signature\nallow {", fault.Invalid, "policy.syntax"},
		"the network":      {"package signature\nallow { http.send({\"method\":\"get\",\"url\":\"http://127.0.0.1:9\"}) }", fault.Invalid, "policy.syntax"},
		"the clock":        {"package signature\nallow { time.now_ns() > 0 }", fault.Invalid, "policy.syntax"},
		"recursion":        {"package signature\nallow { allow }", fault.Invalid, "policy.syntax"},
		"empty":            {"", fault.Invalid, "policy.syntax"},
		"a comment alone":  {"# allow = true", fault.Invalid, "policy.syntax"},
		"too large":        {"package signature\nallow = true\n#" + strings.Repeat("x", 1<<20), fault.Invalid, "policy.size"},
		"too many results": {"package signature\nallow[x] { x := true }", fault.Denied, "attestation.policy"},
		"never ends":       {"package signature\nallow { n := numbers.range(1, 100000)[_]; m := numbers.range(1, 100000)[_]; n * m == -1 }", fault.Unavailable, "policy.timeout"},
	} {
		t.Run(what, func(t *testing.T) {
			p, err := policy.NewStatementPolicy(map[string][]byte{"x.rego": []byte(c.rego)})
			if err == nil {
				err = p.Allows(t.Context(), []byte(aStatement))
			}
			if c.rule == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			f := fault.As(err)
			if f == nil || f.Class != c.class || (f.Rule != c.rule && f.Class != fault.Unavailable) {
				t.Fatalf("want %v %s, got %v", c.class, c.rule, err)
			}
			// Whoever wrote the policy has to learn that it failed, not that it is silent.
			if failed := what == "contradiction" || what == "a failing call"; failed && strings.Contains(f.Cause, "undefined") {
				t.Error(f.Cause)
			}
		})
	}
}

// Several files make one policy: together they are bounded, and one of them has
// to be of the package that decides.
func TestStatementPolicyFiles(t *testing.T) {
	const decides = "package signature\nallow { data.site.fine }"
	text := func(s string) []byte { return []byte(s) }
	p, err := policy.NewStatementPolicy(map[string][]byte{"a.rego": text(decides), "b.rego": text("package site\nfine { input.predicate.critical == 0 }")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Allows(t.Context(), []byte(aStatement)); err != nil {
		t.Error(err)
	}
	err = p.Allows(t.Context(), []byte(strings.Replace(aStatement, "0}", "1}", 1)))
	if fault.ClassOf(err) != fault.Denied || !strings.Contains(fault.As(err).Cause, "undefined") {
		t.Error(err)
	}
	for _, bad := range []string{"", "{", aStatement + "x"} {
		if err := p.Allows(t.Context(), []byte(bad)); fault.ClassOf(err) != fault.Invalid || fault.As(err).Rule != "policy.input" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	half := "\n#" + strings.Repeat("x", 600<<10)
	for rule, files := range map[string]map[string][]byte{
		"policy.size":    {"a.rego": text(decides + half), "b.rego": text("package site\nfine = true" + half)},
		"policy.package": {"a.rego": text("package site\nfine = true"), "b.rego": text("package signatures\nallow = true")},
		"policy.syntax":  {"a.rego": text(decides), "b.rego": text("package site\nfine {")},
	} {
		if _, err := policy.NewStatementPolicy(files); fault.ClassOf(err) != fault.Invalid || fault.As(err).Rule != rule {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

func FuzzStatementPolicy(f *testing.F) {
	f.Add("package signature\nallow { input.predicate.critical == 0 }", aStatement)
	f.Add("package signature\nimport rego.v1\nallow if true", "{}")
	f.Fuzz(func(t *testing.T, rego, statement string) {
		p, err := policy.NewStatementPolicy(map[string][]byte{"x.rego": []byte(rego)})
		if err == nil {
			_ = p.Allows(t.Context(), []byte(statement))
		}
	})
}
