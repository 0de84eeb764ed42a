package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/policy"
)

// Whatever stands in a trust policy and in a statement, the answer comes in
// time, and is yes only where a rule said so.
func FuzzInline(f *testing.F) {
	f.Add("package sigstore\nisCompliant { input.a == 1 }\n", `{"a":1}`)
	f.Add("package sigstore\nisCompliant[r] { r := {\"result\": true, \"warning\": \"\"} }\n", `[]`)
	f.Add("package sigstore\nimport rego.v1\nisCompliant if count(input) > 0\n", `"x"`)
	f.Add("package x\n", `{`)
	now := time.Unix(1, 0)
	f.Fuzz(func(t *testing.T, source, document string) {
		if len(source) > 4<<10 || len(document) > 4<<10 {
			return
		}
		ok, _, err := policy.Inline{}.Compliant(t.Context(), "trust.yaml:1", source, []byte(document), now)
		if ok && (err != nil || !strings.Contains(source, "isCompliant")) {
			t.Fatalf("compliant by nothing: %v", err)
		}
	})
}
