package launcher_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// inhabited is a container that runs, for processes to be started in.
type inhabited struct {
	r    *rig
	plan sandbox.Plan
	raw  []byte
	proc *sandbox.Running
}

func (r *rig) inhabit(p sandbox.Plan) *inhabited {
	r.t.Helper()
	c := &inhabited{r: r, plan: p, raw: r.encode(p)}
	if err := os.WriteFile(filepath.Join(p.Host.ContainerDir, "plan.json"), c.raw, 0o600); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if c.plan, err = sandbox.DecodePlan(c.raw); err != nil { // with what r.encode adds
		r.t.Fatal(err)
	}
	if c.proc, err = r.launch(p, sandbox.Stdio{}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		unix.Kill(c.proc.HostPID(), unix.SIGKILL)
		c.proc.Wait(context.Background())
	})
	return c
}

func (c *inhabited) execPlan(args ...string) sandbox.ExecPlan {
	raw := make([]byte, 32)
	rand.Read(raw)
	proc := c.plan.Process
	proc.Args = args
	return sandbox.ExecPlan{Version: sandbox.ExecPlanVersion, Build: sandbox.Build, Container: c.plan.Container, Run: c.plan.Run,
		Exec: hex.EncodeToString(raw), ContainerPlan: sandbox.Digest(c.raw), Process: proc, Seccomp: c.plan.Seccomp, Host: c.plan.Host}
}

func (c *inhabited) encode(e sandbox.ExecPlan) []byte {
	c.r.t.Helper()
	b, err := e.Encode()
	if err != nil {
		c.r.t.Fatal(err)
	}
	return b
}

func (c *inhabited) intend(run string, plan []byte) receipt.Receipt {
	c.r.t.Helper()
	permit, err := c.r.log.Intend(context.Background(), audit.Intent{Type: audit.ExecIntent, Run: run, Plan: sandbox.Digest(plan), Actor: audit.Caller()})
	if err != nil {
		c.r.t.Fatal(err)
	}
	return permit.Receipt()
}

// try starts e and returns how it ended and what it wrote.
func (c *inhabited) try(e sandbox.ExecPlan) (sandbox.Exit, string, error) {
	c.r.t.Helper()
	b := c.encode(e)
	return c.launch(b, c.intend(e.Run, b))
}

func (c *inhabited) launch(plan []byte, proof receipt.Receipt) (sandbox.Exit, string, error) {
	c.r.t.Helper()
	pr, pw, err := os.Pipe()
	if err != nil {
		c.r.t.Fatal(err)
	}
	defer pr.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	proc, err := c.r.launcher.Exec(ctx, plan, c.raw, proof, sandbox.Stdio{Out: pw, Err: pw})
	pw.Close()
	if err != nil {
		return sandbox.Exit{}, "", err
	}
	out, err := io.ReadAll(pr)
	if err != nil {
		c.r.t.Fatal(err)
	}
	exit, err := proc.Wait(ctx)
	return exit, string(out), err
}

func (c *inhabited) sh(script string) string {
	c.r.t.Helper()
	exit, out, err := c.try(c.execPlan("/bin/sh", "-c", script))
	if err != nil || exit.Code != 0 {
		c.r.t.Fatalf("%s: exit %d, %v\n%s", script, exit.Code, err, out)
	}
	return out
}

// below lists the processes of the monitor's PID namespace but for the monitor
// and the container's first one, as "pid name".
func (c *inhabited) below() []string {
	var out []string
	ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", c.proc.MonitorPID()))
	inner, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.proc.HostPID()))
	es, _ := os.ReadDir("/proc")
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == c.proc.MonitorPID() || pid == c.proc.HostPID() {
			continue
		}
		if mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && (mine == ns || mine == inner) {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			out = append(out, e.Name()+" "+strings.TrimSpace(string(name)))
		}
	}
	return out
}

func (c *inhabited) alone() {
	c.r.t.Helper()
	eventually(c.r.t, "nothing but the container's first process is left", func() bool { return len(c.below()) == 0 })
}

func sleeper(r *rig) sandbox.Plan {
	return r.plan("/bin/sleep", "1000")
}

// One process more has exactly what the container's first one has.
func TestExecPosture(t *testing.T) {
	r := newRig(t)
	p := sleeper(r)
	p.Process.Capabilities = []string{"CAP_CHOWN"}
	c := r.inhabit(p)
	pr, pw := r.pipe()
	e := c.execPlan("/bin/sleep", "1000")
	b := c.encode(e)
	proc, err := r.launcher.Exec(t.Context(), b, c.raw, c.intend(e.Run, b), sandbox.Stdio{Out: pw, Err: pw})
	pw.Close()
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.proc.HostPID(), proc.HostPID()
	link := func(pid int, name string) string {
		s, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"} {
		if a, b := link(first, "ns/"+ns), link(second, "ns/"+ns); a != b {
			t.Errorf("%s namespace: %s, the container's is %s", ns, b, a)
		}
	}
	for _, name := range []string{"root", "cwd"} {
		if a, b := link(first, name), link(second, name); a != b {
			t.Errorf("%s: %s, the container's is %s", name, b, a)
		}
	}
	read := func(pid int, name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, name := range []string{"cgroup", "uid_map", "gid_map", "limits", "oom_score_adj", "loginuid", "coredump_filter"} {
		if a, b := read(first, name), read(second, name); a != b {
			t.Errorf("%s:\n%s\nthe container's is\n%s", name, b, a)
		}
	}
	status := func(pid int) (out []string) {
		for line := range strings.Lines(read(pid, "status")) {
			for _, key := range []string{"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Umask:", "SigIgn:", "SigBlk:"} {
				if strings.HasPrefix(line, key) {
					out = append(out, line)
				}
			}
		}
		return out
	}
	want, have := status(first), status(second)
	if !slices.Equal(want, have) {
		t.Errorf("status:\n%s\nthe container's is\n%s", strings.Join(have, ""), strings.Join(want, ""))
	}
	if caps := read(second, "status"); !strings.Contains(caps, "CapInh:\t0000000000000000") || !strings.Contains(caps, "CapAmb:\t0000000000000000") {
		t.Error("it has inheritable or ambient capabilities (CVE-2022-29162)")
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", second))
	if err != nil || len(fds) != 3 {
		t.Errorf("descriptors %v, %v", fds, err)
	}
	for _, fd := range fds {
		if to := link(second, "fd/"+fd.Name()); !strings.HasPrefix(to, "pipe:") {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
	eventually(t, "its parent is the monitor", func() bool {
		return strings.Fields(read(second, "stat"))[3] == strconv.Itoa(c.proc.MonitorPID())
	})
	unix.Kill(second, unix.SIGKILL)
	if exit, err := proc.Wait(t.Context()); err != nil || exit.Signal != int(unix.SIGKILL) || exit.Code != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	pr.Close()
	c.alone()
}

// A launcher whose caller gives up at any moment leaves nothing, and every process
// that was on record as started has an end on record, by the monitor alone: who
// is told that there is none puts that on record as its end.
func TestExecLauncherKilled(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	started, patience := 0, 20*time.Millisecond
	given := map[string]bool{}
	for i := range 120 {
		e := c.execPlan("/bin/sleep", "1000")
		b := c.encode(e)
		proof := c.intend(e.Run, b)
		wait := time.Duration(1+mathrand.IntN(60)) * time.Millisecond
		if i%4 != 0 { // and most often about when it begins to run
			wait = patience
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		proc, err := r.launcher.Exec(ctx, b, c.raw, proof, sandbox.Stdio{})
		cancel()
		step := time.Duration(mathrand.IntN(1000)) * time.Microsecond
		if err != nil {
			given[e.Exec] = true
			patience += step
		} else {
			patience = max(patience-step, time.Millisecond)
			started++
			unix.Kill(proc.HostPID(), unix.SIGKILL)
			if _, err := proc.Wait(t.Context()); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
	}
	c.alone()
	t.Logf("%d of 120 came to run", started)
	// And the container is as good as before.
	if out := c.sh("echo well"); out != "well\n" {
		t.Errorf("%q", out)
	}
	starts, ends := map[string]bool{}, map[string]bool{}
	eventually(t, "every start has an end", func() bool {
		clear(starts)
		clear(ends)
		if err := audit.Read(r.auditDir(), 0, func(e audit.Entry) error {
			_, id, _ := strings.Cut(string(e.Data), `"exec":"`)
			switch {
			case e.Type == audit.ExecStart:
				starts[id[:64]] = true
			case e.Type == audit.ExecExit:
				ends[id[:64]] = true
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for id := range starts {
			if !ends[id] {
				return false
			}
		}
		return len(starts) == len(ends)
	})
	for id := range given {
		if starts[id] {
			t.Errorf("process %s was started, and its caller told that it was not", id)
		}
	}
}

// 200 processes, many at once, leave neither processes nor descriptors.
func TestExecsLeakNothing(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	c.sh("true")
	count := func() int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.proc.MonitorPID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 25 {
				want := fmt.Sprintf("%d.%d", w, i)
				exit, out, err := c.try(c.execPlan("/bin/echo", want))
				if err != nil || exit.Code != 0 || out != want+"\n" {
					t.Errorf("%s: %+v %v %q", want, exit, err, out)
				}
			}
		})
	}
	all.Wait()
	c.alone()
	eventually(t, "the monitor has as many descriptors as before", func() bool { return count() <= before })
}

// There is an end to how many there may be, and it is said.
func TestExecsAreBounded(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	var procs []*sandbox.Running
	var last error
	for range 65 {
		e := c.execPlan("/bin/sleep", "1000")
		b := c.encode(e)
		proc, err := r.launcher.Exec(t.Context(), b, c.raw, c.intend(e.Run, b), sandbox.Stdio{})
		if err != nil {
			last = err
			break
		}
		procs = append(procs, proc)
	}
	if f := fault.As(last); len(procs) != 64 || f.Rule != "exec.limit" {
		t.Fatalf("%d processes, then %v", len(procs), last)
	}
	// All end with the container, and all ends are on record.
	unix.Kill(c.proc.HostPID(), unix.SIGKILL)
	for _, p := range procs {
		if exit, err := p.Wait(t.Context()); err != nil || exit.Signal != int(unix.SIGKILL) {
			t.Fatalf("%+v %v", exit, err)
		}
	}
}

func TestExecDiesWithMonitor(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	e := c.execPlan("/bin/sleep", "1000")
	b := c.encode(e)
	proc, err := r.launcher.Exec(t.Context(), b, c.raw, c.intend(e.Run, b), sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	unix.Kill(c.proc.MonitorPID(), unix.SIGKILL)
	if _, err := proc.Wait(t.Context()); fault.As(err).Rule != "monitor.lost" {
		t.Errorf("%v", err)
	}
	eventually(t, "the process is gone", func() bool { return !running(proc.HostPID()) })
	c.proc.Wait(t.Context())
	if err := sandbox.Clean(c.plan.Run, c.plan.Host.RuntimeDir); err != nil {
		t.Error(err)
	}
}

// CVE-2024-21626: no working directory leads out, whatever links to it.
func TestExecWorkingDirectory(t *testing.T) {
	r := newRig(t)
	for n := range 65 {
		if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", n), filepath.Join(r.layer, "home", fmt.Sprintf("l%d", n))); err != nil {
			t.Fatal(err)
		}
	}
	c := r.inhabit(sleeper(r))
	root := c.sh("stat -c %d:%i /")
	for n := range 65 {
		e := c.execPlan("/bin/sh", "-c", "i=0; while [ $i -lt 20 ]; do cd ..; i=$((i+1)); done; stat -c %d:%i .")
		e.Process.Cwd = fmt.Sprintf("/home/l%d", n)
		if exit, out, err := c.try(e); err == nil && exit.Code == 0 && out != root {
			t.Errorf("above descriptor %d is %q, the root is %q", n, out, root)
		}
	}
	c.alone()
}

// CVE-2019-5736: whoever is in the container when a process enters it cannot
// write the program that brought it there.
func TestExecProgramIsNotWritten(t *testing.T) {
	before, err := os.ReadFile(program)
	if os.Geteuid() == 0 && err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	c := r.inhabit(r.plan("/bin/sh", "-c", `while :; do for p in /proc/[0-9]*; do
		case $p in /proc/1|/proc/self) ;; *) (echo spoiled > $p/exe) 2>/dev/null && echo wrote $p >> /tmp/wrote; (: < $p/mem) 2>/dev/null && ls -l $p/exe >> /tmp/seen;; esac
	done; done`))
	for range 40 {
		c.sh("true")
	}
	if out := c.sh("cat /tmp/wrote 2>/dev/null || true"); out != "" {
		t.Errorf("it wrote to %s", out)
	}
	after, err := os.ReadFile(program)
	if err != nil || sha256.Sum256(before) != sha256.Sum256(after) || !bytes.Equal(before, after) {
		t.Errorf("the launcher's program has changed: %v", err)
	}
}
