// Package conformance has other programs call ward-oci as they would call
// runc: a shell, containerd, podman and Docker from Debian's packages, and the
// validation programs of the OCI's runtime-tools, whose results are compared
// with those of Debian's runc on the same machine.
//
// Each caller is started by its test, with state and sockets of its own, and
// ended by it. What is asserted is what the caller sees, and what is on record.
package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// needs skips a test whose caller is not installed.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	lab.NeedsRoot(t)
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
}

// site is a ward with callers that it trusts, and a root file system.
type site struct {
	*lab.Ward
	t      *testing.T
	rootfs string
	tar    string // the same as an archive
}

// caller is an entry of the grants document.
type caller struct {
	Exe       string `json:"exe"`
	UID       int    `json:"uid"`
	Bundles   string `json:"bundles,omitempty"`
	SharedPID bool   `json:"shared_pid,omitempty"`
}

func newSite(t *testing.T, callers ...caller) *site {
	t.Helper()
	w := lab.New(t)
	s := &site{Ward: w, t: t, rootfs: filepath.Join(w.Dir, "rootfs"), tar: filepath.Join(w.Dir, "rootfs.tar")}
	w.Must("audit", "init")
	s.trust(callers...)
	if err := lab.Rootfs(s.tar); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	s.sh("tar -C %s -xf %s", s.rootfs, s.tar)
	return s
}

// trust replaces the callers that the ward trusts.
func (s *site) trust(callers ...caller) {
	s.t.Helper()
	dir := filepath.Join(s.Root, "etc/policy.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if callers == nil {
		callers = []caller{}
	}
	b, err := json.Marshal(map[string]any{"oci": map[string]any{"callers": callers}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "grants.json"), b, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// sh runs a line of shell that has to succeed and returns what it printed.
func (s *site) sh(format string, args ...any) string {
	s.t.Helper()
	out, code := s.try(format, args...)
	if code != 0 {
		s.t.Fatalf("%s: exit %d\n%s", fmt.Sprintf(format, args...), code, out)
	}
	return out
}

// try runs a line of shell and returns what it printed and its exit code.
func (s *site) try(format string, args ...any) (string, int) {
	s.t.Helper()
	cmd := exec.Command("/bin/bash", "-c", fmt.Sprintf(format, args...)+"\nexit $?")
	cmd.Dir, cmd.Env = s.Dir, append(s.Env, "W="+s.runtime())
	r := s.Finish(cmd)
	return r.Stdout + r.Stderr, r.Code
}

// runtime is the path of ward-oci.
func (s *site) runtime() string { return filepath.Join(lab.Bin(), "ward-oci") }

// expect fails unless a line of shell ends with this code and its output holds
// all of these words.
func (s *site) expect(code int, words []string, format string, args ...any) string {
	s.t.Helper()
	out, got := s.try(format, args...)
	if got != code {
		s.t.Errorf("%s: exit %d, want %d\n%s", fmt.Sprintf(format, args...), got, code, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			s.t.Errorf("%s: %q is not in\n%s", fmt.Sprintf(format, args...), w, out)
		}
	}
	return out
}

// bundle makes a bundle whose payload is args and returns its directory.
func (s *site) bundle(name string, change func(map[string]any), args ...string) string {
	s.t.Helper()
	dir := filepath.Join(s.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.sh("$W spec -b %s", dir)
	file := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		s.t.Fatal(err)
	}
	p := spec["process"].(map[string]any)
	p["terminal"], p["args"] = false, args
	spec["root"] = map[string]any{"path": s.rootfs, "readonly": true}
	if change != nil {
		change(spec)
	}
	if b, err = json.Marshal(spec); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// start starts a caller that stays, and ends it with the test.
func (s *site) start(log string, name string, args ...string) *exec.Cmd {
	s.t.Helper()
	f, err := os.Create(filepath.Join(s.Dir, log))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.Dir, s.Env, f, f
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if s.t.Failed() {
			b, _ := os.ReadFile(f.Name())
			s.t.Logf("%s said:\n%s", name, b[max(0, len(b)-4000):])
		}
		f.Close()
	})
	return cmd
}

// recorded fails unless the log has exactly these numbers of records.
func (s *site) recorded(want map[audit.Type]int) {
	s.t.Helper()
	for typ, n := range want {
		got := 0
		for range 100 { // a monitor may be a moment behind its container
			if got = s.Count(typ, ""); got == n {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if got != n {
			s.t.Errorf("%d records of %s, want %d", got, typ, n)
		}
	}
	s.Must("audit", "verify")
}

// unmatched are the intents without an end, and the ends without an intent.
func (s *site) unmatched() []string {
	open := map[string]int{}
	for _, e := range s.Records() {
		var d struct{ Exec string }
		_ = json.Unmarshal(e.Data, &d)
		key := e.Run + " " + d.Exec
		switch e.Type {
		case audit.OCIIntent:
			open[key]++
		case audit.RunExit, audit.RunLost, audit.ExecExit:
			open[key]--
		case audit.RunDenied, audit.ExecDenied:
			if _, intended := open[key]; intended {
				open[key]--
			}
		}
	}
	var out []string
	for key, n := range open {
		if n != 0 {
			out = append(out, fmt.Sprintf("%s: %+d", key, n))
		}
	}
	return out
}

// settled fails unless each intent comes to have exactly one end.
func (s *site) settled() {
	s.t.Helper()
	var left []string
	for range 200 {
		if left = s.unmatched(); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("intents without exactly one end: %v", left)
}
