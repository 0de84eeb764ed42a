package policy_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

const siteRule = "package ward.run\n\ndeny contains {\"code\": \"site.tag\", \"msg\": \"no\"} if input.image.tag == \"bad\"\n"

func bad(in *policy.Input) { in.Image.Tag = "bad" }

// TestModes: a denial that is not enforced lets through, is said among the
// warnings with its mode, and takes no other denial with it.
func TestModes(t *testing.T) {
	for name, c := range map[string]struct {
		modes  string
		point  string
		change []func(*policy.Input)
		denied []string // none is allowed
		warned map[string]policy.Mode
	}{
		"enforced by default":   {`{}`, "run", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"warn":                  {`{"baseline.host-namespaces": "warn"}`, "run", []func(*policy.Input){network("host")}, nil, map[string]policy.Mode{"baseline.host-namespaces": "warn"}},
		"audit":                 {`{"baseline.host-namespaces": "audit"}`, "run", []func(*policy.Input){network("host")}, nil, map[string]policy.Mode{"baseline.host-namespaces": "audit"}},
		"enforce":               {`{"baseline.host-namespaces": "enforce", "run": "warn"}`, "run", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"another is enforced":   {`{"baseline.host-namespaces": "warn"}`, "run", []func(*policy.Input){network("host"), caps("CAP_CHOWN")}, []string{"restricted.capabilities"}, map[string]policy.Mode{"baseline.host-namespaces": "warn"}},
		"a point":               {`{"run": "audit"}`, "run", []func(*policy.Input){network("host"), caps("CAP_CHOWN")}, nil, map[string]policy.Mode{"baseline.host-namespaces": "audit", "restricted.capabilities": "audit"}},
		"another point":         {`{"exec": "warn"}`, "run", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"a point and a code":    {`{"exec/baseline.host-namespaces": "warn"}`, "exec", []func(*policy.Input){network("host")}, nil, map[string]policy.Mode{"baseline.host-namespaces": "warn"}},
		"the code elsewhere":    {`{"exec/baseline.host-namespaces": "warn"}`, "run", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"the narrower holds":    {`{"run": "warn", "baseline.host-namespaces": "warn", "run/baseline.host-namespaces": "enforce"}`, "run", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"a rule of one's own":   {`{"site.tag": "warn"}`, "run", []func(*policy.Input){bad}, nil, map[string]policy.Mode{"site.tag": "warn"}},
		"own and shipped":       {`{"site.tag": "warn"}`, "run", []func(*policy.Input){bad, network("host")}, []string{"baseline.host-namespaces"}, map[string]policy.Mode{"site.tag": "warn"}},
		"evidence is not moved": {`{"run": "warn"}`, "run", []func(*policy.Input){func(in *policy.Input) { in.Evidence = nil }}, []string{"baseline.evidence"}, nil},
		"restart":               {`{"restart": "warn"}`, "restart", []func(*policy.Input){network("host")}, nil, map[string]policy.Mode{"baseline.host-namespaces": "warn"}},
		"run is not restart":    {`{"run": "warn"}`, "restart", []func(*policy.Input){network("host")}, []string{"baseline.host-namespaces"}, nil},
		"pods":                  {`{"k8s.privileged": "warn"}`, "k8s", []func(*policy.Input){func(in *policy.Input) { in.K8s.Privileged = true }}, nil, map[string]policy.Mode{"k8s.privileged": "warn"}},
		"oci":                   {`{"oci.caller": "warn", "oci.bundle": "warn"}`, "oci", nil, nil, map[string]policy.Mode{"oci.caller": "warn"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(t, openAt(t, c.point, "a.rego", siteRule, "grants.json", `{"modes": `+c.modes+`}`), at(c.point, c.change...))
			if len(c.denied) > 0 {
				denied(t, d, c.denied...)
			} else if !d.Allowed() {
				t.Fatal(d.Reasons())
			}
			got := map[string]policy.Mode{}
			for _, w := range d.Warnings() {
				got[w.Code] = w.Mode
			}
			if !maps.Equal(got, c.warned) {
				t.Errorf("warned %v, want %v", got, c.warned)
			}
			var text strings.Builder
			if err := d.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			for code, mode := range c.warned {
				if said := strings.Contains(text.String(), code+" (denied, but not enforced)"); said != (mode == policy.Warn) {
					t.Errorf("%s is %s, printed:\n%s", code, mode, text.String())
				}
			}
			if b, err := json.Marshal(d); err != nil || len(c.warned) > 0 && !strings.Contains(string(b), `"mode":"`) {
				t.Errorf("%s %v", b, err)
			}
		})
	}
}

// A decision that a file of the directory makes says itself what it allows:
// modes do not turn its no into a yes.
func TestModesDoNotAllow(t *testing.T) {
	e := open(t, "grants.json", `{"modes": {"x.y": "warn"}}`, "decision.rego", "package ward.run\n\ndecision := {\"allow\": false, \"deny\": [{\"code\": \"x.y\", \"msg\": \"no\"}]}\n")
	denied(t, decide(t, e, good()), "policy.denied")
	e = open(t, "grants.json", `{"modes": {"x.y": "warn"}}`, "decision.rego", "package ward.run\n\ndecision := {\"allow\": true, \"deny\": [{\"code\": \"x.y\", \"msg\": \"no\"}]}\n")
	if d := decide(t, e, good()); !d.Allowed() || len(d.Warnings()) != 1 {
		t.Error(d.Reasons())
	}
}

func TestModesThatAreRefused(t *testing.T) {
	for _, modes := range []string{
		`[]`, `{"baseline.sysctls": "off"}`, `{"baseline.sysctls": true}`, `{"baseline.sysctls": ""}`, `{"sysctls": "warn"}`, `{"": "warn"}`,
		`{"exec/": "warn"}`, `{"nowhere/baseline.sysctls": "warn"}`, `{"policy.undefined": "warn"}`, `{"baseline.evidence": "warn"}`,
		`{"baseline.evidence-static": "audit"}`, `{"oci.evidence": "warn"}`, `{"baseline.input": "warn"}`, `{"run/exec.input": "audit"}`,
	} {
		_, err := policy.Open(policy.Config{Dir: dir(t, "grants.json", `{"modes": `+modes+`}`)})
		refused(t, err, fault.Invalid, "policy.grants", "modes", "grants.json")
	}
	for _, code := range []string{"baseline.sysctl", "site.tags", "exec/site.tags", "conftest.deny"} {
		_, err := policy.Open(policy.Config{Dir: dir(t, "a.rego", siteRule, "grants.json", `{"modes": {"`+code+`": "warn"}}`)})
		refused(t, err, fault.Invalid, "policy.modes", "grants.json", code[strings.Index(code, "/")+1:])
	}
}

// Every code that a shipped rule has can be named in modes, but those that
// cannot be loosened.
func TestShippedCodesAreKnown(t *testing.T) {
	files, err := os.ReadDir("rego")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if f.IsDir() {
			continue // the library refuses nothing
		}
		b, err := os.ReadFile("rego/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f.Name(), ".json") && (strings.HasSuffix(f.Name(), "_test.rego") || !strings.HasSuffix(f.Name(), ".rego")) {
			continue
		}
		for _, m := range regexp.MustCompile(`(?:"code": |reason\(|^  )"([a-z0-9]+\.[a-z_0-9-]+)"`).FindAllStringSubmatch(string(b), -1) {
			all = append(all, m[1])
		}
		for _, m := range regexp.MustCompile(`(?m)^  "([a-z0-9]+\.[a-z_0-9-]+)": \{`).FindAllStringSubmatch(string(b), -1) {
			all = append(all, m[1])
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) < 35 {
		t.Fatal(all)
	}
	for _, code := range all {
		_, err := policy.Open(policy.Config{Dir: dir(t, "grants.json", `{"modes": {"`+code+`": "warn"}}`)})
		fixed := strings.HasSuffix(code, ".input") || strings.Contains(code, ".evidence")
		if (err != nil) != fixed {
			t.Errorf("%s: %v", code, err)
		}
	}
}
