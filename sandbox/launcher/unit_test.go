package launcher

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestLimitNotApplied gives limits a kernel that did something else.
func TestLimitNotApplied(t *testing.T) {
	l := sandbox.DefaultLimits()
	good := map[string]string{"memory.max": "536870912\n", "memory.swap.max": "0\n", "pids.max": "512\n", "cpu.max": "200000 100000\n"}
	dir := func(change map[string]string) string {
		d := t.TempDir()
		for name, content := range good {
			if c, ok := change[name]; ok {
				content = c
			}
			if content == "absent" {
				continue
			}
			if err := os.WriteFile(filepath.Join(d, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	check := func(d string) error { return checkLimits(map[string]string{"": d}, l) }
	for _, ok := range []map[string]string{{}, {"memory.swap.max": "absent"}, {"memory.max": "4096\n"}} {
		if err := check(dir(ok)); err != nil {
			t.Errorf("%v: %v", ok, err)
		}
	}
	for _, bad := range []map[string]string{
		{"memory.max": "max\n"}, {"memory.max": "536870913\n"}, {"memory.max": "absent"}, {"memory.max": ""}, {"memory.max": "-1\n"},
		{"memory.swap.max": "max\n"}, {"memory.swap.max": "1\n"}, {"pids.max": "max\n"}, {"pids.max": "absent"},
		{"cpu.max": "max 100000\n"}, {"cpu.max": "300000 100000\n"}, {"cpu.max": "200000 10000\n"},
	} {
		if err := check(dir(bad)); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%v was accepted: %v", bad, err)
		}
	}
	// A version 1 host that lacks a controller.
	v1 := map[string]string{"memory": t.TempDir(), "pids": t.TempDir()}
	if err := checkLimits(v1, l); !errors.Is(err, fault.Unavailable) {
		t.Errorf("missing controllers: %v", err)
	}
}

// TestDeviceProgram attaches the version 2 filter to a cgroup and lets a
// process in it open devices.
func TestDeviceProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := "/sys/fs/cgroup/unified"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root = "/sys/fs/cgroup"
	} else if _, err := os.Stat(root); err != nil {
		t.Skip("needs a cgroup version 2 hierarchy")
	}
	dir, err := os.MkdirTemp(root, "ward-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	read := func(dev string) string {
		t.Helper()
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		cmd := exec.Command("/bin/busybox", "dd", "if="+dev, "of=/dev/null", "bs=1", "count=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
		out, _ := cmd.CombinedOutput()
		if strings.Contains(string(out), "Operation not permitted") {
			return "refused"
		}
		return "allowed"
	}
	// Not one of the container's, and there on every kernel with a console.
	const other = "/dev/kmsg"
	if got := read(other); got != "allowed" {
		t.Skipf("%s cannot be read here at all", other)
	}
	if err := setDevicesV2(dir, resources(sandbox.Plan{Limits: sandbox.DefaultLimits()}).Devices); err != nil {
		t.Fatal(err)
	}
	for dev, want := range map[string]string{"/dev/zero": "allowed", "/dev/urandom": "allowed", other: "refused"} {
		if got := read(dev); got != want {
			t.Errorf("%s is %s", dev, got)
		}
	}
	node := filepath.Join(t.TempDir(), "zero")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	mknod := exec.Command("/bin/busybox", "mknod", node, "c", "1", "5")
	mknod.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
	if out, err := mknod.CombinedOutput(); err == nil {
		t.Errorf("a node was made in spite of the filter: %s", out)
	}
}

func TestDeviceRulesOfOneForm(t *testing.T) {
	rules := resources(sandbox.Plan{Limits: sandbox.DefaultLimits()}).Devices
	if _, err := allowedDevices(rules); err != nil {
		t.Fatal(err)
	}
	if _, err := allowedDevices(rules[1:]); err == nil {
		t.Error("rules without the first denial were accepted")
	}
	all := *rules[0]
	all.Allow = true
	if _, err := allowedDevices(append(rules[:1:1], &all)); err == nil {
		t.Error("a rule that allows everything was accepted")
	}
}

func TestClampedRlimits(t *testing.T) {
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	got, err := clampedRlimits([]sandbox.Rlimit{{Type: "RLIMIT_NOFILE", Soft: own.Max + 1, Hard: own.Max + 2}})
	if err != nil || got[0].Soft != own.Max || got[0].Hard != own.Max {
		t.Errorf("%+v %v, own hard limit %d", got, err, own.Max)
	}
	if _, err := clampedRlimits([]sandbox.Rlimit{{Type: "RLIMIT_X"}}); err == nil {
		t.Error("an unknown limit was accepted")
	}
}

func TestExecError(t *testing.T) {
	for cause, code := range map[string]int{
		"exec /bin/x: no such file or directory": 127, "executable file not found in $PATH": 127,
		"stat /x: no such file or directory": 127, "permission denied": 126, "exec /bin/x: exec format error": 126, "": 126,
	} {
		var se *sandbox.StartError
		if err := execError("x", cause); !errors.As(err, &se) || se.Code != code {
			t.Errorf("%q: %v", cause, err)
		}
	}
}
