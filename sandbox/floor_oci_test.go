package sandbox

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOCIOptionsDoNotShowWard: the kernel reads the options of an overlay by
// rules of its own: what is relative is of its working directory, and "\" is
// taken away. No spelling may bring ward's own directories into a container.
func TestOCIOptionsDoNotShowWard(t *testing.T) {
	dir := t.TempDir()
	keep, other := filepath.Join(dir, "ward"), filepath.Join(dir, "other")
	for _, d := range []string{keep, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	check := func(kind string, options ...string) error {
		spec, err := json.Marshal(map[string]any{
			"mounts": []map[string]any{{"destination": "/mnt", "type": kind, "source": kind, "options": options}},
			"linux":  map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "mount"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return DefaultFloor().CheckOCI(OCIPlan{Op: OCICreate, Run: strings.Repeat("a", 64), ID: "c", StateDir: filepath.Join(dir, "state", "c"),
			Bundle: other, Rootfs: other, Sources: []string{""}, AuditDir: filepath.Join(keep, "audit"), Keep: []string{keep}, Spec: string(spec)})
	}
	for _, option := range []string{
		"lowerdir=" + other + ":" + keep, "lowerdir=../ward", "lowerdir=" + other + ":../../ward", "upperdir=../ward/u", "lowerdir+=../ward",
		"lowerdir=" + filepath.Dir(keep) + `/\ward`, "datadir+=../ward", "workdir=..", "lowerdir=" + other + "::../ward",
	} {
		if err := check("overlay", "ro", option); err == nil {
			t.Errorf("%s was let through", option)
		}
	}
	if err := check("overlay", "lowerdir="+other+"/a:"+other+"/b::"+other+"/c", "index=off"); err != nil {
		t.Error(err)
	}
	if err := check("tmpfs", "mode=755", "size=65536k", "nosuid"); err != nil {
		t.Error(err)
	}
}

// TestOCIMountNamespace: in the host's mount namespace all that is there is one
// chroot away, and what the container mounts the host sees.
func TestOCIMountNamespace(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	check := func(namespaces ...map[string]string) error {
		spec, err := json.Marshal(map[string]any{"linux": map[string]any{"namespaces": namespaces}})
		if err != nil {
			t.Fatal(err)
		}
		return DefaultFloor().CheckOCI(OCIPlan{Op: OCICreate, Run: strings.Repeat("a", 64), ID: "c", StateDir: filepath.Join(dir, "state", "c"),
			Bundle: dir, Rootfs: root, AuditDir: dir, Keep: []string{dir}, Spec: string(spec), SharedPID: true})
	}
	mount := func(path string) map[string]string { return map[string]string{"type": "mount", "path": path} }
	link := filepath.Join(dir, "ns")
	if err := os.Symlink("/proc/self/ns/mnt", link); err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string][]map[string]string{
		"none": nil, "another only": {{"type": "ipc"}}, "the host's": {mount("/proc/self/ns/mnt")}, "by a link": {mount(link)},
		"not there": {mount(filepath.Join(dir, "nothing"))},
	} {
		if err := check(spec...); err == nil || !strings.Contains(err.Error(), "mount namespace") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := check(mount("")); err != nil {
		t.Error(err)
	}
}

// TestOCISources: what is mounted is what the plan says was judged, and a plan
// that says less than its specification is none.
func TestOCISources(t *testing.T) {
	dir := t.TempDir()
	keep, other, link := filepath.Join(dir, "ward"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	for _, d := range []string{keep, other, filepath.Join(keep, "audit")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(keep, link); err != nil {
		t.Fatal(err)
	}
	check := func(kind, source, judged, rootfs string) bool {
		spec, err := json.Marshal(map[string]any{
			"mounts": []map[string]any{{"destination": "/mnt", "type": kind, "source": source}},
			"linux":  map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "mount"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		p := OCIPlan{Op: OCICreate, Run: strings.Repeat("a", 64), ID: "c", StateDir: filepath.Join(dir, "state", "c"), Bundle: other, Rootfs: rootfs,
			AuditDir: filepath.Join(keep, "audit"), Keep: []string{keep}, Spec: string(spec)}
		if judged != "none" {
			p.Sources = []string{judged}
		}
		return DefaultFloor().CheckOCI(p) == nil
	}
	for _, c := range []struct {
		kind, source, judged, rootfs string
		ok                           bool
	}{
		{"bind", other, other, other, true},
		{"bind", "relative", other, other, true},
		{"tmpfs", "tmpfs", "", other, true},
		{"bind", other, "none", other, false},
		{"bind", other, "", other, false},
		{"bind", other, "relative", other, false},
		{"bind", other, other + "/../ward", other, false},
		{"bind", other, keep, other, false},
		{"bind", other, link, other, false},
		{"bind", other, filepath.Join(link, "audit"), other, false},
		{"tmpfs", "tmpfs", other, other, false},
		{"bind", other, other, keep, false},
		{"bind", other, other, link, false},
		{"bind", other, other, "", false},
	} {
		if got := check(c.kind, c.source, c.judged, c.rootfs); got != c.ok {
			t.Errorf("%+v: let through is %v", c, got)
		}
	}
}
