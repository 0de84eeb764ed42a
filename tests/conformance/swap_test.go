package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindSourceSwapped: a directory of another user, who swaps it for a link
// to one that policy would not let anybody mount, all the time. A container
// gets what was judged, or nothing.
func TestBindSourceSwapped(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	const user = 54321
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s.sh("mkdir -m 700 decoy && echo decoy >decoy/text && mkdir -p own/data && echo harmless >own/data/text && chmod 711 decoy && chown -R %d own && ln -s $PWD/decoy own/link", user)
	rules := "package ward.oci\n\ndeny contains {\"code\": \"local.decoy\", \"msg\": \"\", \"fix\": \"\"} if {\n\tsome m in input.run.mounts\n\tcontains(m.source, \"decoy\")\n}\n"
	if err := os.WriteFile(filepath.Join(s.Root, "etc/policy.d/local.rego"), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(s.Dir, "own/data")
	bind := func(path string) func(map[string]any) {
		return func(spec map[string]any) {
			spec["mounts"] = append(spec["mounts"].([]any), map[string]any{
				"destination": "/mnt", "type": "bind", "source": path, "options": []string{"rbind", "ro"}})
		}
	}
	// A link that stays one is judged by where it leads.
	s.expect(1, []string{"local.decoy"}, "$W run -b %s c1", s.bundle("link", bind(filepath.Join(s.Dir, "own/link")), "/bin/true"))
	b := s.bundle("b", bind(source), "/bin/cat", "/mnt/text")
	s.expect(0, []string{"harmless"}, "$W run -b %s c1", b)

	swapper := exec.Command("/proc/self/exe", "-test.run=^TestSwapper$")
	swapper.Env = append(os.Environ(), "WARD_SWAP="+filepath.Join(s.Dir, "own"))
	swapper.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, Pdeathsig: syscall.SIGKILL}
	swapper.Dir = "/"
	// This program may lie where that user cannot reach it.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	swapper.Path, swapper.ExtraFiles = "/proc/self/fd/3", []*os.File{self}
	if err := swapper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = swapper.Process.Kill(); _ = swapper.Wait() }()
	seen := map[string]int{}
	for range 40 {
		out, code := s.try("$W run -b %s c1 2>&1", b)
		switch {
		case strings.Contains(out, "decoy\n") && code == 0:
			seen["decoy"]++
		case code == 0:
			seen["harmless"]++
		case strings.Contains(out, "local.decoy"):
			seen["denied"]++
		case strings.Contains(out, "oci.source"):
			seen["refused"]++
		default:
			t.Fatalf("exit %d: %s", code, out)
		}
	}
	t.Log(seen)
	if seen["decoy"] > 0 {
		t.Errorf("%d of 40 containers were shown what nobody may mount", seen["decoy"])
	}
	s.settled()
	s.Gone(t)
}

// TestSwapper is no test: it is the user who swaps.
func TestSwapper(t *testing.T) {
	dir := os.Getenv("WARD_SWAP")
	if dir == "" {
		return
	}
	a, b := filepath.Join(dir, "data"), filepath.Join(dir, "link")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
}
