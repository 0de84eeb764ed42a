package vsa

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var hex = strings.Repeat("ab", 32)

func facts() Facts {
	return Facts{Verifier: DefaultVerifier, Version: "v1", At: time.Unix(1e9, 0), Reference: "registry.example:5000/team/app:1.2", Digest: "sha256:" + hex,
		Level: "restricted", Revision: "sha256:" + strings.Repeat("01", 32), Decided: "sha256:" + strings.Repeat("02", 32),
		Inputs: []Input{{"a/b", "sha256:" + hex}, {"a/b", "sha256:" + hex}}}
}

// Every field that the specification requires is there, in its form.
func TestPredicate(t *testing.T) {
	b, err := Predicate(facts())
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Verifier     struct{ ID string }
		TimeVerified time.Time
		ResourceURI  string
		Policy       struct {
			URI    string
			Digest map[string]string
		}
		InputAttestations  []struct{ Digest map[string]string }
		VerificationResult string
		VerifiedLevels     []string
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if p.Verifier.ID != DefaultVerifier || p.TimeVerified.Unix() != 1e9 || p.VerificationResult != "PASSED" ||
		p.Policy.URI != "urn:ward:policy:restricted" || p.Policy.Digest["sha256"] != strings.Repeat("01", 32) ||
		len(p.InputAttestations) != 1 || p.InputAttestations[0].Digest["sha256"] != hex {
		t.Errorf("%s", b)
	}
	if want := "pkg:oci/app@sha256%3A" + hex + "?repository_url=registry.example:5000%2Fteam%2Fapp&tag=1.2"; p.ResourceURI != want {
		t.Errorf("%s, want %s", p.ResourceURI, want)
	}
	// Values of one's own must not look like levels of SLSA, which nobody has verified.
	if len(p.VerifiedLevels) != 1 || strings.HasPrefix(p.VerifiedLevels[0], "SLSA_") {
		t.Errorf("levels %v", p.VerifiedLevels)
	}
}

// Nothing is summed up that is not known by its digest.
func TestNothingIsLeftOut(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"verifier": func(f *Facts) { f.Verifier = "me" }, "time": func(f *Facts) { f.At = time.Time{} }, "image": func(f *Facts) { f.Digest = "" },
		"name": func(f *Facts) { f.Reference = "" }, "policy": func(f *Facts) { f.Revision = "" }, "level": func(f *Facts) { f.Level = "" },
		"decided": func(f *Facts) { f.Decided = "sha256:" }, "trust": func(f *Facts) { f.Trust = "x" },
		"input": func(f *Facts) { f.Inputs[0].Digest = "sha1:00" },
	} {
		f := facts()
		change(&f)
		if b, err := Predicate(f); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
}
