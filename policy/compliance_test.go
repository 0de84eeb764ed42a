package policy_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

func TestInline(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	document := `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://cosign.sigstore.dev/attestation/v1","subject":[],
	 "predicate":{"Data":"foobar e2e test","Timestamp":"2026-03-02T10:00:00Z"}}`
	for name, c := range map[string]struct {
		source string
		ok     bool
		why    string
	}{
		"as clusters write it":   {"package sigstore\nisCompliant {\n  input.predicateType == \"https://cosign.sigstore.dev/attestation/v1\"\n  input.predicate.Data == \"foobar e2e test\"\n}\n", true, ""},
		"in Rego v1":             {"package sigstore\nisCompliant if input.predicate.Data == \"foobar e2e test\"\n", true, ""},
		"with the import":        {"package sigstore\nimport rego.v1\ndefault isCompliant := false\nisCompliant if input.predicate.Data == \"foobar e2e test\"\n", true, ""},
		"another text":           {"package sigstore\ndefault isCompliant = false\nisCompliant { input.predicate.Data == \"barfoo\" }\n", false, "isCompliant is false"},
		"undefined":              {"package sigstore\nisCompliant { input.predicate.Data == \"barfoo\" }\n", false, "undefined"},
		"not a truth":            {"package sigstore\nisCompliant = \"true\" { true }\n", false, "not true"},
		"results":                {"package sigstore\nisCompliant[r] { r := {\"result\": input.predicate.Data == \"foobar e2e test\", \"error\": \"no\", \"warning\": \"\"} }\n", true, ""},
		"results that fail":      {"package sigstore\nisCompliant[r] { r := {\"result\": false, \"error\": \"found \\u001b[31mbarfoo\"} }\n", false, "found"},
		"results that warn":      {"package sigstore\nisCompliant[r] { r := {\"result\": true, \"warning\": \"old\"} }\n", false, "old"},
		"no results":             {"package sigstore\nisCompliant[r] { false; r := {} }\n", false, "not true"},
		"not older than a day":   {"package sigstore\nisCompliant { time.now_ns() - time.parse_rfc3339_ns(input.predicate.Timestamp) < 24*3600*1000000000 }\n", true, ""},
		"not older than an hour": {"package sigstore\nisCompliant { time.now_ns() - time.parse_rfc3339_ns(input.predicate.Timestamp) < 3600*1000000000 }\n", false, "undefined"},
		"a built-in that fails":  {"package sigstore\nisCompliant { not time.parse_rfc3339_ns(input.predicate.Data) > 0 }\n", false, "parse"},
	} {
		t.Run(name, func(t *testing.T) {
			ok, why, err := policy.Inline{}.Compliant(t.Context(), "trust.yaml:7", c.source, []byte(document), now)
			if err != nil || ok != c.ok || !strings.Contains(why, c.why) || strings.Contains(why, "\x1b") {
				t.Errorf("%v %q %v", ok, why, err)
			}
		})
	}
	for name, c := range map[string]struct {
		source string
		class  fault.Class
	}{
		"no Rego":         {"package sigstore\nisCompliant {\n", fault.Invalid},
		"empty":           {"", fault.Invalid},
		"another package": {"package signature\nallow { true }\n", fault.Invalid},
		"the network":     {"package sigstore\nisCompliant { http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1:9\"}).status_code == 200 }\n", fault.Invalid},
		"recursion":       {"package sigstore\nisCompliant { isCompliant }\n", fault.Invalid},
		"without end":     {"package sigstore\nisCompliant { count([1 | numbers.range(1, 100000)[_] > 0; numbers.range(1, 100000)[_] > 0]) > 0 }\n", fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			ok, _, err := policy.Inline{}.Compliant(t.Context(), "trust.yaml:7", c.source, []byte(document), now)
			if ok || !errors.Is(err, c.class) {
				t.Errorf("%v %v", ok, err)
			}
			if c.class == fault.Invalid && name != "empty" && !strings.Contains(err.Error(), "trust.yaml:7") {
				t.Errorf("%v does not say where", err)
			}
		})
	}
	huge := `{"predicate":[` + strings.Repeat("1,", 500_000) + `1]}`
	if ok, why, err := (policy.Inline{}).Compliant(t.Context(), "x", "package sigstore\nisCompliant { true }\n", []byte(huge), now); ok || err != nil || !strings.Contains(why, "too large") {
		t.Errorf("%v %q %v", ok, why, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, _, err := (policy.Inline{}).Compliant(ctx, "x", "package sigstore\nisCompliant { true }\n", []byte(document), now); ok || !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v %v", ok, err)
	}
}
