package launcher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// fields returns "Key:" lines of a /proc status file as a map.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.Join(strings.Fields(v), " ")
		}
	}
	return m
}

func procFile(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func procLink(t *testing.T, pid int, name string) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const noCaps = "0000000000000000"

var payloadStatus = map[string]string{
	"Uid": "100000 100000 100000 100000", "Gid": "100000 100000 100000 100000", "Groups": "100000",
	"CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapBnd": noCaps, "CapAmb": noCaps,
	"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1",
}

// TestPosture looks at a running container and its monitor from outside.
func TestPosture(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "1000")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop(proc)
	t.Run("payload", func(t *testing.T) { payloadPosture(t, proc) })
	t.Run("monitor", func(t *testing.T) { monitorPosture(t, proc) })
	t.Run("cgroups", func(t *testing.T) { cgroupPosture(t, p, proc) })
}

func payloadPosture(t *testing.T, proc *sandbox.Running) {
	pid := proc.HostPID()
	status := fields(procFile(t, pid, "status"))
	for k, want := range payloadStatus {
		if k == "Groups" {
			want = ""
		}
		if status[k] != want {
			t.Errorf("%s is %q, not %q", k, status[k], want)
		}
	}
	ids := strings.Fields(procFile(t, pid, "uid_map"))
	if want := []string{"0", "100000", "65536"}; !slices.Equal(ids, want) {
		t.Errorf("uid_map %v", ids)
	}
	if a, b := procFile(t, pid, "uid_map"), procFile(t, pid, "gid_map"); a != b {
		t.Errorf("gid_map %q", b)
	}
	for _, ns := range []string{"user", "pid", "ipc", "uts", "mnt", "cgroup", "net", "time"} {
		if procLink(t, pid, "ns/"+ns) == procLink(t, os.Getpid(), "ns/"+ns) {
			t.Errorf("the container is in the host's %s namespace", ns)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || len(fds) != 3 {
		t.Errorf("open descriptors: %v %v", fds, err)
	}
	for _, fd := range fds {
		if target := procLink(t, pid, "fd/"+fd.Name()); !strings.HasPrefix(target, "pipe:") {
			t.Errorf("descriptor %s is %s", fd.Name(), target)
		}
	}
	if env := procFile(t, pid, "environ"); env != "PATH=/bin\x00HOME=/\x00" && env != "PATH=/bin\x00HOME=/root\x00" {
		t.Errorf("environment %q", env)
	}
	if slack := procFile(t, pid, "timerslack_ns"); slack != "50000\n" {
		t.Errorf("timer slack %q", slack)
	}
	limits := procFile(t, pid, "limits")
	for _, want := range []string{"Max open files            4096                 4096", "Max core file size        1                    1"} {
		if !strings.Contains(limits, want) {
			t.Errorf("limits lack %q:\n%s", want, limits)
		}
	}
}

func monitorPosture(t *testing.T, proc *sandbox.Running) {
	pid := proc.MonitorPID()
	const capKill = "0000000000000020"
	for _, task := range tasks(t, pid) {
		status := fields(procFile(t, pid, "task/"+task+"/status"))
		for k, want := range map[string]string{
			"CapInh": noCaps, "CapPrm": capKill, "CapEff": capKill, "CapBnd": capKill, "CapAmb": noCaps, "NoNewPrivs": "1",
		} {
			if status[k] != want {
				t.Errorf("thread %s: %s is %q, not %q", task, k, status[k], want)
			}
		}
	}
	status := fields(procFile(t, pid, "status"))
	if ns := strings.Fields(status["NSpid"]); len(ns) != 2 || ns[1] != "1" {
		t.Errorf("the monitor is not the first process of a PID namespace: %v", ns)
	}
	if status["PPid"] != fmt.Sprint(os.Getpid()) {
		t.Errorf("parent %s", status["PPid"])
	}
	if env := procFile(t, pid, "environ"); env != "GOMAXPROCS=1\x00" {
		t.Errorf("environment %q", env)
	}
	for _, ns := range []string{"pid", "mnt"} {
		if procLink(t, pid, "ns/"+ns) == procLink(t, os.Getpid(), "ns/"+ns) {
			t.Errorf("the monitor is in the host's %s namespace", ns)
		}
	}
	kinds := map[string]int{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target := procLink(t, pid, "fd/"+fd.Name())
		kind, _, _ := strings.Cut(target, ":[")
		if strings.HasPrefix(kind, "/") {
			kind = filepath.Base(kind)
		}
		kinds[kind]++
	}
	t.Logf("monitor: RSS %s, anonymous %s, threads %s, descriptors %v", status["VmRSS"], status["RssAnon"], status["Threads"], kinds)
	for kind := range kinds {
		switch kind {
		// streams; control and own socket; poller; payload; output log; audit
		// journal and its lock; the null device
		case "pipe", "socket", "anon_inode", sandbox.OutputFile(1), "null":
		default:
			if !strings.HasPrefix(kind, "anon_inode") && !strings.Contains(kind, "journal") && !strings.Contains(kind, "lock") &&
				!strings.Contains(kind, ".seg") && !strings.Contains(kind, "0000") {
				t.Errorf("the monitor holds %q open", kind)
			}
		}
	}
}

func tasks(t *testing.T, pid int) (names []string) {
	t.Helper()
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func cgroupPosture(t *testing.T, p sandbox.Plan, proc *sandbox.Running) {
	dirs := cgroupDirs(p.Run)
	if len(dirs) == 0 {
		t.Fatal("the container has no cgroup")
	}
	for line := range strings.Lines(procFile(t, proc.HostPID(), "cgroup")) {
		if !strings.HasSuffix(strings.TrimSpace(line), "/ward/"+p.Run) {
			// A hierarchy without a mount is nobody's to use.
			if parts := strings.SplitN(line, ":", 3); len(parts) == 3 && mounted(parts[1]) {
				t.Errorf("not in its cgroup: %s", line)
			}
		}
	}
	want := map[string]string{
		"memory/memory.limit_in_bytes": fmt.Sprint(p.Limits.Memory), "memory/memory.memsw.limit_in_bytes": fmt.Sprint(p.Limits.Memory),
		"pids/pids.max": fmt.Sprint(p.Limits.PIDs), "cpu/cpu.cfs_quota_us": fmt.Sprint(p.Limits.CPUQuota),
		"cpu/cpu.cfs_period_us": fmt.Sprint(p.Limits.CPUPeriod),
		"devices/devices.list":  "c 1:3 rw\nc 1:5 rw\nc 1:7 rw\nc 1:8 rw\nc 1:9 rw\nc 5:0 rw\nc 5:2 rw\nc 136:* rw",
	}
	root := func(c, f string) string { return filepath.Join("/sys/fs/cgroup", c, "ward", p.Run, f) }
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		want = map[string]string{"/memory.max": fmt.Sprint(p.Limits.Memory), "/memory.swap.max": "0",
			"/pids.max": fmt.Sprint(p.Limits.PIDs), "/cpu.max": fmt.Sprintf("%d %d", p.Limits.CPUQuota, p.Limits.CPUPeriod)}
	}
	for name, value := range want {
		c, f, _ := strings.Cut(name, "/")
		b, err := os.ReadFile(root(c, f))
		if got := strings.TrimSpace(string(b)); err != nil || got != value {
			t.Errorf("%s is %q (%v), not %q", name, got, err, value)
		}
	}
}

func mounted(controller string) bool {
	_, err := os.Stat("/sys/fs/cgroup/" + strings.TrimPrefix(controller, "name="))
	return err == nil && controller != ""
}

// stop ends a running container and waits for its monitor.
func (r *rig) stop(proc *sandbox.Running) sandbox.Exit {
	r.t.Helper()
	if err := unix.Kill(proc.HostPID(), unix.SIGKILL); err != nil {
		r.t.Errorf("kill payload: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	exit, err := proc.Wait(ctx)
	if err != nil {
		r.t.Errorf("wait: %v", err)
	}
	return exit
}
