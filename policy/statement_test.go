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
		})
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
