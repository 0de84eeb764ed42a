package policy

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

// The directory to begin with is a policy, laid out and tested, that decides
// as none at all does.
func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "policy.d")
	made, err := Init(dir)
	if err != nil || len(made) != 3 {
		t.Fatalf("%v, %v", made, err)
	}
	e, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if e.Level() != Restricted {
		t.Errorf("its level is %s", e.Level())
	}
	var out bytes.Buffer
	if err := e.Test(t.Context(), &out, TestOptions{Dirs: []string{dir}}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, f := range made {
		if filepath.Ext(f) != ".rego" {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Format(f, text); err != nil || !bytes.Equal(b, text) {
			t.Errorf("%s is not laid out: %v", f, err)
		}
	}
	_, err = Init(dir)
	wanted(t, err, fault.Invalid, "policy.init", "already")
}

func TestInitOverwritesNothing(t *testing.T) {
	for _, name := range []string{"grants.json", "mine.rego", "site_test.rego", "grants.yaml", "sub"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Init(dir); err == nil {
			t.Errorf("beside %s it writes", name)
		}
		es, err := os.ReadDir(dir)
		if err != nil || len(es) != 1 {
			t.Errorf("%v, %v: want %s alone", es, err, name)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "mine" {
			t.Errorf("%s is %q now, %v", name, b, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir); err != nil {
		t.Errorf("beside notes: %v", err)
	}
}
