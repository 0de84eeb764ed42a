package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// unnoticeably writes a file so that inode, size and times are what they were.
func unnoticeably(t *testing.T, path, content string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(content), 0)
		err = errors.Join(err, f.Close(), os.Chtimes(path, st.ModTime(), st.ModTime()))
	}
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != st.Size() || !now.ModTime().Equal(st.ModTime()) {
		t.Fatalf("the test is to change nothing but the content: %v", err)
	}
}

// TestChangedPolicyBitesAtOnce changes the directory between two questions, in
// ways that no time stamp shows.
func TestChangedPolicyBitesAtOnce(t *testing.T) {
	const host = `{"networks": ["host"]}`
	const rule, other = "package ward.run\n\ndeny contains \"not today\" if input.run.name == \"x\"\n", "package ward.run\n\ndeny contains \"not today\" if input.run.name == \"\"\n "
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		code   string // of the denial, or
		rule   string // of the refusal
	}{
		"a grant emptied": {func(t *testing.T, dir string) {
			unnoticeably(t, filepath.Join(dir, "grants.json"), "{"+strings.Repeat(" ", len(host)-2)+"}")
		}, "baseline.host-namespaces", ""},
		"grants removed": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "grants.json")); err != nil {
				t.Fatal(err)
			}
		}, "baseline.host-namespaces", ""},
		"a rule changed": {func(t *testing.T, dir string) { unnoticeably(t, filepath.Join(dir, "own.rego"), other) }, "policy.deny", ""},
		"a rule more": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "more.rego"), []byte("package ward.run\n\ndeny contains \"no\" if true\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "policy.deny", ""},
		"no Rego any more": {func(t *testing.T, dir string) {
			b := []byte(rule)
			for i := range b {
				b[i] = '('
			}
			unnoticeably(t, filepath.Join(dir, "own.rego"), string(b))
		}, "", "policy.syntax"},
		"writable by others": {func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "own.rego"), 0o666); err != nil {
				t.Fatal(err)
			}
		}, "", "policy.writable"},
	} {
		t.Run(name, func(t *testing.T) {
			at := dir(t, "grants.json", host, "own.rego", rule)
			d := policy.NewDirectory(policy.Config{Dir: at})
			in := with(network("host"))
			for range 2 {
				if dec, err := d.Decide(t.Context(), in); err != nil || !dec.Allowed() {
					t.Fatal(err, dec.Reasons())
				}
			}
			c.change(t, at)
			dec, err := d.Decide(t.Context(), in)
			if c.rule != "" {
				refused(t, err, fault.Invalid, c.rule)
				if dec.Allowed() {
					t.Error("something of the old policy is in force")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			denied(t, dec, c.code)
			fresh, err := policy.Open(policy.Config{Dir: at})
			if err != nil || fresh.Revision() != dec.Revision() {
				t.Errorf("the revision is not that of the files: %v", err)
			}
		})
	}
}

// TestDirectoryCompilesOnce holds that equal files are not compiled again, and
// that each point has its own.
func TestDirectoryCompilesOnce(t *testing.T) {
	at := dir(t, "grants.json", `{}`)
	d := policy.NewDirectory(policy.Config{Dir: at})
	first, err := d.Current(policy.PointRun)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "grants.json"), []byte(`{}`), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := d.Current(policy.PointRun)
	if err != nil || again != first {
		t.Errorf("compiled twice: %v", err)
	}
	ci, err := d.Current(policy.PointCI)
	if err != nil || ci == first || d.Compiled() != 2 {
		t.Errorf("one policy for two points: %v", err)
	}
	if _, err := d.Current("nowhere"); err == nil {
		t.Error("a point that nobody decides")
	}
}

// TestDirectoryFromManySides asks while the policy changes: nobody who asks
// after a change gets the answer from before.
func TestDirectoryFromManySides(t *testing.T) {
	at := dir(t, "grants.json", `{"networks": ["host"]}`)
	d := policy.NewDirectory(policy.Config{Dir: at})
	in := with(network("host"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := d.Decide(t.Context(), in); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		text := `{"networks": ["host"]}`
		if i%2 == 0 {
			text = `{}`
		}
		next := filepath.Join(at, ".next")
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, filepath.Join(at, "grants.json"))); err != nil {
			t.Fatal(err)
		}
		dec, err := d.Decide(t.Context(), in)
		if err != nil || dec.Allowed() != (i%2 == 1) {
			t.Fatalf("round %d: %v %v", i, dec.Allowed(), err)
		}
	}
	wg.Wait()
}
