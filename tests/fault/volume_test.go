package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// volumeSteps are the system calls by which volumes come, are filled, are
// mounted and go.
var volumeSteps = []struct {
	call  string
	whens []int
}{
	{"mkdirat", []int{4, 5, 6, 8}},
	{"flock", []int{3, 4}},
	{"pwrite64", []int{1, 2, 3}},
	{"fdatasync", []int{1, 2}},
	{"fsync", []int{1, 2}},
	{"renameat,rename", []int{1, 2, 3, 4}},
	{"renameat2", []int{1, 2, 3}},
	{"fchownat,fchown,lchown", []int{2, 5}},
	{"syncfs", []int{1}},
	{"copy_file_range,sendfile,splice", []int{1, 2}},
	{"open_tree", []int{2, 3}},
	{"move_mount", []int{4, 7}},
	{"unlinkat", []int{1, 2, 4}},
	{"exit_group", []int{1}},
}

// TestKillWithVolumes kills whoever reaches the n-th such call of a run that
// makes, fills and mounts volumes. The next commands find them whole or not at
// all, and nothing of those that nobody named.
func TestKillWithVolumes(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, s := range volumeSteps {
		for i, n := range s.whens {
			if testing.Short() && i > 0 {
				continue
			}
			name := fmt.Sprintf("%s-%d", strings.Split(s.call, ",")[0], n)
			ok := t.Run(name, func(t *testing.T) {
				_, out := straced(t, w, []string{"-e", "trace=" + s.call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", s.call, n)},
					"run", "--rm", "-v", name+":/etc/given", "-v", name+":/etc", "-v", "/anon", image, "echo", marker)
				settled(t, w, out)
				volumesSettled(t, w, name)
			})
			if !ok {
				w = newWard(t)
			}
		}
	}
	clean(t, w)
}

// volumesSettled uses the volume that may be there, and then has all unused
// ones removed.
func volumesSettled(t *testing.T, w *lab.Ward, name string) {
	t.Helper()
	if got := w.Must("run", "--rm", "-v", name+":/etc", image, "cat", "/etc/passwd"); !strings.Contains(got, "user:x:1000:1000") {
		t.Errorf("the volume is not whole: %q", got)
	}
	for v := range strings.Lines(w.Must("volume", "ls", "-q")) {
		if strings.TrimSpace(v) != name {
			t.Errorf("a volume is left though its container had --rm: %s", v)
		}
	}
	made, gone := map[string]bool{}, map[string]bool{}
	for _, e := range w.Records() {
		switch e.Type {
		case audit.VolumeCreate:
			made[volumeName(t, e)] = true
		case audit.VolumeRemove:
			gone[volumeName(t, e)] = true
		}
	}
	if !made[name] {
		t.Error("the volume is there and was never recorded")
	}
	w.Must("volume", "rm", name)
	left, err := os.ReadDir(filepath.Join(w.Root, "lib/volumes"))
	if err != nil || len(left) != 1 {
		t.Errorf("left with the volumes: %v %v", left, err)
	}
	for v := range gone {
		if !made[v] {
			t.Errorf("%s was removed and never made", v)
		}
	}
}

func volumeName(t *testing.T, e audit.Entry) string {
	t.Helper()
	_, rest, _ := strings.Cut(string(e.Data), `"name":"`)
	name, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no name: %s", e.Data)
	}
	return name
}

// TestKillVolumeCommands kills ward volume create and rm.
func TestKillVolumeCommands(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, verb := range []string{"create", "rm"} {
		for _, call := range []string{"mkdirat", "fsync", "pwrite64", "fdatasync", "renameat,rename", "unlinkat", "flock"} {
			for n := range 2 {
				if verb == "rm" {
					w.Must("volume", "create", "vol")
				}
				straced(t, w, []string{"-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n+1)}, "volume", verb, "vol")
				if r := w.Do("volume", "ls"); r.Code != 0 {
					t.Fatalf("%s %s/%d: %s", verb, call, n+1, r.Stderr)
				}
				w.Must("volume", "create", "vol")
				w.Must("run", "--rm", "-v", "vol:/v", image, "true")
				w.Must("volume", "rm", "vol")
				if left, err := os.ReadDir(filepath.Join(w.Root, "lib/volumes")); err != nil || len(left) != 1 {
					t.Fatalf("%s %s/%d: left with the volumes: %v %v", verb, call, n+1, left, err)
				}
			}
		}
	}
	w.Must("audit", "verify")
}

// TestVolumesAreNotRemovedInUse has runs use a volume that others remove all
// the time: each run keeps what it has.
func TestVolumesAreNotRemovedInUse(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	stop := make(chan struct{})
	var remover, runs sync.WaitGroup
	for _, args := range [][]string{{"volume", "rm", "vol"}, {"volume", "prune", "-af"}} {
		remover.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.Do(args...)
				}
			}
		})
	}
	for range 3 {
		runs.Go(func() {
			for range 6 {
				r := w.Do("run", "--rm", "-v", "vol:/v", "-v", "/anon", image, "sh", "-c", "echo x >/v/$HOSTNAME && sleep 0.1 && cat /v/$HOSTNAME && touch /anon/x")
				if r.Code != 0 || r.Stdout != "x\n" {
					t.Errorf("exit %d: %q %s", r.Code, r.Stdout, r.Stderr)
				}
			}
		})
	}
	runs.Wait()
	close(stop)
	remover.Wait()
	w.Must("volume", "prune", "-af")
	if left := w.Must("volume", "ls", "-q"); left != "" {
		t.Errorf("left: %s", left)
	}
	clean(t, w)
}
