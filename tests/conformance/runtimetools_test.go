package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mayFail are programs in which ward-oci passes less than Debian's runc 1.1,
// and why. It never passes less than the runc that is of its own libcontainer
// and its own Go (the peer).
var mayFail = map[string]string{
	"process_rlimits": "RLIMIT_AS of 1 GiB is less than the address space that Go 1.26's runtime reserves, and libcontainer's init runs under it; " +
		"Debian's runc is of an older Go, and the peer fails as well",
	"linux_ns_itype": "it asks for no namespace at all, and in the host's mount namespace a container would be a chroot away from ward's own directories",
}

// tap is how one program judged one runtime.
type tap struct{ ok, notOK, skipped int }

func (r tap) String() string {
	return fmt.Sprintf("%d ok, %d not ok, %d skipped", r.ok, r.notOK, r.skipped)
}

// parseTAP counts results; those of nested tests too.
func parseTAP(out string) (r tap) {
	for l := range strings.Lines(out) {
		l = strings.TrimSpace(l)
		switch {
		case strings.Contains(strings.ToLower(l), "# skip"):
			r.skipped++
		case strings.HasPrefix(l, "ok "):
			r.ok++
		case strings.HasPrefix(l, "not ok "):
			r.notOK++
		}
	}
	return r
}

// TestRuntimeTools runs the OCI's validation programs against ward-oci, against
// Debian's runc and against the peer, and asks for no fewer passes from
// ward-oci. Programs judge what the machine has too: what runc does not pass
// here is not asked.
func TestRuntimeTools(t *testing.T) {
	needs(t, "runc", "go", "tar")
	if testing.Short() {
		t.Skip("needs minutes: every program makes containers twice")
	}
	s := newSite(t)
	v := newValidation(t, s)
	names := v.programs()
	if len(names) < 50 {
		t.Fatalf("only %d programs were built", len(names))
	}
	// Those about control groups share their paths: one after the other. The
	// others mostly wait.
	var cgroups, rest []string
	for _, n := range names {
		if strings.HasPrefix(n, "linux_cgroups") || n == "delete_only_create_resources" || n == "delete_resources" {
			cgroups = append(cgroups, n)
		} else {
			rest = append(rest, n)
		}
	}
	var mu sync.Mutex
	lines := map[string]string{}
	less, lessThanPeer := map[string]bool{}, map[string]bool{}
	var all sync.WaitGroup
	work := func(names <-chan string) {
		for n := range names {
			runc, peer, ward := v.run(n, "runc"), v.run(n, "peer"), v.run(n, "ward")
			if ward.ok < max(runc.ok, peer.ok) { // a busy machine, perhaps
				runc, peer, ward = v.run(n, "runc"), v.run(n, "peer"), v.run(n, "ward")
			}
			mu.Lock()
			lines[n] = fmt.Sprintf("%-32s runc 1.1: %-32s peer: %-32s ward-oci: %s", n, runc, peer, ward)
			less[n], lessThanPeer[n] = ward.ok < runc.ok, ward.ok < peer.ok
			mu.Unlock()
		}
	}
	feed := func(names []string) <-chan string {
		c := make(chan string, len(names))
		for _, n := range names {
			c <- n
		}
		close(c)
		return c
	}
	all.Go(func() { work(feed(cgroups)) })
	queue := feed(rest)
	for range 4 {
		all.Go(func() { work(queue) })
	}
	all.Wait()
	for _, n := range names {
		t.Log(lines[n])
		reason, known := mayFail[n]
		switch {
		case lessThanPeer[n]:
			t.Errorf("%s: ward-oci passes less than the runc of its own libcontainer\n%s", n, v.said(n))
		case less[n] && known:
			t.Logf("%s: fewer, because %s", n, reason)
		case less[n]:
			t.Errorf("%s: ward-oci passes less than runc\n%s", n, v.said(n))
		}
	}
	v.sweep()
	s.settled()
}

// validation is the programs, and where they work.
type validation struct {
	t        *testing.T
	s        *site
	bin, dir string
}

func newValidation(t *testing.T, s *site) *validation {
	t.Helper()
	// Containers with ids of their own have to reach their root.
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	v := &validation{t, s, filepath.Join(s.Dir, "bin"), filepath.Join(s.Dir, "v")}
	for _, d := range []string{v.bin, v.dir, filepath.Join(v.dir, "tmp")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range []struct {
		module, to string
		env        []string
	}{
		{"../ocitools", v.bin + "/", []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath"}},
		{"../runc", filepath.Join(s.Dir, "peer"), []string{"CGO_ENABLED=1", "GOFLAGS=-buildvcs=false -trimpath -tags=seccomp"}},
	} {
		build := exec.Command("go", "build", "-o", b.to, "tool")
		build.Dir, build.Env = b.module, append(os.Environ(), b.env...)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", b.module, err, out)
		}
	}
	where := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-tools")
	where.Dir = "../ocitools"
	out, err := where.Output()
	if err != nil {
		t.Fatal(err)
	}
	s.sh("cp %s/rootfs-amd64.tar.gz %s/runtimetest %s/", strings.TrimSpace(string(out)), v.bin, v.dir)
	for name, line := range map[string]string{
		"runc": "exec runc --root " + s.Dir + "/runc", "peer": "exec " + s.Dir + "/peer --root " + s.Dir + "/peers", "ward": "exec " + s.runtime() + " --root " + s.Dir + "/oci",
	} {
		if err := os.WriteFile(filepath.Join(v.dir, name), []byte("#!/bin/sh\n"+line+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Each program is a caller; some ask for shared PID namespaces.
	var callers []caller
	for _, n := range v.programs() {
		callers = append(callers, caller{Exe: filepath.Join(v.bin, n), Bundles: "any", SharedPID: true})
	}
	s.trust(callers...)
	t.Cleanup(v.sweep)
	return v
}

func (v *validation) programs() []string {
	es, err := os.ReadDir(v.bin)
	if err != nil {
		v.t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		if e.Name() != "runtimetest" {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// run has one program judge one runtime, for a minute at most.
func (v *validation) run(name, runtime string) tap {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(v.bin, name))
	cmd.Dir = v.dir
	cmd.Env = append(slices.Clone(v.s.Env), "RUNTIME="+filepath.Join(v.dir, runtime), "TMPDIR="+filepath.Join(v.dir, "tmp"))
	// What it mounts and forgets must not stay on the machine.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.WaitDelay = 2 * time.Second
	out, _ := os.Create(filepath.Join(v.dir, name+"."+runtime+".out"))
	errs, _ := os.Create(filepath.Join(v.dir, name+"."+runtime+".err"))
	defer out.Close()
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	_ = cmd.Run() // what counts is what it printed
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return tap{}
	}
	return parseTAP(string(b))
}

// said is what a program had to say of ward-oci.
func (v *validation) said(name string) string {
	var s strings.Builder
	for _, kind := range []string{".ward.out", ".ward.err"} {
		b, _ := os.ReadFile(filepath.Join(v.dir, name+kind))
		s.Write(b[:min(len(b), 3000)])
	}
	return s.String()
}

// sweep removes the containers that programs leave behind, of both runtimes,
// and the control groups that they make themselves.
func (v *validation) sweep() {
	for _, c := range []struct{ dir, runtime string }{{"runc", "runc"}, {"peers", "peer"}, {"oci", "ward"}} {
		es, _ := os.ReadDir(filepath.Join(v.s.Dir, c.dir))
		for _, e := range es {
			v.s.try("%s delete --force %s", filepath.Join(v.dir, c.runtime), e.Name())
		}
	}
	v.s.try("find /sys/fs/cgroup -depth -type d \\( -path '*/cgrouptest*' -o -path '*/testdir*' \\) -exec rmdir {} + 2>/dev/null")
}

// TestTAP: the count is of results, nested ones too.
func TestTAP(t *testing.T) {
	got := parseTAP("TAP version 13\nok 1 - a\n  ok 2 - b\nnot ok 3 - c\nok 4 # SKIP d\n  ---\n  okay\n1..4\n")
	if want := (tap{2, 1, 1}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
