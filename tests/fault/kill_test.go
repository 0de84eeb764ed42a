package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/tests/lab"
)

// steps are the system calls by which a run changes anything: files, the
// journal, processes, namespaces, mounts, cgroups. strace counts them for each
// process by itself, so one line kills gate, launcher, init and monitor alike.
var steps = []struct {
	call  string
	whens []int
}{
	{"mkdirat", []int{1, 2, 3, 5}},
	{"openat", []int{20, 60, 100, 140, 180}},
	{"flock", []int{1, 2, 3}},
	{"pwrite64", []int{1, 2, 3}},
	{"fdatasync", []int{1}},
	{"renameat2,renameat,rename", []int{1, 2}},
	{"memfd_create", []int{1, 2}},
	{"clone,clone3,vfork", []int{1, 3, 5, 7}},
	{"execve", []int{2, 3}},
	{"unshare,setns", []int{1, 2}},
	{"mount,fsopen,fsmount,move_mount,open_tree", []int{1, 3, 6, 10}},
	{"mount_setattr", []int{1}},
	{"pivot_root", []int{1}},
	{"seccomp,prctl", []int{1, 3, 6}},
	{"write", []int{1, 4, 8, 12, 16, 20}},
	{"sendmsg,sendto", []int{1, 2, 3}},
	{"wait4,waitid", []int{1, 2}},
	{"unlinkat", []int{1, 3}},
	{"exit_group", []int{1}},
}

// TestKillAtEverySystemCall kills whoever reaches the n-th such call.
func TestKillAtEverySystemCall(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, s := range steps {
		for i, n := range s.whens {
			if testing.Short() && i > 0 {
				continue
			}
			ok := t.Run(fmt.Sprintf("%s/%d", strings.Split(s.call, ",")[0], n), func(t *testing.T) {
				calls := s.call
				_, out := straced(t, w, []string{"-e", "trace=" + calls, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n)},
					"run", "--rm", image, "echo", marker)
				settled(t, w, out)
			})
			if !ok {
				w = newWard(t) // what one step left must not fail the next
			}
		}
	}
	clean(t, w)
}

// family is a process and everything below it, as far as it is still there.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for _, c := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(c); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// start runs a detached container and returns its id and status.
func start(t *testing.T, w *lab.Ward, args ...string) (string, sandbox.Status) {
	t.Helper()
	id := strings.TrimSpace(w.Must(append([]string{"run", "-d", "--rm"}, args...)...))
	st, err := sandbox.ReadStatus(filepath.Join(w.Root, "lib/containers", id))
	if err != nil {
		t.Fatal(err)
	}
	if st.PID == 0 || st.MonitorPID == 0 {
		t.Fatalf("status names no processes: %+v", st)
	}
	return id, st
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// TestContainerDiesWithMonitor kills a monitor: the kernel kills the container
// with it, and the next command records the loss and cleans up.
func TestContainerDiesWithMonitor(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id, st := start(t, w, image, "sh", "-c", "trap '' TERM HUP INT; sleep 600 & sleep 600")
	below := family(st.PID)
	if err := syscall.Kill(st.MonitorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Second)
	for _, pid := range below {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d of the container outlived its monitor", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if n := w.Count(audit.RunLost, id); n != 0 {
		t.Errorf("%d run.lost records before anybody looked", n)
	}
	settled(t, w, marker)
	if n := w.Count(audit.RunLost, id); n != 1 {
		t.Errorf("%d run.lost records, want one", n)
	}
	w.Must("ps", "-a")
	if n := w.Count(audit.RunLost, id); n != 1 {
		t.Errorf("%d run.lost records after a second command, want one", n)
	}
}

// TestGateDiesContainerStaysWatched kills the command that started a container
// in the foreground: its monitor goes on watching and recording.
func TestGateDiesContainerStaysWatched(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	cmd := w.Command("run", "--rm", "--name", "left", image, "sh", "-c", "echo "+marker+"; sleep 1; exit 7")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len(marker))
	if _, err := out.Read(line); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	settled(t, w, marker)
	for _, e := range w.Records() {
		if e.Type == audit.RunExit && strings.Contains(string(e.Data), `"code":7`) {
			return
		}
	}
	t.Error("the exit of a container whose gate was killed is not on record")
}

// TestManyAtOnce runs several commands on one root at the same time.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	const n = 6
	results := make(chan lab.Result, n)
	for i := range n {
		go func() { results <- w.Do("run", "--rm", image, "echo", fmt.Sprint(marker, i)) }()
	}
	for range n {
		if r := <-results; r.Code != 0 || !strings.HasPrefix(r.Stdout, marker) {
			t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	}
	settled(t, w, marker)
	if got := w.Count(audit.RunExit, ""); got != n+1 {
		t.Errorf("%d run.exit records, want %d", got, n+1)
	}
}
