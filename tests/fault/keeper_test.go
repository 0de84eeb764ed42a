package fault

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/tests/lab"
)

// keepers are the processes that look after containers: their pids, by container.
func keepers(w *lab.Ward) map[string][]int {
	all := map[string][]int{}
	for _, p := range w.Processes() {
		f := strings.Fields(p)
		if n := len(f); n > 3 && f[n-2] == "keep" {
			pid, _ := strconv.Atoi(f[0])
			all[f[n-1]] = append(all[f[n-1]], pid)
		}
	}
	return all
}

// TestKeepersAreNotManyMore kills all keepers: the next command starts one for
// each container, and those start no others. They did, one for each that had
// none yet, which then waited for seconds to find that they were not needed.
func TestKeepersAreNotManyMore(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	const n = 8
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("kept", i))
		w.Must("run", "-d", "--name", names[i], "--restart", "always", image, "sleep", "600")
	}
	defer w.Do(append([]string{"rm", "-f"}, names...)...)
	for deadline := time.Now().Add(20 * time.Second); len(keepers(w)) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("keepers: %v", keepers(w))
		}
	}
	for _, pids := range keepers(w) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for len(keepers(w)) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	w.Must("ps")
	seen := map[int]bool{}
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		for _, pids := range keepers(w) {
			for _, pid := range pids {
				seen[pid] = true
			}
		}
	}
	if now := keepers(w); len(now) != n || len(seen) != n {
		t.Errorf("%d keepers were seen for %d containers, and there are %v", len(seen), n, now)
	}
	w.Must(append([]string{"rm", "-f"}, names...)...)
	settled(t, w, "")
}
