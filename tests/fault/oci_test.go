package fault

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// oci runs ward-oci with the streams of a caller that keeps none.
func oci(w *lab.Ward, args ...string) lab.Result {
	cmd := exec.Command(filepath.Join(lab.Bin(), "ward-oci"), args...)
	cmd.Env, cmd.Dir = w.Env, w.Dir
	return w.Finish(cmd)
}

// callers has the ward trust the shell as a caller of ward-oci, and makes two
// bundles: sleep, which stays, and echo, which ends.
func callers(t *testing.T, w *lab.Ward, more ...string) {
	t.Helper()
	var list []map[string]any
	for _, name := range append([]string{"/bin/sh"}, more...) {
		exe, err := filepath.EvalSymlinks(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, map[string]any{"exe": exe, "uid": 0, "bundles": "any"})
	}
	write := func(name string, v any) {
		t.Helper()
		b, err := json.Marshal(v)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(w.Root, "etc/policy.d/grants.json"), map[string]any{"oci": map[string]any{"callers": list}})
	rootfs := filepath.Join(w.Dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", rootfs, "-xf", rootfs+".tar").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for bundle, args := range map[string][]string{"sleep": {"sleep", "600"}, "echo": {"sh", "-c", "echo " + marker + "; sleep 0.05"}} {
		dir := filepath.Join(w.Dir, bundle)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if r := oci(w, "spec", "-b", dir); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		b, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var spec map[string]any
		if err := json.Unmarshal(b, &spec); err != nil {
			t.Fatal(err)
		}
		maps.Copy(spec["process"].(map[string]any), map[string]any{"terminal": false, "args": args})
		spec["root"] = map[string]any{"path": rootfs, "readonly": true}
		write(filepath.Join(dir, "config.json"), spec)
	}
}

// deleted does what the caller of ward-oci would do next, for every container
// that is left, and checks that this is enough.
func deleted(t *testing.T, w *lab.Ward) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		quiet := len(w.Processes()) == 0
		n := deleteOCI(t, w)
		if n == 0 && quiet {
			return
		}
		if t.Failed() || time.Now().After(deadline) {
			t.Errorf("%d containers, processes %v", n, w.Processes())
			return
		}
	}
}

// deleteOCI deletes every container of ward-oci, and returns how many there were.
func deleteOCI(t *testing.T, w *lab.Ward) int {
	t.Helper()
	root := filepath.Join(w.Root, "run/oci")
	es, _ := os.ReadDir(root)
	for _, e := range es {
		if r := oci(w, "delete", "--force", e.Name()); r.Code != 0 {
			t.Errorf("delete --force %s: exit %d\n%s", e.Name(), r.Code, r.Stderr)
		}
		if _, err := os.Stat(filepath.Join(root, e.Name())); err == nil {
			t.Errorf("container %s is there after its deletion", e.Name())
		}
	}
	return len(es)
}

// acknowledged checks that what commands have said they did is on record.
func acknowledged(t *testing.T, w *lab.Ward) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.Dir, "acknowledged"))
	if err != nil {
		return // nothing has been
	}
	said := map[audit.Type]int{}
	for _, typ := range strings.Fields(string(b)) {
		said[audit.Type(typ)]++
	}
	for _, e := range w.Records() {
		said[e.Type]--
	}
	for typ, n := range said {
		if n > 0 {
			t.Errorf("%d times more acknowledged than recorded: %s", n, typ)
		}
	}
}

// ociSteps are the system calls by which a start through ward-oci, another
// process and the end change anything.
var ociSteps = []struct {
	call  string
	whens []int
}{
	{"mkdirat", []int{1, 2, 3, 4, 6, 9, 14}},
	{"mkdir", []int{1}},
	{"openat", []int{30, 60, 90, 120}},
	{"flock", []int{1, 2, 3}},
	{"pwrite64", []int{1, 2, 3}},
	{"fdatasync", []int{1, 2}},
	{"renameat2,renameat,rename", []int{1, 2, 3, 4}},
	{"memfd_create", []int{1, 2, 3}},
	{"clone,clone3,vfork", []int{1, 3, 5, 7}},
	{"execve", []int{2, 3}},
	{"unshare,setns", []int{1, 2}},
	{"mount,fsopen,fsmount,move_mount,open_tree", []int{1, 3, 6, 10}},
	{"pivot_root", []int{1}},
	{"seccomp,prctl", []int{1, 3, 6}},
	{"write", []int{1, 4, 8, 12, 16, 20}},
	{"sendmsg,sendto", []int{1, 2, 3}},
	{"wait4,waitid", []int{1, 2}},
	{"unlinkat", []int{1, 3}},
	{"exit_group", []int{1}},
}

// TestKillOCIAtEverySystemCall kills whoever reaches the n-th such call of a
// whole life through ward-oci, and of a delete.
func TestKillOCIAtEverySystemCall(t *testing.T) {
	t.Parallel()
	w := ociWard(t)
	for _, s := range ociSteps {
		for i, n := range s.whens {
			if testing.Short() && i > 0 {
				continue
			}
			ok := t.Run(fmt.Sprintf("%s/%d", strings.Split(s.call, ",")[0], n), func(t *testing.T) {
				id := w.Mark() + fmt.Sprint(strings.Split(s.call, ",")[0], n)
				inject := []string{"-e", "trace=" + s.call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", s.call, n)}
				_, out := stracedProgram(t, w, inject, "ward-oci", "run", "-b", filepath.Join(w.Dir, "echo"), id)
				deleted(t, w)
				settled(t, w, out)
				if r := oci(w, "state", id); r.Code == 0 {
					t.Errorf("there after its deletion: %s", r.Stdout)
				}
				if t.Failed() {
					return
				}
				if out, err := shell(w, "ward-oci run -d -b SLEEP "+id+" </dev/null >"+id+".out 2>&1 || exit 1", "").CombinedOutput(); err != nil {
					t.Errorf("the name cannot be used again: %v %s", err, out)
				}
				stracedProgram(t, w, inject, "ward-oci", "delete", "--force", id)
				deleted(t, w)
				settled(t, w, "")
			})
			if !ok {
				w = ociWard(t) // what one step left must not fail the next
			}
		}
	}
}

func ociWard(t *testing.T) *lab.Ward {
	t.Helper()
	w := newWard(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: make deps-test")
	}
	callers(t, w, strace)
	return w
}

// TestDeleteWhileCreated deletes by force a container that is still being made:
// what was not there yet to be ended when the delete began is ended all the same.
func TestDeleteWhileCreated(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	callers(t, w)
	for i := range 16 {
		id := w.Mark() + fmt.Sprint("made", i)
		create := shell(w, "ward-oci create -b SLEEP "+id+" </dev/null >"+id+".out 2>&1", "")
		if err := create.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(w.Root, "run/oci", id)); err == nil {
				break // its name is taken
			}
		}
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		if r := oci(w, "delete", "--force", id); r.Code != 0 {
			t.Errorf("%d: exit %d\n%s", i, r.Code, r.Stderr)
		}
		_ = create.Wait()
		if _, err := os.Stat(filepath.Join(w.Root, "run/oci", id)); err == nil {
			t.Errorf("%d: it is there after its deletion", i)
		}
	}
	deleted(t, w)
	settled(t, w, "")
}
