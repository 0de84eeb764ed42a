//go:build vmguest

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/tests/lab"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	image      = "vm.example/busybox:1"
)

// wardCgroups is where the containers' cgroups are.
var wardCgroups = filepath.Join(cgroupRoot, sandbox.CgroupParent)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == delegateArg {
		inDelegated(os.Args[2:]) // does not return
	}
	os.Exit(lab.Main(m))
}

// checks in order; each leaves the ward as it found it.
var checks = []struct {
	name string
	run  func(*testing.T, *lab.Ward)
}{
	{"Host", host},
	{"Run", run},
	{"LimitsOutside", limitsOutside},
	{"LimitsInside", limitsInside},
	{"MemoryBites", memoryBites},
	{"PIDsBite", pidsBite},
	{"CPUBites", cpuBites},
	{"DevicesBite", devicesBite},
	{"IOBites", ioBites},
	{"OtherLimits", otherLimits},
	{"PauseAndUpdate", pauseAndUpdate},
	{"Delegated", delegated},
	{"NotDelegated", notDelegated},
	{"OCI", ociLife},
	{"MonitorKilled", monitorKilled},
	{"StopAndRemove", stopAndRemove},
	{"Audit", auditVerifies},
	{"NothingLeft", nothingLeft},
}

// TestWard makes one ward as the README does and tries it. The lines that
// begin with "guest:" are for the program on the other end of the console.
func TestWard(t *testing.T) {
	w := lab.New(t)
	fmt.Println("guest: begin Setup")
	begin := time.Now()
	w.Busybox(image)
	w.Vouch(image)
	fmt.Printf("guest: pass Setup %.1f s\n", time.Since(begin).Seconds())
	for _, c := range checks {
		fmt.Println("guest: begin " + c.name)
		begin := time.Now()
		verdict := "fail"
		if t.Run(c.name, func(t *testing.T) { c.run(t, w) }) {
			verdict = "pass"
		}
		fmt.Printf("guest: %s %s %.1f s\n", verdict, c.name, time.Since(begin).Seconds())
	}
}

// must runs a ward command that has to succeed.
func must(t *testing.T, w *lab.Ward, args ...string) string {
	t.Helper()
	return exits(t, w, 0, args...).Stdout
}

// exits runs a ward command that has to exit with code.
func exits(t *testing.T, w *lab.Ward, code int, args ...string) lab.Result {
	t.Helper()
	r := w.Do(args...)
	if r.Code != code {
		t.Fatalf("ward %s: exit %d instead of %d\n%s%s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

// start runs a detached container that is removed with the test.
func start(t *testing.T, w *lab.Ward, args ...string) (id, cgroup string) {
	t.Helper()
	id = strings.TrimSpace(must(t, w, append([]string{"run", "-d"}, args...)...))
	t.Cleanup(func() { w.Do("rm", "-f", id) })
	return id, filepath.Join(wardCgroups, id)
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// number finds key in a file of "key number" lines.
func number(t *testing.T, key string, elem ...string) int64 {
	t.Helper()
	for line := range strings.Lines(read(t, elem...)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	t.Errorf("%s has no %s", filepath.Join(elem...), key)
	return 0
}

// within waits for ok, under an emulator that takes its time.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// recorded returns the records of one type after the first n of the log.
func recorded(w *lab.Ward, n int, typ audit.Type) []audit.Entry {
	var found []audit.Entry
	for _, e := range w.Records()[n:] {
		if e.Type == typ {
			found = append(found, e)
		}
	}
	return found
}

// host makes sure that the checks mean what they say.
func host(t *testing.T, _ *lab.Ward) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Fatalf("%s is not cgroup v2: type %#x (%v)", cgroupRoot, st.Type, err)
	}
	if v1 := read(t, "/proc/self/mountinfo"); strings.Contains(v1, " - cgroup ") {
		t.Errorf("a cgroup v1 hierarchy is mounted:\n%s", v1)
	}
	if got := read(t, cgroupRoot, "cgroup.subtree_control"); got != "cpu io memory pids" {
		t.Errorf("delegated are %q", got)
	}
	if got := read(t, "/proc/self/cgroup"); got != "0::/init.scope" {
		t.Errorf("the checks run in cgroup %q", got)
	}
}

// run is the happy path.
func run(t *testing.T, w *lab.Ward) {
	n := len(w.Records())
	if got := must(t, w, "run", "--rm", image, "echo", "hello"); got != "hello\n" {
		t.Errorf("output is %q", got)
	}
	for _, typ := range []audit.Type{audit.RunIntent, audit.RunStart, audit.RunExit, audit.RunSeal} {
		if got := len(recorded(w, n, typ)); got != 1 {
			t.Errorf("%d %s records, want one", got, typ)
		}
	}
	if r := exits(t, w, 3, "run", "--rm", image, "sh", "-c", "exit 3"); r.Stderr != "" {
		t.Errorf("standard error: %s", r.Stderr)
	}
	status := must(t, w, "run", "--rm", image, "cat", "/proc/self/status", "/proc/self/uid_map")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", " 65536\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if got := must(t, w, "run", "--rm", "--read-only=false", image, "sh", "-c", "echo kept >/file; cat /file"); got != "kept\n" {
		t.Errorf("writable root: %q", got)
	}
	w.Gone(t)
}

// monitorKilled kills a monitor: the container goes with it and the next
// command records the loss and takes the cgroup away.
func monitorKilled(t *testing.T, w *lab.Ward) {
	n := len(w.Records())
	id, cgroup := start(t, w, "--rm", image, "sh", "-c", "trap '' TERM HUP INT; sleep 600 & sleep 600")
	st, err := sandbox.ReadStatus(filepath.Join(w.Root, "lib/containers", id))
	if err != nil || st.MonitorPID == 0 {
		t.Fatalf("status %+v: %v", st, err)
	}
	if got := strings.Fields(read(t, cgroup, "cgroup.procs")); len(got) < 2 {
		t.Fatalf("the container's processes are %v", got)
	}
	if err := unix.Kill(st.MonitorPID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the container is dead", func() bool {
		return number(t, "populated", cgroup, "cgroup.events") == 0
	})
	if got := len(recorded(w, n, audit.RunLost)); got != 0 {
		t.Errorf("%d run.lost records before anybody looked", got)
	}
	must(t, w, "ps", "-a")
	lost := recorded(w, n, audit.RunLost)
	if len(lost) != 1 || lost[0].Run != id {
		t.Errorf("these runs are recorded as lost, instead of %.12s: %v", id, lost)
	}
	if _, err := os.Stat(cgroup); !os.IsNotExist(err) {
		t.Errorf("the cgroup is still there (%v)", err)
	}
	w.Gone(t)
}

// stopAndRemove goes through a monitor that lives.
func stopAndRemove(t *testing.T, w *lab.Ward) {
	id, cgroup := start(t, w, "--name", "one", image, "sh", "-c", "echo said; sleep 600")
	if got := must(t, w, "ps", "-q", "--no-trunc"); strings.TrimSpace(got) != id {
		t.Errorf("ps -q: %q instead of %s", got, id)
	}
	within(t, 10*time.Second, "output in ward logs", func() bool { return must(t, w, "logs", "one") == "said\n" })
	must(t, w, "stop", "-t", "1", "one")
	if _, err := os.Stat(cgroup); !os.IsNotExist(err) {
		t.Errorf("the cgroup of a stopped container is still there (%v)", err)
	}
	if got := strings.TrimSpace(must(t, w, "wait", "one")); got != "137" && got != "143" {
		t.Errorf("wait: %q", got)
	}
	must(t, w, "rm", "one")
	w.Gone(t)
}

// auditVerifies checks the log of all that happened.
func auditVerifies(t *testing.T, w *lab.Ward) {
	if n := len(w.Records()); n < 40 {
		t.Errorf("the log has %d records only", n)
	}
	must(t, w, "audit", "verify")
	ends := map[string]int{}
	for _, e := range w.Records() {
		switch e.Type {
		case audit.RunIntent:
			ends[e.Run] += 0
		case audit.RunExit, audit.RunLost, audit.RunDenied:
			ends[e.Run]++
		}
	}
	for id, n := range ends {
		if n != 1 {
			t.Errorf("run %.12s has %d ends on record", id, n)
		}
	}
}

// nothingLeft comes last.
func nothingLeft(t *testing.T, w *lab.Ward) {
	must(t, w, "ps", "-a")
	w.Gone(t)
	if c := w.Containers(); len(c) != 0 {
		t.Errorf("containers left: %v", c)
	}
	dirs, err := filepath.Glob(wardCgroups + "/*/")
	if err != nil || len(dirs) != 0 {
		t.Errorf("cgroups left: %v (%v)", dirs, err)
	}
	if m := read(t, "/proc/self/mountinfo"); strings.Contains(m, w.Dir) || strings.Contains(m, "overlay") {
		t.Errorf("mounts left:\n%s", m)
	}
}
