package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// bash is the caller in most tests here.
func bash(t *testing.T) caller {
	t.Helper()
	exe, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	return caller{Exe: exe, Bundles: "any"}
}

// monitorOf is the monitor of the container with this state directory: the first process of the PID
// namespace around the container's.
func monitorOf(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "status.json"))
	if err != nil {
		t.Fatal(err)
	}
	var st struct {
		MonitorPID int `json:"monitor_pid"`
	}
	if err := json.Unmarshal(b, &st); err != nil || st.MonitorPID <= 1 {
		t.Fatal(string(b), err)
	}
	return st.MonitorPID
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		if !alive(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d lives", pid)
}

// TestNobodyIsTrusted: without a grant nothing starts, whoever asks and
// whatever it says of itself, and each refusal is on record.
func TestNobodyIsTrusted(t *testing.T) {
	needs(t)
	s := newSite(t)
	b := s.bundle("b", nil, "/bin/true")
	s.expect(1, []string{"oci.caller", "bash"}, "$W run -b %s c1", b)
	s.expect(1, []string{"oci.caller"}, "WARD_CALLER=/usr/bin/conmon $W create -b %s c1", b)
	s.trust(caller{Exe: "/usr/bin/conmon", Bundles: "any"})
	s.expect(1, []string{"oci.caller"}, "$W create -b %s c1", b)
	if es, _ := os.ReadDir(filepath.Join(s.Root, "run/oci")); len(es) != 0 {
		t.Errorf("a refused container left %v", es)
	}
	s.recorded(map[audit.Type]int{audit.RunDenied: 3, audit.OCIIntent: 0})
}

// TestCallerIsTheFileOfThatName: a program of a trusted name in a mount
// namespace of the caller's own is not the trusted program.
func TestCallerIsTheFileOfThatName(t *testing.T) {
	needs(t)
	s := newSite(t)
	trusted := filepath.Join(s.Dir, "trusted")
	s.sh("cp /bin/true trusted && cp /bin/bash impostor && chmod 755 trusted impostor")
	s.trust(caller{Exe: trusted, Bundles: "any"})
	b := s.bundle("b", nil, "/bin/true")
	// The impostor's parent namespace sees /bin/true under that name; ward-oci
	// is started in it.
	s.expect(1, []string{"oci.caller"},
		"unshare -m bash -c 'mount --bind impostor trusted; exec ./trusted -c \"nsenter -t '$$' -m env WARD_ROOT=$WARD_ROOT $W run -b %s c1; exit \\$?\"'", b)
	s.recorded(map[audit.Type]int{audit.OCIIntent: 0})
}

// TestLifeCycle is create, start, state, exec, kill and delete from a shell.
func TestLifeCycle(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	b := s.bundle("b", nil, "/bin/sleep", "1000")
	s.sh("$W create -b %s --pid-file pid c1 </dev/null >out 2>&1", b)
	raw, err := os.ReadFile(filepath.Join(s.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(raw))
	if err != nil || !alive(pid) {
		t.Fatalf("pid file %q: %v", raw, err)
	}
	state := func() map[string]any {
		var m map[string]any
		if err := json.Unmarshal([]byte(s.sh("$W state c1")), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	st := state()
	for k, want := range map[string]any{"id": "c1", "pid": float64(pid), "status": "created", "bundle": b, "rootfs": s.rootfs, "ociVersion": "1.3.0"} {
		if st[k] != want {
			t.Errorf("state.%s is %v, want %v", k, st[k], want)
		}
	}
	// Nested: the caller's number, the monitor's namespace, its own.
	status, err := os.ReadFile("/proc/" + string(raw) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if f := strings.Fields(l); f[0] == "NSpid:" && (len(f) != 4 || f[3] != "1") {
			t.Errorf("process ids are %v: not one in a namespace within the monitor's", f[1:])
		}
	}
	s.expect(1, []string{"container with given ID already exists"}, "$W create -b %s c1", b)
	s.sh("$W start c1")
	if st := state(); st["status"] != "running" {
		t.Errorf("status %v", st["status"])
	}
	s.expect(1, []string{"cannot start an already running container"}, "$W start c1")
	s.expect(5, []string{"inside"}, "$W exec c1 /bin/sh -c 'echo inside; exit 5'")
	s.expect(255, []string{"executable file not found in $PATH"}, "$W exec c1 nosuch")
	s.expect(1, []string{"that is not stopped: running"}, "$W delete c1")
	if out := s.sh("$W ps -f json c1"); strings.TrimSpace(out) != "["+string(raw)+"]" {
		t.Errorf("ps says %s", out)
	}
	s.expect(0, []string{"c1", "running", b}, "$W list")
	s.sh("$W pause c1")
	if st := state(); st["status"] != "paused" {
		t.Errorf("status %v", st["status"])
	}
	s.sh("$W resume c1")
	s.sh(`echo '{"memory": {"limit": 67108864}, "pids": {"limit": 33}}' | $W update -r - c1`)
	s.expect(0, []string{`"limit":67108864`, `"limit":33`, `"type":"stats"`}, "$W events --stats c1")
	s.sh("$W kill c1 KILL")
	gone(t, pid)
	for range 100 {
		if state()["status"] == "stopped" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if st := state(); st["status"] != "stopped" || st["pid"] != float64(0) {
		t.Errorf("state %v", st)
	}
	s.expect(1, []string{"container not running"}, "$W kill c1")
	s.sh("$W delete c1")
	s.expect(1, []string{"container does not exist"}, "$W state c1")
	s.expect(1, []string{"container does not exist"}, "$W delete c1")
	s.expect(0, nil, "$W delete --force c1")
	s.settled()
	s.recorded(map[audit.Type]int{audit.OCIIntent: 3, audit.RunStart: 1, audit.RunExit: 1, audit.ExecStart: 1, audit.ExecExit: 1, audit.OCIUpdate: 1})
	// Also what was asked for in vain.
	s.recorded(map[audit.Type]int{audit.ContainerPause: 1, audit.ContainerUnpause: 1, audit.ContainerSignal: 2, audit.ContainerRemove: 2})
	s.sh("$W run -d -b %s c2 </dev/null >/dev/null 2>&1; $W delete --force c2", b)
	s.recorded(map[audit.Type]int{audit.ContainerRemove: 3})
	s.Gone(t)
}

// TestRunHandsTheExitOn is run in the foreground: streams and exit code.
func TestRunHandsTheExitOn(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	b := s.bundle("b", nil, "/bin/sh", "-c", "read x; echo got $x; echo to stderr >&2; exit 7")
	s.expect(7, []string{"got input", "to stderr"}, "echo input | $W run -b %s c1", b)
	s.expect(1, []string{"executable file not found in $PATH"}, "$W run -b %s c2", s.bundle("nosuch", nil, "nosuch"))
	s.expect(1, []string{"permission denied"}, "$W run -b %s c3", s.bundle("noexec", nil, "/etc/passwd"))
	s.settled()
	s.Gone(t)
}

// TestMonitorDies: the kernel ends the container with its monitor, also a
// process that was added, and the loss is recorded.
func TestMonitorDies(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	s.sh("$W run -d -b %s --pid-file pid c1 </dev/null >out 2>&1", s.bundle("b", nil, "/bin/sleep", "1000"))
	s.sh("$W exec -d --pid-file added c1 /bin/sleep 1000 </dev/null >out2 2>&1")
	var pids []int
	for _, f := range []string{"pid", "added"} {
		raw, err := os.ReadFile(filepath.Join(s.Dir, f))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(string(raw))
		if err != nil || !alive(pid) {
			t.Fatal(pid, err)
		}
		pids = append(pids, pid)
	}
	if err := syscall.Kill(monitorOf(t, filepath.Join(s.Root, "run/oci/c1")), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		gone(t, pid)
	}
	s.sh("$W delete --force c1")
	s.recorded(map[audit.Type]int{audit.RunLost: 1, audit.RunExit: 0})
	s.Gone(t)
}

// TestFloor is what no grant gives.
func TestFloor(t *testing.T) {
	needs(t)
	trusted := bash(t)
	s := newSite(t, trusted)
	mount := func(source string) func(map[string]any) {
		return func(spec map[string]any) {
			spec["mounts"] = append(spec["mounts"].([]any), map[string]any{
				"destination": "/mnt", "type": "bind", "source": source, "options": []string{"rbind", "ro"}})
		}
	}
	noPID := func(spec map[string]any) {
		l := spec["linux"].(map[string]any)
		var rest []any
		for _, n := range l["namespaces"].([]any) {
			if n.(map[string]any)["type"] != "pid" {
				rest = append(rest, n)
			}
		}
		l["namespaces"] = rest
	}
	s.expect(1, []string{"floor.oci-mount"}, "$W run -b %s c1", s.bundle("log", mount(filepath.Join(s.Root, "lib/audit")), "/bin/true"))
	s.expect(1, []string{"floor.oci-mount"}, "$W run -b %s c1", s.bundle("host", mount("/"), "/bin/true"))
	s.expect(1, []string{"floor.oci-cgroup"}, "$W run -b %s c1",
		s.bundle("cgroup", func(spec map[string]any) { spec["linux"].(map[string]any)["cgroupsPath"] = "/ward/x" }, "/bin/true"))
	shared := s.bundle("shared", noPID, "/bin/true")
	s.expect(1, []string{"oci.shared-pid"}, "$W run -b %s c1", shared)
	trusted.SharedPID = true
	s.trust(trusted)
	s.expect(0, nil, "$W run -b %s c1", shared)
	s.settled()
	s.Gone(t)
}

// TestProcessThatCannotBeMade: what is wrong with the process is said, and the
// container that was made for it is taken away again.
func TestProcessThatCannotBeMade(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	rlimit := func(spec map[string]any) {
		spec["process"].(map[string]any)["rlimits"] = []any{map[string]any{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}}
	}
	s.expect(1, []string{"wrong rlimit value"}, "$W create -b %s c1", s.bundle("rlimit", rlimit, "/bin/true"))
	s.expect(1, []string{"no such file"}, "$W create --pidfd-socket /nowhere/s -b %s c1", s.bundle("pidfd", nil, "/bin/true"))
	// No state and no cgroup: the name is free.
	s.expect(0, nil, "$W run -b %s c1", filepath.Join(s.Dir, "pidfd"))
	s.settled()
	s.Gone(t)
}

// TestHookEnvironment: a hook that names no environment gets none, and nobody
// else's.
func TestHookEnvironment(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	b := s.bundle("b", func(spec map[string]any) {
		spec["hooks"] = map[string]any{"createRuntime": []any{
			map[string]any{"path": "/bin/sh", "args": []string{"sh", "-c", "/usr/bin/tr '\\0' '\\n' </proc/self/environ >" + s.Dir + "/environ; cat >" + s.Dir + "/state"}},
		}}
	}, "/bin/true")
	s.sh("LD_PRELOAD= SECRET=1 $W run -b %s c1", b)
	env, err := os.ReadFile(filepath.Join(s.Dir, "environ"))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(env)) {
		// What the shell adds by itself.
		if name, _, _ := strings.Cut(l, "="); name != "PWD" && name != "OLDPWD" && name != "_" && name != "SHLVL" {
			t.Errorf("the hook's environment has %q", l)
		}
	}
	var st map[string]any
	raw, err := os.ReadFile(filepath.Join(s.Dir, "state"))
	if err != nil || json.Unmarshal(raw, &st) != nil || st["id"] != "c1" {
		t.Errorf("the hook read %s, %v", raw, err)
	}
}

// TestImageIsVerified: a digest in the annotations is judged by ward's own
// trust, whoever the caller is.
func TestImageIsVerified(t *testing.T) {
	needs(t)
	trusted := bash(t)
	trusted.Bundles = "verified"
	s := newSite(t, trusted)
	const ref = "local.test/bb:1"
	s.Busybox(ref)
	digest := strings.TrimSpace(s.Must("inspect", "--format", "{{.Digest}}", ref))
	if !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("digest %q", digest)
	}
	named := func(a map[string]any) func(map[string]any) {
		return func(spec map[string]any) { spec["annotations"] = a }
	}
	ours := map[string]any{"org.ward.image.digest": digest, "org.ward.image.ref": ref}
	b := s.bundle("named", named(ours), "/bin/sleep", "1000")
	s.expect(1, []string{"oci.bundle"}, "$W run -b %s c1", s.bundle("unnamed", nil, "/bin/true"))
	s.expect(1, []string{"trust."}, "$W run -b %s c1", b)
	s.Vouch(ref)
	s.sh("$W run -d -b %s c1 </dev/null >out 2>&1", b)
	s.expect(0, nil, "$W exec c1 /bin/true")
	cri := map[string]any{"io.kubernetes.cri.image-name": "local.test/bb@" + digest}
	s.expect(0, nil, "$W run -b %s c2", s.bundle("cri", named(cri), "/bin/true"))
	other := map[string]any{"org.ward.image.digest": "sha256:" + strings.Repeat("1", 64), "org.ward.image.ref": ref}
	s.expect(1, []string{"oci.image"}, "$W run -b %s c3", s.bundle("other", named(other), "/bin/true"))
	s.expect(1, []string{"oci.annotation"}, "$W run -b %s c3", s.bundle("tag", named(map[string]any{"org.ward.image.ref": ref}), "/bin/true"))
	// Trust that is withdrawn counts for the container that runs.
	s.sh("rm %s/etc/trust.d/*", s.Root)
	s.expect(255, []string{"trust."}, "$W exec c1 /bin/true")
	s.sh("$W delete --force c1")
	s.settled()
	s.Gone(t)
}
