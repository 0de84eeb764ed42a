package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// loads opens the policy of one file, and says which packages of the library
// it has loaded.
func loads(t *testing.T, rule string) ([]string, string, error) {
	t.Helper()
	dir := t.TempDir()
	if rule != "" {
		if err := os.WriteFile(filepath.Join(dir, "site.rego"), []byte("package ward.run\n\n"+rule+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, err := Open(Config{Dir: dir})
	if err != nil {
		return nil, "", err
	}
	var out []string
	for name := range e.modules {
		if lib, ok := strings.CutPrefix(name, "ward/lib/"); ok {
			out = append(out, strings.TrimSuffix(lib, ".rego"))
		}
	}
	slices.Sort(out)
	return out, e.Revision(), nil
}

// What no rule names is not read; what is read is part of the revision.
func TestLibraryIsLoadedWhenNamed(t *testing.T) {
	for rule, want := range map[string]string{
		"": "",
		`deny contains "no" if input.run.args[0] == "data.ward.lib.sbom"`:                                          "",
		`deny contains "no" if not data.ward.lib.sbom.complete`:                                                    "evidence purl sbom",
		`deny contains "no" if not data.ward.lib["slsa"].provenances`:                                              "evidence slsa",
		"import data.ward.lib.identity\n\ndeny contains \"no\" if not identity.signed_by({})":                      "evidence identity",
		"import data.ward.lib.vex as v\n\ndeny contains \"no\" if count(v.remaining(set(), {})) > 0":               "evidence purl vex",
		"import data.ward.lib\n\ndeny contains \"no\" if not lib.identity.key(\"x\")":                              "evidence identity purl sbom scan slsa vex",
		`deny contains "no" if { some p in ["scan"]; data.ward.lib[p].reports == set() }`:                          "evidence identity purl sbom scan slsa vex",
		"import data.ward.lib.scan\n\ndeny contains \"no\" if { some r in scan.reports; r.format == \"unknown\" }": "evidence scan",
	} {
		got, _, err := loads(t, rule)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: loaded %v (%v), want %s", rule, got, err, want)
		}
	}
}

// A name that the library does not have would be undefined, and a rule about
// what is undefined denies nothing.
func TestLibraryNamesAreChecked(t *testing.T) {
	for _, rule := range []string{
		"import data.ward.lib.nothing\n\ndeny contains \"no\" if nothing.at_all",
		"import data.ward.lib.scan\n\ndeny contains \"no\" if { some r in scan.report; r.format == \"unknown\" }",
		`deny contains "no" if data.ward.lib.vex.statement`,
		"import data.ward.lib\n\ndeny contains \"no\" if lib.identities.signers",
		`deny contains "no" if not data.ward.lib.vex_test.finding`,
	} {
		if _, _, err := loads(t, rule); err == nil || !strings.Contains(err.Error(), "data.ward.lib") {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

func TestLibraryIsPartOfTheRevision(t *testing.T) {
	a := []source{{name: "site.rego", text: []byte("x")}}
	if revision(Restricted, a) == revision(Restricted, append(a, source{name: "ward/lib/scan.rego", text: []byte("y")})) {
		t.Fatal("the revision does not say what is loaded")
	}
	_, before, err := loads(t, `deny contains "no" if not data.ward.lib.scan.ranks`)
	if err != nil {
		t.Fatal(err)
	}
	if _, same, _ := loads(t, `deny contains "no" if not data.ward.lib.scan.ranks`); same != before {
		t.Error("two revisions of one policy")
	}
}
