package fault

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// updateSteps are the system calls by which a change of limits changes
// anything or asks anybody: each is tried until there are no more of it.
var updateSteps = []string{"flock", "fsync", "pwrite64", "fdatasync", "renameat", "unlinkat", "connect", "sendmsg", "recvmsg", "openat"}

// TestKillUpdate kills ward update at each such call. What the kernel holds,
// what the next command shows, and what the next start would have are the same
// after it, and each change that is on record has one end there.
func TestKillUpdate(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.Must("run", "-d", "--name", "up", "--memory", "40m", "--memory-swap", "40m", image, "sleep", "600")
	w.Must("create", "--name", "still", "--memory", "40m", "--memory-swap", "40m", image, "true")
	defer w.Do("rm", "-f", "up", "still")
	size := 40
	for _, name := range []string{"up", "still"} {
		for _, call := range updateSteps {
			killed := 0
			for n, survived := 1, 0; survived < 2 && n < 40; n++ {
				if testing.Short() && n > 2 {
					break
				}
				at := n
				if call == "openat" {
					at = 10 * n // most are not its own
				}
				size = 40 + (size+1)%50
				if updateKilled(t, w, name, call, at, size) {
					killed++
				} else {
					survived++ // threads are counted apart: once is no proof
				}
			}
			if killed == 0 && !(name == "still" && strings.Contains("connect sendmsg recvmsg", call)) {
				t.Errorf("%s: no call of %s was met", name, call)
			}
			if t.Failed() {
				return
			}
		}
	}
	w.Must("rm", "-f", "up", "still")
	changesEnded(t, w)
	clean(t, w)
}

// updateKilled changes a container's memory to size MiB, kills the command at
// the n-th call, and checks what the next commands make of it.
func updateKilled(t *testing.T, w *lab.Ward, name, call string, n, size int) bool {
	t.Helper()
	trace := filepath.Join(w.Dir, "trace")
	cmd := w.Command("update", "--memory", fmt.Sprint(size, "m"), "--memory-swap", fmt.Sprint(size, "m"), name)
	cmd.Args = append([]string{"strace", "-f", "-qq", "-e", "signal=none", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), "-o", trace}, cmd.Args...)
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: make deps-test")
	}
	cmd.Path = path
	killed := w.Finish(cmd).Code == 137
	agreed(t, w, name, fmt.Sprintf("%s/%s/%d", name, call, n))
	return killed
}

// agreed checks that the kernel has what ward inspect says.
func agreed(t *testing.T, w *lab.Ward, name, where string) {
	t.Helper()
	said := strings.TrimSpace(w.Must("inspect", "-f", "{{.HostConfig.Memory}} {{.Id}} {{.State.Running}}", name))
	f := strings.Fields(said)
	if _, err := os.Lstat(filepath.Join(w.Root, "lib/containers", f[1], "update.json")); err == nil {
		t.Errorf("%s: the change is still open after the next command", where)
	}
	if f[2] == "true" {
		if real := memoryLimit(t, w, f[1]); real != f[0] {
			t.Errorf("%s: ward inspect says %s bytes of memory, the kernel %s", where, f[0], real)
		}
	}
	changesEnded(t, w)
}

// memoryLimit is what the kernel holds a container to.
func memoryLimit(t *testing.T, w *lab.Ward, id string) string {
	t.Helper()
	for _, dir := range w.Cgroups() {
		for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil && strings.Contains(dir, id[:12]) {
				return strings.TrimSpace(string(b))
			}
		}
	}
	t.Fatalf("container %.12s has no memory control group", id)
	return ""
}

// changesEnded checks that each change of limits on record has exactly one end.
func changesEnded(t *testing.T, w *lab.Ward) {
	t.Helper()
	ends := map[string]int{}
	for _, e := range w.Records() {
		var d struct {
			Container string
			Update    int
		}
		if _ = json.Unmarshal(e.Data, &d); d.Update == 0 {
			continue
		}
		key := d.Container[:12] + "/" + strconv.Itoa(d.Update)
		switch e.Type {
		case audit.ContainerUpdate:
			if _, twice := ends[key]; twice {
				t.Errorf("two changes are called %s", key)
			}
			ends[key] = 0
		case audit.ContainerUpdated, audit.UpdateDenied:
			ends[key]++
		}
	}
	for change, n := range ends {
		if n != 1 {
			t.Errorf("change %s of limits has %d ends on record", change, n)
		}
	}
}

// TestUpdateOfASilentMonitor kills a command whose request the monitor has not
// taken up: nothing is said of the change before it is known, nobody is held
// up by that, and what is said then stays true.
func TestUpdateOfASilentMonitor(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id, st := start(t, w, "--name", "late", "--memory", "40m", "--memory-swap", "40m", image, "sleep", "600")
	defer w.Do("rm", "-f", "late")
	if err := syscall.Kill(st.MonitorPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(st.MonitorPID, syscall.SIGCONT)
	cmd := w.Command("update", "--memory", "50m", "--memory-swap", "50m", "late")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); w.Count(audit.ContainerUpdate, id) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the change does not come on record")
		}
	}
	time.Sleep(200 * time.Millisecond) // the request is in the monitor's socket
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	// A monitor that does not answer holds nobody up, and nothing is said yet.
	w.Must("ps")
	if n := w.Count(audit.ContainerUpdated, id); n != 0 {
		t.Errorf("%d container.updated records before anybody could know", n)
	}
	if err := syscall.Kill(st.MonitorPID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	agreed(t, w, "late", "late")
	time.Sleep(200 * time.Millisecond)
	agreed(t, w, "late", "later")
	w.Must("update", "--memory", "60m", "--memory-swap", "60m", "late")
	agreed(t, w, "late", "again")
	w.Must("rm", "-f", "late")
	settled(t, w, "")
	changesEnded(t, w)
}

// TestUpdatesAtOnce changes one container from several sides: one after the
// other, and the last one holds everywhere.
func TestUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.Must("run", "-d", "--name", "many", "--memory", "40m", "--memory-swap", "40m", image, "sleep", "600")
	defer w.Do("rm", "-f", "many")
	const n = 8
	results := make(chan lab.Result, n)
	for i := range n {
		go func() {
			size := fmt.Sprint(41+i, "m")
			results <- w.Do("update", "--memory", size, "--memory-swap", size, "many")
		}()
	}
	for range n {
		if r := <-results; r.Code != 0 {
			t.Errorf("exit %d\n%s", r.Code, r.Stderr)
		}
	}
	agreed(t, w, "many", "at once")
	if got := w.Count(audit.ContainerUpdated, ""); got != n {
		t.Errorf("%d container.updated records, want %d", got, n)
	}
	w.Must("rm", "-f", "many")
	settled(t, w, "")
}
