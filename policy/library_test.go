package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/policy"
)

// attested is an input about the image that testdata/attestations describes,
// nine hours after it was scanned, with that evidence changed.
func attested(t testing.TB, change func(evidence map[string]any)) policy.Input {
	t.Helper()
	b, err := os.ReadFile("testdata/attestations/evidence.json")
	if err != nil {
		t.Fatal(err)
	}
	var ev map[string]any
	if err := json.Unmarshal(b, &ev); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(ev)
	}
	in := good()
	in.Now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	if in.Evidence, err = json.Marshal(ev); err != nil {
		t.Fatal(err)
	}
	return in
}

func attestation(ev map[string]any, i int) map[string]any {
	return ev["attestations"].([]any)[i].(map[string]any)
}

func without(i int) func(map[string]any) {
	return func(ev map[string]any) {
		l := ev["attestations"].([]any)
		ev["attestations"] = append(l[:i:i], l[i+1:]...)
	}
}

// The page's rule: a scan of this build, not older than a day, minus VEX.
func TestPageScan(t *testing.T) {
	e := open(t, "scanned.rego", sample(t, "rego file=scanned.rego"))
	if d := decide(t, e, attested(t, nil)); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
	// No VEX.
	d := decide(t, e, attested(t, without(3)))
	denied(t, d, "site.vulnerable")
	if r := d.Reasons()[0]; r.Msg != "CVE-2025-11111 in libxml2 2.9.14+dfsg-1.3" || r.Fix != "use 2.9.14+dfsg-1.4, or have security attach a VEX statement" {
		t.Error(r)
	}
	// VEX by the build instead of security.
	byBuild := func(i int) func(map[string]any) {
		return func(ev map[string]any) { attestation(ev, i)["signers"] = attestation(ev, 0)["signers"] }
	}
	denied(t, decide(t, e, attested(t, byBuild(3))), "site.vulnerable")
	// A scan by the build: it is none of security's, but what it found counts.
	denied(t, decide(t, e, attested(t, byBuild(2))), "site.not-scanned")
	// Of another build, older than a day, none.
	other := func(ev map[string]any) { attestation(ev, 2)["digest"] = "sha256:" + strings.Repeat("2", 64) }
	denied(t, decide(t, e, attested(t, other)), "site.not-scanned")
	old := attested(t, nil)
	old.Now = old.Now.AddDate(0, 0, 1)
	denied(t, decide(t, e, old), "site.not-scanned")
	denied(t, decide(t, e, attested(t, without(2))), "site.not-scanned")
	denied(t, decide(t, e, good()), "site.not-scanned")
}

func TestPageBuilt(t *testing.T) {
	files := []string{"built.rego", sample(t, "rego file=built.rego"), "built_test.rego", sample(t, "rego file=built_test.rego")}
	e := open(t, files...)
	if d := decide(t, e, attested(t, nil)); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
	denied(t, decide(t, e, attested(t, without(0))), "site.provenance")
	denied(t, decide(t, e, attested(t, func(ev map[string]any) { without(5)(ev); without(4)(ev) })), "site.sbom")
	var out strings.Builder
	if err := e.Test(t.Context(), &out, policy.TestOptions{Run: `^data\.built_test\.`}); err != nil || !strings.Contains(out.String(), "PASS: 2/2") {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// A malformed attestation is no attestation, whoever signed it: never an error
// of the policy, never evidence.
func FuzzAttestation(f *testing.F) {
	b, err := os.ReadFile("testdata/attestations/evidence.json")
	if err != nil {
		f.Fatal(err)
	}
	var ev struct {
		Attestations []struct {
			Predicate json.RawMessage `json:"predicate"`
		} `json:"attestations"`
	}
	if err := json.Unmarshal(b, &ev); err != nil {
		f.Fatal(err)
	}
	for i, a := range ev.Attestations {
		f.Add(uint8(i), []byte(a.Predicate))
		for _, odd := range []string{`null`, `[]`, `"x"`, `7`, `{"packages":7,"spdxVersion":[]}`, `{"statements":[7,{"products":{}}]}`, `{"scanner":{"result":[[],{"severity":[7]}]}}`, `{"buildDefinition":{"resolvedDependencies":[null]}}`} {
			f.Add(uint8(i), []byte(odd))
		}
	}
	e := open(f, "scanned.rego", sample(f, "rego file=scanned.rego"), "built.rego", sample(f, "rego file=built.rego"))
	f.Fuzz(func(t *testing.T, which uint8, predicate []byte) {
		if len(predicate) > 1<<16 || !json.Valid(predicate) {
			return
		}
		in := attested(t, func(ev map[string]any) {
			attestation(ev, int(which)%len(ev["attestations"].([]any)))["predicate"] = json.RawMessage(predicate)
		})
		d, err := e.Decide(t.Context(), in)
		if err != nil {
			return // numbers or text that no input may hold; a bound
		}
		for _, r := range d.Reasons() {
			if strings.HasPrefix(r.Code, "policy.") && r.Code != "policy.more" {
				t.Fatalf("%s: %s", r.Code, r.Msg)
			}
		}
	})
}

// A long bill of materials and a long scan are judged well within
// the bounds of a decision.
func TestLibraryLarge(t *testing.T) {
	in := attested(t, func(ev map[string]any) {
		var packages, found, statements []any
		for i := range 1000 {
			purl := fmt.Sprintf("pkg:deb/debian/lib%d@1.%d?arch=amd64", i, i)
			packages = append(packages, map[string]any{"name": fmt.Sprint("lib", i), "versionInfo": fmt.Sprint("1.", i), "licenseDeclared": "MIT",
				"externalRefs": []any{map[string]any{"referenceType": "purl", "referenceLocator": purl}}})
			if i < 400 {
				found = append(found, map[string]any{"VulnerabilityID": fmt.Sprint("CVE-", i), "Severity": "HIGH", "PkgName": fmt.Sprint("lib", i), "PkgIdentifier": map[string]any{"PURL": purl}})
				statements = append(statements, map[string]any{"vulnerability": map[string]any{"name": fmt.Sprint("CVE-", i)}, "products": []any{map[string]any{"@id": purl}}, "status": "fixed"})
			}
		}
		attestation(ev, 4)["predicate"].(map[string]any)["packages"] = packages
		attestation(ev, 2)["predicate"].(map[string]any)["scanner"] = map[string]any{"result": map[string]any{"SchemaVersion": 2, "Results": []any{map[string]any{"Vulnerabilities": found}}}}
		attestation(ev, 3)["predicate"].(map[string]any)["statements"] = statements
	})
	e := open(t, "scanned.rego", sample(t, "rego file=scanned.rego"), "built.rego", sample(t, "rego file=built.rego"))
	if d := decide(t, e, in); !d.Allowed() {
		t.Fatal(codes(d.Reasons()))
	}
}
