package policy_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

const ociDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// ociInput is what a shim of containerd's asks for, with a verified image.
func ociInput(change ...func(*policy.Input)) policy.Input {
	in := policy.Input{Point: policy.PointOCI, Now: time.Unix(1, 0), Evidence: json.RawMessage(`{"verified":true,"digest":"` + ociDigest + `","signers":[{"kind":"key"}]}`)}
	in.Actor = policy.Actor{UID: 0, LoginUID: 1000, PID: 7, Exe: "/usr/bin/shim"}
	in.Image.Checksum = ociDigest
	in.OCI = policy.OCI{Op: "create", ID: "c1", Bundle: "/run/b"}
	for _, f := range change {
		f(&in)
	}
	return in
}

func unnamed(in *policy.Input) { in.Image.Checksum, in.Evidence = "", nil }
func shared(in *policy.Input)  { in.OCI.SharedPID = true }
func by(exe string, uid uint32) func(*policy.Input) {
	return func(in *policy.Input) { in.Actor.Exe, in.Actor.UID = exe, uid }
}

func openOCI(t *testing.T, files ...string) *policy.Engine {
	t.Helper()
	e, err := policy.Open(policy.Config{Dir: dir(t, files...), Point: policy.PointOCI})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestOCICallers: nobody may start anything before the grants document names
// who, and then each may what it is named for.
func TestOCICallers(t *testing.T) {
	const (
		nobody   = ``
		verified = `{"oci": {"callers": [{"exe": "/usr/bin/shim", "uid": 0}]}}`
		any      = `{"oci": {"callers": [{"exe": "/usr/bin/shim", "uid": 0, "bundles": "any"}]}}`
		sharing  = `{"oci": {"callers": [{"exe": "/usr/bin/shim", "uid": 0, "bundles": "any", "shared_pid": true}]}}`
	)
	for _, c := range []struct {
		name, grants string
		in           policy.Input
		code         string // "" is allowed
	}{
		{"nobody is named", nobody, ociInput(), "oci.caller"},
		{"nobody is named, no image", nobody, ociInput(unnamed), "oci.caller"},
		{"verified image", verified, ociInput(), ""},
		{"no image", verified, ociInput(unnamed), "oci.bundle"},
		{"another program", verified, ociInput(by("/usr/bin/other", 0)), "oci.caller"},
		{"another user", verified, ociInput(by("/usr/bin/shim", 1000)), "oci.caller"},
		{"no program", verified, ociInput(by("", 0)), "oci.caller"},
		{"any bundle", any, ociInput(unnamed), ""},
		{"any bundle, image verified", any, ociInput(), ""},
		{"image that nobody signed", any, ociInput(func(in *policy.Input) {
			in.Evidence = json.RawMessage(strings.Replace(string(in.Evidence), `"key"`, `"static"`, 1))
		}), "oci.evidence"},
		{"any bundle, image not verified", any, ociInput(func(in *policy.Input) { in.Evidence = nil }), "oci.evidence"},
		{"evidence for another image", any, ociInput(func(in *policy.Input) { in.Image.Checksum = "sha256:22" }), "oci.evidence"},
		{"shared pid namespace", any, ociInput(shared), "oci.shared-pid"},
		{"shared pid namespace, granted", sharing, ociInput(shared), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []string
			if c.grants != "" {
				files = []string{"grants.json", c.grants}
			}
			d := decide(t, openOCI(t, files...), c.in)
			if c.code == "" {
				if !d.Allowed() {
					t.Fatal(d.Reasons())
				}
				return
			}
			denied(t, d, c.code)
		})
	}
}

func TestOCICallersThatAreRefused(t *testing.T) {
	for _, text := range []string{
		`{"oci": []}`, `{"oci": {"caller": []}}`, `{"oci": {"callers": {}}}`, `{"oci": {"callers": ["/usr/bin/shim"]}}`,
		`{"oci": {"callers": [{}]}}`, `{"oci": {"callers": [{"exe": "/a"}]}}`, `{"oci": {"callers": [{"uid": 0}]}}`,
		`{"oci": {"callers": [{"exe": "shim", "uid": 0}]}}`, `{"oci": {"callers": [{"exe": "/a/../b", "uid": 0}]}}`,
		`{"oci": {"callers": [{"exe": "/a", "uid": -1}]}}`, `{"oci": {"callers": [{"exe": "/a", "uid": "0"}]}}`,
		`{"oci": {"callers": [{"exe": "/a", "uid": 4294967295}]}}`, `{"oci": {"callers": [{"exe": "/a", "uid": 0, "bundles": "all"}]}}`,
		`{"oci": {"callers": [{"exe": "/a", "uid": 0, "shared_pid": "yes"}]}}`, `{"oci": {"callers": [{"exe": "/a", "uid": 0, "bundle": "any"}]}}`,
	} {
		_, err := policy.Open(policy.Config{Dir: dir(t, "grants.json", text), Point: policy.PointOCI})
		refused(t, err, fault.Invalid, "policy.grants")
	}
}

// Local rules tighten; a file with the decision's name replaces it.
func TestOCILocalRules(t *testing.T) {
	const any = `{"oci": {"callers": [{"exe": "/usr/bin/shim", "uid": 0, "bundles": "any"}]}}`
	deny := "package ward.oci\n\ndeny contains {\"code\": \"local.hooks\", \"msg\": \"hooks\", \"fix\": \"\"} if count(input.oci.hooks) > 0\n"
	e := openOCI(t, "grants.json", any, "local.rego", deny)
	if d := decide(t, e, ociInput(unnamed)); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
	denied(t, decide(t, e, ociInput(unnamed, func(in *policy.Input) { in.OCI.Hooks = []string{"/bin/hook"} })), "local.hooks")
	own := openOCI(t, "oci.rego", "package ward.oci\n\ndecision := {\"allow\": input.oci.id == \"c1\", \"deny\": []}\n")
	if d := decide(t, own, ociInput(unnamed)); !d.Allowed() || d.Level() != "custom" {
		t.Fatal(d.Reasons(), d.Level())
	}
}

// A policy answers at the point it was opened for, and at no other.
func TestPoints(t *testing.T) {
	e := openOCI(t)
	_, err := e.Decide(t.Context(), good())
	refused(t, err, fault.Invalid, "policy.input")
	_, err = open(t).Decide(t.Context(), ociInput())
	refused(t, err, fault.Invalid, "policy.input")
	_, err = policy.Open(policy.Config{Point: "teleport"})
	refused(t, err, fault.Invalid, "policy.input")
}
