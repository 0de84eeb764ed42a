package launcher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// TestCgroups reads from outside what a container's control groups are set to.
// What else /proc shows of it and its monitor, tests/posture compares.
func TestCgroups(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "1000")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop(proc)
	cgroupPosture(t, p, proc)
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
