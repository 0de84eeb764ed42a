//go:build vmguest

package guest

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

// ociLife is a container of ward-oci, whose caller is this program: each verb,
// with limits that are looked at from outside and run into from inside.
func ociLife(t *testing.T, w *lab.Ward) {
	oci := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(lab.Bin(), "ward-oci"), args...)
		cmd.Dir, cmd.Env = w.Dir, w.Env
		r := w.Finish(cmd)
		if r.Code != code {
			t.Fatalf("ward-oci %s: exit %d instead of %d\n%s%s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
		}
		return r.Stdout + r.Stderr
	}
	grants := trustSelf(t, w)
	defer os.Remove(grants)
	bundle := ociBundle(t, w)
	n := len(w.Records())

	ociDetached(t, w, "create", "-b", bundle, "c1")
	t.Cleanup(func() { oci(0, "delete", "--force", "c1") })
	state := func(want string) {
		t.Helper()
		within(t, 10*time.Second, "state "+want, func() bool { return strings.Contains(oci(0, "state", "c1"), `"status": "`+want+`"`) })
	}
	state("created")
	cgroup := filepath.Join(cgroupRoot, "oci-test/c1")
	for file, want := range map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "40", "cpu.max": "50000 100000"} {
		if got := read(t, cgroup, file); got != want {
			t.Errorf("%s is %q instead of %q", file, got, want)
		}
	}
	oci(0, "start", "c1")
	state("running")
	if got := oci(5, "exec", "c1", "sh", "-c", "cat /proc/self/cgroup; exit 5"); got != "0::/\n" {
		t.Errorf("exec: %q", got)
	}

	// They bite: memory, processes, devices.
	oci(137, "exec", "c1", "tail", "/dev/zero")
	state("running")
	if got := number(t, "oom_kill", cgroup, "memory.events"); got != 1 {
		t.Errorf("%d processes were killed for want of memory", got)
	}
	if got := oci(0, "exec", "c1", "sh", "-c", forks); got != "10\n" {
		t.Errorf("under a limit of forty: %q", got)
	}
	if err := openedIn(cgroup, "/dev/zero"); err != nil {
		t.Errorf("/dev/zero: %v", err)
	}
	if err := openedIn(cgroup, "/dev/kmsg"); err == nil {
		t.Error("/dev/kmsg can be opened")
	}

	oci(0, "update", "--memory", "48m", "--pids-limit", "16", "--cpu-quota", "20000", "c1")
	if got := read(t, cgroup, "memory.max") + " " + read(t, cgroup, "pids.max") + " " + read(t, cgroup, "cpu.max"); got != "50331648 16 20000 100000" {
		t.Errorf("updated: %q", got)
	}
	if got := oci(0, "exec", "c1", "sh", "-c", "(for i in $(seq 20); do sleep 3 >/dev/null 2>&1 & done) 2>&1; true"); !strings.Contains(got, "can't fork") {
		t.Errorf("more than twenty processes under a limit of sixteen: %s", got)
	}
	oci(0, "pause", "c1")
	if got := read(t, cgroup, "cgroup.events"); !strings.Contains(got, "frozen 1") {
		t.Errorf("paused: %q", got)
	}
	state("paused")
	oci(0, "resume", "c1")
	oci(0, "kill", "c1", "KILL")
	state("stopped")
	oci(0, "delete", "c1")
	if _, err := os.Stat(cgroup); !os.IsNotExist(err) {
		t.Errorf("the cgroup is still there (%v)", err)
	}
	if err := os.Remove(filepath.Dir(cgroup)); err != nil {
		t.Error(err)
	}
	for typ, want := range map[audit.Type]int{audit.OCIIntent: 5, audit.ExecExit: 4, audit.OCIUpdate: 1, audit.RunStart: 1, audit.RunExit: 1} {
		if got := len(recorded(w, n, typ)); got != want {
			t.Errorf("%d %s records, want %d", got, typ, want)
		}
	}

	// There is no systemd in the machine.
	if got := oci(1, "--systemd-cgroup", "create", "-b", bundle, "c2"); !strings.Contains(got, "oci.systemd-cgroup") {
		t.Errorf("--systemd-cgroup: %s", got)
	}
	w.Gone(t)
}

// trustSelf names this program in the grants document.
func trustSelf(t *testing.T, w *lab.Ward) string {
	t.Helper()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.Root, "etc/policy.d/grants.json")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, fmt.Appendf(nil, `{"oci": {"callers": [{"exe": %q, "uid": 0, "bundles": "any"}]}}`, self), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func ociBundle(t *testing.T, w *lab.Ward) string {
	t.Helper()
	bundle := filepath.Join(w.Dir, "bundle")
	archive := filepath.Join(w.Dir, "rootfs.tar")
	if err := lab.Rootfs(archive); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"tar", "-C", filepath.Join(bundle, "rootfs"), "-xf", archive}, {filepath.Join(lab.Bin(), "ward-oci"), "spec", "-b", bundle}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = w.Env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	file := filepath.Join(bundle, "config.json")
	var spec map[string]any
	if err := json.Unmarshal([]byte(read(t, file)), &spec); err != nil {
		t.Fatal(err)
	}
	p := spec["process"].(map[string]any)
	p["terminal"], p["args"] = false, []string{"sleep", "600"}
	delete(p, "rlimits")
	l := spec["linux"].(map[string]any)
	l["cgroupsPath"] = "/oci-test/c1"
	r := l["resources"].(map[string]any)
	r["memory"] = map[string]any{"limit": 64 << 20, "swap": 64 << 20}
	r["pids"] = map[string]any{"limit": 40}
	r["cpu"] = map[string]any{"quota": 50000, "period": 100000}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// ociDetached runs ward-oci with files for streams: a pipe would be the
// container's, too, and have no end.
func ociDetached(t *testing.T, w *lab.Ward, args ...string) {
	t.Helper()
	out, err := os.Create(filepath.Join(w.Dir, "detached.out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(lab.Bin(), "ward-oci"), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.Dir, w.Env, out, out
	if err := cmd.Run(); err != nil {
		t.Fatalf("ward-oci %v: %v\n%s", args, err, read(t, out.Name()))
	}
}

// openedIn opens a device of the host as a process with all privilege in a
// cgroup.
func openedIn(cgroup, device string) error {
	return exec.Command("busybox", "sh", "-c", `echo $$ >"$1/cgroup.procs" && : <"$2"`, "sh", cgroup, device).Run()
}
