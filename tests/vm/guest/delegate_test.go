//go:build vmguest

package guest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// box is a part of the hierarchy that is given away: what runs inside sees
// box/inner as the root and has the controllers of box/inner alone, as in a
// service or a container that somebody else's manager delegated too little to.
const box = cgroupRoot + "/box"

// doInBox runs a ward command inside, where exactly these controllers are
// delegated.
func doInBox(t *testing.T, w *lab.Ward, controllers []string, args ...string) lab.Result {
	t.Helper()
	inner := filepath.Join(box, "inner")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range controllers {
		if err := os.WriteFile(box+"/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, inner, "cgroup.controllers"); got != strings.Join(controllers, " ") {
		t.Fatalf("inside there are the controllers %q", got)
	}
	dir, err := os.Open(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := w.Command(args...)
	cmd.Args = append([]string{"checks", delegateArg, cmd.Path}, args...)
	cmd.Path = "/proc/self/exe"
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	r := w.Finish(cmd)
	w.Gone(t)
	// Nothing of the run is left in there; the rest was made here.
	runs, err := filepath.Glob(inner + "/ward/*/")
	if err != nil || len(runs) != 0 {
		t.Errorf("cgroups left: %v (%v)", runs, err)
	}
	for _, d := range []string{"inner/ward", "inner/shell", "inner", "."} {
		if err := unix.Rmdir(filepath.Join(box, d)); err != nil && err != unix.ENOENT {
			t.Errorf("remove %s: %v", d, err)
		}
	}
	return r
}

const delegateArg = "in-delegated"

// inDelegated is this program in the box: it makes its cgroup the root that it
// sees, leaves that root for a leaf, as every delegate must, and executes
// program and arguments.
func inDelegated(args []string) {
	runtime.LockOSThread() // namespaces are a thread's
	if err := enterBox(); err != nil {
		fmt.Fprintln(os.Stderr, "in-delegated:", err)
		os.Exit(99)
	}
	err := unix.Exec(args[0], args, os.Environ())
	fmt.Fprintln(os.Stderr, "in-delegated:", err)
	os.Exit(99)
}

func enterBox() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return err
	}
	if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	shell := filepath.Join(cgroupRoot, "shell")
	if err := os.Mkdir(shell, 0o755); err != nil {
		return err
	}
	return os.WriteFile(shell+"/cgroup.procs", []byte("0"), 0)
}

// delegated is the other half of notDelegated: all that is needed is there.
func delegated(t *testing.T, w *lab.Ward) {
	r := doInBox(t, w, []string{"cpu", "memory", "pids"}, "run", "--rm", "-m", "64m", image, "cat", "/sys/fs/cgroup/memory.max")
	if r.Code != 0 || r.Stdout != "67108864\n" {
		t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// notDelegated takes one controller after the other away: a limit that cannot
// be applied refuses the run.
func notDelegated(t *testing.T, w *lab.Ward) {
	for missing, left := range map[string][]string{
		"memory": {"cpu", "pids"}, "pids": {"cpu", "memory"}, "cpu": {"memory", "pids"},
	} {
		n := len(w.Records())
		r := doInBox(t, w, left, "run", "--rm", image, "echo", "the-payload-ran")
		if r.Code != 125 || !strings.Contains(r.Stderr, "launch.limits") || !strings.Contains(r.Stderr, "the "+missing+" cgroup controller") {
			t.Errorf("without %s: exit %d\n%s", missing, r.Code, r.Stderr)
		}
		if r.Stdout != "" {
			t.Errorf("without %s the payload ran", missing)
		}
		if c := w.Containers(); len(c) != 0 {
			t.Errorf("without %s: containers left: %v", missing, c)
		}
		var d audit.Denied
		if found := recorded(w, n, audit.RunDenied); len(found) != 1 {
			t.Errorf("without %s: %d run.denied records, want one", missing, len(found))
		} else if err := json.Unmarshal(found[0].Data, &d); err != nil || d.Rule != "launch.limits" {
			t.Errorf("without %s: run.denied says %q (%v)", missing, d.Rule, err)
		}
		if found := recorded(w, n, audit.RunStart); len(found) != 0 {
			t.Errorf("without %s: a start is on record", missing)
		}
	}
}
