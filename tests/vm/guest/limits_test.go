//go:build vmguest

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// limitsOutside reads back from the host what a container's cgroup was given.
func limitsOutside(t *testing.T, w *lab.Ward) {
	const asked, defaults = "asked for", "by default"
	for name, c := range map[string]struct {
		flags []string
		want  map[string]string
	}{
		asked: {[]string{"-m", "64m", "--memory-swap", "96m", "--pids-limit", "40", "--cpus", "0.5"}, map[string]string{
			"memory.max": "67108864", "memory.swap.max": "33554432", "pids.max": "40", "cpu.max": "50000 100000"}},
		defaults: {nil, map[string]string{
			"memory.max": "536870912", "memory.swap.max": "0", "pids.max": "512", "cpu.max": "100000 100000"}},
	} {
		id, cgroup := start(t, w, append(c.flags, image, "sleep", "600")...)
		for file, want := range c.want {
			if got := read(t, cgroup, file); got != want {
				t.Errorf("%s: %s is %q instead of %q", name, file, got, want)
			}
		}
		// All of the container is in there, and nothing else is.
		if got := strings.Fields(read(t, cgroup, "cgroup.procs")); len(got) != 1 || read(t, "/proc", got[0], "comm") != "sleep" {
			t.Errorf("%s: processes in the cgroup: %v", name, got)
		}
		must(t, w, "rm", "-f", id)
		if _, err := os.Stat(cgroup); !os.IsNotExist(err) {
			t.Errorf("the cgroup is still there (%v)", err)
		}
	}
}

// limitsInside reads them in the container, which sees its own cgroup as the
// root of all, and must not be able to change it.
func limitsInside(t *testing.T, w *lab.Ward) {
	got := must(t, w, "run", "--rm", "-m", "64m", "--pids-limit", "40", "--cpus", "0.5", image, "sh", "-c", `
cat /proc/self/cgroup
cd /sys/fs/cgroup && cat memory.max memory.swap.max pids.max cpu.max
for f in memory.max cgroup.procs cgroup.subtree_control; do
  echo 1 2>/dev/null >$f && echo "wrote $f"
done
mkdir mine 2>/dev/null && echo "made a cgroup"
mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
true`)
	if want := "0::/\n67108864\n0\n40\n50000 100000\n"; got != want {
		t.Errorf("inside:\n%s\ninstead of\n%s", got, want)
	}
	w.Gone(t)
}

// usage is what a run's exit record says of it.
func usage(t *testing.T, w *lab.Ward, n int) audit.Exit {
	t.Helper()
	found := recorded(w, n, audit.RunExit)
	if len(found) != 1 {
		t.Fatalf("%d run.exit records, want one", len(found))
	}
	var e audit.Exit
	if err := json.Unmarshal(found[0].Data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func memoryBites(t *testing.T, w *lab.Ward) {
	n := len(w.Records())
	exits(t, w, 137, "run", "--rm", "-m", "32m", image, "tail", "/dev/zero")
	e := usage(t, w, n)
	if !e.OOM || e.Signal != 9 || e.Code != 137 {
		t.Errorf("the exit is recorded as %+v", e)
	}
	if peak := e.Usage.MemoryPeakBytes; peak < 24<<20 || peak > 32<<20 {
		t.Errorf("the peak of memory is recorded as %d bytes under a limit of 32 MiB", peak)
	}
	var oom audit.OOM
	if found := recorded(w, n, audit.RunOOM); len(found) != 1 {
		t.Errorf("%d run.oom records, want one", len(found))
	} else if err := json.Unmarshal(found[0].Data, &oom); err != nil || oom.Kills < 1 || oom.Limit != 32<<20 {
		t.Errorf("run.oom says %s (%v)", found[0].Data, err)
	}
	// Under the limit the same goes well: it was the limit that killed.
	n = len(w.Records())
	must(t, w, "run", "--rm", "-m", "32m", image, "sh", "-c", "head -c 8000000 /dev/zero | tail >/dev/null")
	if found := recorded(w, n, audit.RunOOM); len(found) != 0 {
		t.Errorf("run.oom without reason: %s", found[0].Data)
	}
	w.Gone(t)
}

// forks starts ten processes that stay, and says how many it has.
const forks = `for i in 0 1 2 3 4 5 6 7 8 9; do sleep 600 & done; set -- $(jobs -p); echo $#; kill -9 $(jobs -p)`

func pidsBite(t *testing.T, w *lab.Ward) {
	n := len(w.Records())
	r := w.Do("run", "--rm", "--pids-limit", "8", image, "sh", "-c", forks)
	if !strings.Contains(r.Stderr, "can't fork") {
		t.Errorf("eleven processes under a limit of eight: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	// The launcher's own threads were in there before the limit was.
	if got := usage(t, w, n).Usage.PIDsPeak; got < 8 {
		t.Errorf("the most processes recorded are %d instead of 8", got)
	}
	if got := must(t, w, "run", "--rm", "--pids-limit", "20", image, "sh", "-c", forks); got != "10\n" {
		t.Errorf("under a limit of twenty: %q", got)
	}
	w.Gone(t)
}

func cpuBites(t *testing.T, w *lab.Ward) {
	n := len(w.Records())
	id, cgroup := start(t, w, "--cpus", "0.1", image, "sh", "-c", "while :; do :; done")
	within(t, 20*time.Second, "the processor's quota bites", func() bool {
		return number(t, "nr_throttled", cgroup, "cpu.stat") >= 3
	})
	must(t, w, "kill", id)
	if got := strings.TrimSpace(must(t, w, "wait", id)); got != "137" {
		t.Errorf("wait: %q", got)
	}
	if e := usage(t, w, n); e.Usage.CPUNanos < 1e7 || e.OOM {
		t.Errorf("the exit is recorded as %+v", e)
	}
}

// devicesBite puts a process of the host, with all its privilege, into a
// container's cgroup: what it can open then is what the cgroup lets through,
// and no user namespace or mount stands before it.
func devicesBite(t *testing.T, w *lab.Ward) {
	id, cgroup := start(t, w, image, "sleep", "600")
	try := func(cgroup, script string) error {
		cmd := exec.Command("busybox", "sh", "-c", `echo $$ >"$1/cgroup.procs" && `+script, "sh", cgroup)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Operation not permitted") {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		return err
	}
	outside := filepath.Join(cgroupRoot, "init.scope")
	for _, c := range []struct {
		script string
		open   bool
	}{
		{": </dev/null >/dev/null", true},
		{": </dev/zero", true},
		{": </dev/full", true},
		{": </dev/random", true},
		{": </dev/urandom", true},
		{": >/dev/ptmx", true},
		{": </dev/kmsg", false},
		{": >/dev/kmsg", false},
		{": </dev/mem", false},
		{"mknod null c 1 3", false},
		{"mknod mem c 1 1", false},
		{"mknod disk b 8 0", false},
		{"mkfifo pipe", true},
	} {
		if err := try(outside, c.script); err != nil {
			t.Errorf("%s does not work outside either", c.script)
		}
		if err := try(cgroup, c.script); (err == nil) != c.open {
			t.Errorf("in the container's cgroup %s: %v", c.script, err)
		}
	}
	must(t, w, "rm", "-f", id)
	// And from inside, as the payload sees it.
	got := must(t, w, "run", "--rm", image, "sh", "-c", `
head -c 4 /dev/zero | wc -c
mknod /tmp/mem c 1 1 2>/dev/null && echo made
ls /dev | tr '\n' ' '`)
	if want := "4\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "; got != want {
		t.Errorf("inside: %q instead of %q", got, want)
	}
	w.Gone(t)
}

// ioBites measures from inside how long writing and reading a disk takes, past
// all caches: with limits on bytes and on operations, and without.
func ioBites(t *testing.T, w *lab.Ward) {
	const disk = "/dev/vda"
	policies := filepath.Join(w.Root, "etc/policy.d")
	grants := filepath.Join(policies, "grants.json")
	if err := errors.Join(os.MkdirAll(policies, 0o700), os.WriteFile(grants, []byte(`{"devices": ["`+disk+`"]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(grants)
	// In one container, and in one without limits; seconds, from inside.
	measure := func(limits ...string) (wrote, read, operated float64) {
		out := must(t, w, append(append([]string{"run", "--rm", "--device", disk + ":" + disk + ":rw"}, limits...), image, "sh", "-c", `
now() { cut -d' ' -f1 /proc/uptime; }
a=$(now); dd if=/dev/zero of=`+disk+` bs=256k count=8 oflag=direct 2>/dev/null || exit 9
b=$(now); dd if=`+disk+` of=/dev/null bs=256k count=8 iflag=direct 2>/dev/null || exit 9
c=$(now); dd if=/dev/zero of=`+disk+` bs=4k count=30 oflag=direct 2>/dev/null || exit 9
echo $a $b $c $(now)`)...)
		var at [4]float64
		if n, err := fmt.Sscan(out, &at[0], &at[1], &at[2], &at[3]); n != 4 {
			t.Fatalf("%q: %v", out, err)
		}
		fmt.Printf("guest: note %v: 2 MiB written in %.2f s, read in %.2f s, 30 writes in %.2f s\n", limits, at[1]-at[0], at[2]-at[1], at[3]-at[2])
		return at[1] - at[0], at[2] - at[1], at[3] - at[2]
	}
	wrote, got, operated := measure("--device-write-bps", disk+":1mb", "--device-read-bps", disk+":2mb", "--device-write-iops", disk+":30")
	if wrote < 1.5 || got < 0.7 || operated < 0.7 {
		t.Errorf("under limits of 1 MiB/s, 2 MiB/s and 30/s it took %.2f, %.2f and %.2f s", wrote, got, operated)
	}
	if wrote, got, operated := measure(); wrote > 1 || got > 0.5 || operated > 0.5 {
		t.Errorf("without limits it took %.2f, %.2f and %.2f s", wrote, got, operated)
	}
	w.Gone(t)
}

// otherLimits are those that a container has only when it asks.
func otherLimits(t *testing.T, w *lab.Ward) {
	_, cgroup := start(t, w, "--cpuset-cpus", "0", "--cpuset-mems", "0", "-c", "512", "--memory-reservation", "32m", image, "sleep", "600")
	for file, want := range map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0", "cpu.weight": "59", "memory.low": "33554432"} {
		if got := read(t, cgroup, file); got != want {
			t.Errorf("%s is %q instead of %q", file, got, want)
		}
	}
	got := must(t, w, "run", "--rm", "--shm-size", "1m", "--ulimit", "nofile=100:200", image, "sh", "-c",
		"dd if=/dev/zero of=/dev/shm/x bs=1M count=2 2>&1 | grep -c 'No space left'; ulimit -n; ulimit -Hn")
	if got != "1\n100\n200\n" {
		t.Errorf("%q", got)
	}
	// No disk here has a scheduler that would heed it.
	if r := w.Do("run", "--rm", "--blkio-weight", "300", image, "true"); r.Code != 125 || !strings.Contains(r.Stderr, "launch.limits") {
		t.Errorf("a weight without effect: exit %d\n%s", r.Code, r.Stderr)
	}
}

// pauseAndUpdate changes a container that runs.
func pauseAndUpdate(t *testing.T, w *lab.Ward) {
	id, cgroup := start(t, w, "-m", "64m", image, "sleep", "600")
	must(t, w, "pause", id)
	if got := read(t, cgroup, "cgroup.events"); !strings.Contains(got, "frozen 1") {
		t.Errorf("paused: %q", got)
	}
	must(t, w, "unpause", id)
	if got := read(t, cgroup, "cgroup.events"); !strings.Contains(got, "frozen 0") {
		t.Errorf("unpaused: %q", got)
	}
	must(t, w, "update", "-m", "48m", "--memory-swap", "48m", "--pids-limit", "33", id)
	if got := read(t, cgroup, "memory.max") + " " + read(t, cgroup, "pids.max"); got != "50331648 33" {
		t.Errorf("updated: %q", got)
	}
	// Below what is in use: refused, and nothing is killed or changed.
	exits(t, w, 1, "update", "-m", "16k", "--memory-swap", "16k", id)
	if got := read(t, cgroup, "memory.max"); got != "50331648" {
		t.Errorf("after a refusal: %q", got)
	}
	if got := must(t, w, "stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", id); !strings.HasPrefix(got, "1 ") || !strings.HasSuffix(got, " / 48MiB\n") {
		t.Errorf("stats: %q", got)
	}
	must(t, w, "pause", id)
	must(t, w, "kill", id)
	if got := strings.TrimSpace(must(t, w, "wait", id)); got != "137" {
		t.Errorf("killed while paused: %q", got)
	}
}
