package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

func TestMissingDirectoryIsTheShippedPolicy(t *testing.T) {
	e, err := policy.Open(policy.Config{Dir: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if !decide(t, e, good()).Allowed() || e.Revision() != open(t).Revision() || e.Level() != policy.Restricted {
		t.Fatal(e.Level(), e.Revision())
	}
}

// Every file that takes part is part of the revision, and no other.
func TestRevision(t *testing.T) {
	rule := "package ward.run\nwarn contains \"x\" if false\n"
	seen := map[string]string{}
	for name, files := range map[string][]string{
		"none": nil, "rule": {"a.rego", rule}, "rule changed": {"a.rego", rule + "#"}, "rule renamed": {"b.rego", rule},
		"data": {"a.json", `{"x":1}`}, "data changed": {"a.json", `{"x":2}`}, "grants": {"grants.json", `{}`},
		"grants yaml": {"grants.yaml", "{}"}, "level": {"grants.json", `{"level":"baseline"}`},
		"level restricted": {"grants.json", `{"level":"restricted"}`},
		"boundary":         {"a.json", `{"x":1,"y":1}`}, "boundary moved": {"a.json", `{"x":1}`, "b.json", `{"y":1}`},
	} {
		r := open(t, files...).Revision()
		if other, ok := seen[r]; ok {
			t.Errorf("%q and %q have one revision", name, other)
		}
		seen[r] = name
	}
	ignored := open(t, "a_test.rego", "package x\n", ".hidden.rego", "not rego", "a.rego~", "junk", "README.md", "words", "a.rego.dpkg-old", "junk")
	if seen[ignored.Revision()] != "none" {
		t.Error("files that decide nothing changed the revision")
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	root := os.Geteuid() == 0
	for name, c := range map[string]struct {
		rule string
		make func(d string) error
	}{
		"unknown kind":       {"policy.layout", func(d string) error { return os.WriteFile(d+"/deny.reg", nil, 0o600) }},
		"capitals":           {"policy.layout", func(d string) error { return os.WriteFile(d+"/deny.REGO", nil, 0o600) }},
		"directory":          {"policy.layout", func(d string) error { return os.Mkdir(d+"/more", 0o700) }},
		"directory.rego":     {"policy.layout", func(d string) error { return os.Mkdir(d+"/more.rego", 0o700) }},
		"fifo":               {"policy.unreadable", func(d string) error { return unix.Mkfifo(d+"/a.rego", 0o600) }},
		"dangling link":      {"policy.unreadable", func(d string) error { return os.Symlink("none", d+"/a.rego") }},
		"link out":           {"policy.unreadable", func(d string) error { return os.Symlink("/etc/passwd", d+"/a.json") }},
		"device":             {"policy.unreadable", func(d string) error { return os.Symlink("/dev/zero", d+"/a.json") }},
		"writable by group":  {"policy.writable", func(d string) error { return write(d+"/a.json", "{}", 0o620) }},
		"writable by others": {"policy.writable", func(d string) error { return write(d+"/a.rego", "package x", 0o602) }},
		"writable directory": {"policy.writable", func(d string) error { return os.Chmod(d, 0o777) }},
		"of a stranger": {"policy.owner", func(d string) error {
			if !root {
				return os.ErrPermission
			}
			if err := write(d+"/a.rego", "package x", 0o644); err != nil {
				return err
			}
			return os.Chown(d+"/a.rego", 12345, 12345)
		}},
		"large": {"policy.size", func(d string) error { return write(d+"/a.json", strings.Repeat(" ", 1<<20+1), 0o600) }},
		"large together": {"policy.size", func(d string) error {
			for _, n := range "abcde" {
				if err := write(d+"/"+string(n)+".json", `{"`+string(n)+`":1}`+strings.Repeat(" ", 1<<20-8), 0o600); err != nil {
					return err
				}
			}
			return nil
		}},
		"many": {"policy.size", func(d string) error {
			for i := range 257 {
				if err := write(d+"/"+strings.Repeat("a", i%16+1)+string(rune('a'+i/16))+".rego", "package x\n", 0o600); err != nil {
					return err
				}
			}
			return nil
		}},
		"a file in its place": {"policy.unreadable", func(d string) error {
			if err := os.Remove(d); err != nil {
				return err
			}
			return write(d, "{}", 0o600)
		}},
		"data conflict":   {"policy.data", func(d string) error { return two(d, "a.json", `{"x":{"z":1}}`, "b.yaml", "x: {z: 1}") }},
		"data not object": {"policy.data", func(d string) error { return write(d+"/a.json", `[1]`, 0o600) }},
		"data twice":      {"policy.data", func(d string) error { return write(d+"/a.json", `{"x":1,"x":2}`, 0o600) }},
		"yaml twice":      {"policy.data", func(d string) error { return write(d+"/a.yaml", "x: 1\nx: 2\n", 0o600) }},
		"data trailing":   {"policy.data", func(d string) error { return write(d+"/a.json", `{} {}`, 0o600) }},
		"data cut":        {"policy.data", func(d string) error { return write(d+"/a.json", `{"x":`, 0o600) }},
		"data empty":      {"policy.data", func(d string) error { return write(d+"/a.json", ``, 0o600) }},
		"data reserved":   {"policy.data", func(d string) error { return write(d+"/a.json", `{"ward":{"level":"x"}}`, 0o600) }},
		"data and package": {"policy.syntax", func(d string) error {
			return two(d, "a.json", `{"lib":{"x":1}}`, "b.rego", "package lib\nx := 2\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dir(t)
			if err := c.make(d); err == os.ErrPermission {
				t.Skip("needs root")
			} else if err != nil {
				t.Fatal(err)
			}
			_, err := policy.Open(policy.Config{Dir: d})
			refused(t, err, fault.Invalid, c.rule, d)
		})
	}
}

func write(path, text string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask
}

func two(d, a, textA, b, textB string) error {
	if err := write(d+"/"+a, textA, 0o600); err != nil {
		return err
	}
	return write(d+"/"+b, textB, 0o600)
}

func TestDataDocuments(t *testing.T) {
	e := open(t,
		"teams.json", `{"teams": {"a": {"max": 1}}}`, "more.yaml", "teams:\n  b: {max: 2}\n",
		"a.rego", "package ward.run\nimport data.lib.limit\ndeny contains \"x\" if limit(\"a\") + limit(\"b\") != 3\n",
		"lib.rego", "package lib\nlimit(team) := data.teams[team].max\n")
	if d := decide(t, e, good()); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
}

func TestLinksInsideTheDirectory(t *testing.T) { // as in a mounted ConfigMap
	d := dir(t)
	if err := os.Mkdir(d+"/..v1", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := write(d+"/..v1/grants.json", `{"level":"baseline"}`, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..v1/grants.json", d+"/grants.json"); err != nil {
		t.Fatal(err)
	}
	if e, err := policy.Open(policy.Config{Dir: d}); err != nil || e.Level() != policy.Baseline {
		t.Fatal(err)
	}
}

// A checkout may be writable by its group: testing it decides nothing.
func TestTestsOfWritableDirectories(t *testing.T) {
	d := dir(t, "a.rego", "package ward.run\n\ndeny contains \"x\" if false\n", "a_test.rego", "package a_test\n\ntest_a if true\n", "b_test.rego", "package b_test\n\ntest_b if false\n")
	if err := os.Chmod(d+"/a.rego", 0o666); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := open(t).Test(t.Context(), &out, policy.TestOptions{Dirs: []string{d}})
	refused(t, err, fault.Denied, "policy.test", "1 policy tests fail")
	if !strings.Contains(out.String(), "data.b_test.test_b: FAIL") || !strings.Contains(out.String(), "PASS: 1/2") {
		t.Fatal(out.String())
	}
	for _, missing := range []string{dir(t), filepath.Join(d, "none")} {
		refused(t, open(t).Test(t.Context(), &out, policy.TestOptions{Dirs: []string{missing}}), fault.NotFound, "policy.no-tests", missing)
	}
}

func TestUnreadableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs a user who is not root")
	}
	d := dir(t, "grants.json", "{}")
	if err := os.Chmod(d, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(d, 0o700) }) // or it could not be removed
	_, err := policy.Open(policy.Config{Dir: d})
	refused(t, err, fault.Invalid, "policy.unreadable", d)
}
