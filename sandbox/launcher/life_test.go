package launcher_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func TestOutputIsExact(t *testing.T) {
	r := newRig(t)
	want := make([]byte, 3<<20+17)
	rand.Read(want)
	if err := os.WriteFile(filepath.Join(r.layer, "data"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	p := r.plan("/bin/sh", "-c", "cat /data & (echo -n err >&2); wait")
	res := r.run(p)
	if res.out != string(want) || res.errOut != "err" {
		t.Errorf("%d bytes of %d came through, err %q", len(res.out), len(want), res.errOut)
	}
	var log, logErr bytes.Buffer
	err := audit.ReadOutput(filepath.Join(p.Host.ContainerDir, sandbox.OutputFile(1)), func(c audit.Chunk) error {
		if c.Stream == audit.Stdout {
			log.Write(c.Data)
		} else {
			logErr.Write(c.Data)
		}
		return nil
	})
	if err != nil || !bytes.Equal(log.Bytes(), want) || logErr.String() != "err" {
		t.Errorf("the output log has %d bytes and %q (%v)", log.Len(), logErr.String(), err)
	}
}

func TestOutputThatIsKeptIsBounded(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "head -c 300000 /dev/zero")
	p.Limits.Output = 1000
	if got := len(r.run(p).out); got != 300000 {
		t.Errorf("%d bytes reached the caller, want all of them", got)
	}
	kept := 0
	if err := audit.ReadOutput(filepath.Join(p.Host.ContainerDir, sandbox.OutputFile(1)), func(c audit.Chunk) error {
		kept += len(c.Data)
		return nil
	}); err != nil || kept != 1000 {
		t.Errorf("%d bytes are kept (%v), want 1000", kept, err)
	}
	var seal audit.Seal
	if err := audit.Read(r.auditDir(), 0, func(e audit.Entry) error {
		if e.Type == audit.RunSeal && e.Run == p.Run {
			return json.Unmarshal(e.Data, &seal)
		}
		return nil
	}); err != nil || seal.Bytes != 1000 || seal.Dropped != 299000 {
		t.Errorf("on record: %+v (%v)", seal, err)
	}
}

func TestStdin(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/cat")
	if out := r.run(p).out; out != "" {
		t.Errorf("without standard input it read %q", out)
	}
	p = r.plan("/bin/cat")
	p.Process.Stdin = true
	in := strings.Repeat("line\n", 50_000)
	res, err := r.try(p, in)
	if err != nil || res.out != in {
		t.Errorf("%d bytes of %d (%v)", len(res.out), len(in), err)
	}
}

// TestCallerGoesAway closes the caller's streams: the payload goes on, and
// its output is in the log.
func TestCallerGoesAway(t *testing.T) {
	r := newRig(t)
	outR, outW := r.pipe()
	p := r.plan("/bin/sh", "-c", "echo one; sleep 0.3; echo two; echo three; exit 4")
	proc, err := r.launch(p, sandbox.Stdio{Out: outW})
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	outR.Close()
	exit, err := proc.Wait(t.Context())
	if err != nil || exit.Code != 4 || exit.Error != "" {
		t.Errorf("%+v %v", exit, err)
	}
	var log strings.Builder
	audit.ReadOutput(filepath.Join(p.Host.ContainerDir, sandbox.OutputFile(1)), func(c audit.Chunk) error { log.Write(c.Data); return nil })
	if log.String() != "one\ntwo\nthree\n" {
		t.Errorf("log %q", log.String())
	}
}

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	for script, want := range map[string]sandbox.Exit{
		"exit 0": {}, "exit 255": {Code: 255}, "sh -c 'kill -TERM $$'; exit $?": {Code: 143},
	} {
		if got := r.sh(script).exit; got.Code != want.Code || got.Signal != 0 {
			t.Errorf("%q: %+v", script, got)
		}
	}
}

func TestMonitorSocket(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done")
	outR, outW := r.pipe()
	proc, err := r.launch(p, sandbox.Stdio{Out: outW})
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 3); true {
		if _, err := io.ReadFull(outR, b); err != nil || string(b) != "up\n" {
			t.Fatalf("%q %v", b, err)
		}
	}
	st, err := os.Stat(filepath.Join(p.Host.RuntimeDir, sandbox.MonitorSocket))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
	s, err := sandbox.ReadStatus(p.Host.ContainerDir)
	if err != nil || s.Phase != sandbox.PhaseRunning || s.PID != proc.HostPID() || s.MonitorPID != proc.MonitorPID() {
		t.Errorf("status %+v %v", s, err)
	}
	m, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	waiter, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := waiter.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a running container: %v", err)
	}
	if err := m.Signal(t.Context(), 0); !errors.Is(err, fault.Invalid) {
		t.Errorf("signal 0: %v", err)
	}
	waiter2, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter2.Close()
	heard := make(chan sandbox.Exit, 1)
	go func() { e, _ := waiter2.Wait(context.Background()); heard <- e }()
	time.Sleep(50 * time.Millisecond)
	if err := m.Signal(t.Context(), unix.SIGTERM); err != nil {
		t.Errorf("signal: %v", err)
	}
	exit, err := proc.Wait(t.Context())
	if err != nil || exit.Code != 9 {
		t.Errorf("%+v %v", exit, err)
	}
	if e := <-heard; e.Code != 9 {
		t.Errorf("a second waiter heard %+v", e)
	}
	if _, err := sandbox.Dial(p.Host.RuntimeDir); fault.As(err).Rule != "monitor.gone" {
		t.Errorf("dialling a monitor that is gone: %v", err)
	}
	s, err = sandbox.ReadStatus(p.Host.ContainerDir)
	if err != nil || s.Phase != sandbox.PhaseExited || s.Exit == nil || s.Exit.Code != 9 {
		t.Errorf("status %+v %v", s, err)
	}
}

// TestKilledMonitor kills the monitor with SIGKILL: the kernel must end the
// whole container at once.
func TestKilledMonitor(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000 & echo up; wait")
	outR, outW := r.pipe()
	proc, err := r.launch(p, sandbox.Stdio{Out: outW})
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(outR, make([]byte, 3))
	pids := cgroupProcs(p.Run)
	if len(pids) != 4 {
		t.Fatalf("processes of the container: %v", pids)
	}
	start := time.Now()
	if err := unix.Kill(proc.MonitorPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err = proc.Wait(t.Context())
	if fault.As(err).Rule != "monitor.lost" {
		t.Errorf("wait: %v", err)
	}
	for _, pid := range pids {
		if running(pid) {
			t.Errorf("process %d of the container outlived its monitor", pid)
		}
	}
	t.Logf("all gone %v after the kill", time.Since(start))
	// What the next command does; clean then finds nothing.
	if err := sandbox.Clean(p.Run, p.Host.RuntimeDir); err != nil {
		t.Error(err)
	}
}

func cgroupProcs(run string) (pids []int) {
	for _, dir := range cgroupDirs(run) {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
			for _, f := range strings.Fields(string(b)) {
				var pid int
				fmt.Sscan(f, &pid)
				pids = append(pids, pid)
			}
			return pids
		}
	}
	return nil
}

// records are those of run, in order.
func (r *rig) records(run string) (all []audit.Entry) {
	r.t.Helper()
	err := audit.Read(r.auditDir(), 0, func(e audit.Entry) error {
		if e.Run == run {
			all = append(all, e)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func names(es []audit.Entry) string {
	var s []string
	for _, e := range es {
		s = append(s, string(e.Type))
	}
	return strings.Join(s, " ")
}

func TestRecords(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "echo hello; exit 3")
	res := r.run(p)
	recs := r.records(p.Run)
	if got := names(recs); got != "run.intent run.start run.anchor run.exit run.seal" {
		t.Fatalf("records: %s", got)
	}
	var exit audit.Exit
	var anchor audit.Anchor
	if err := errors.Join(json.Unmarshal(recs[3].Data, &exit), json.Unmarshal(recs[2].Data, &anchor)); err != nil {
		t.Fatal(err)
	}
	if exit.Code != 3 || anchor.Stdout != 6 || anchor.Stderr != 0 {
		t.Errorf("%+v %+v", exit, anchor)
	}
	if err := audit.VerifyOutput(filepath.Join(p.Host.ContainerDir, sandbox.OutputFile(1)), anchor); err != nil {
		t.Errorf("output log against its anchor: %v", err)
	}
	if u := res.exit.Usage; u.CPUNanos == 0 || u.MemoryPeakBytes == 0 {
		t.Errorf("usage %+v", u)
	}
	if report, err := audit.Verify(r.auditDir(), audit.Expect{VKey: r.log.VKey()}); err != nil {
		t.Errorf("the log does not verify: %v %+v", err, report)
	}
}

// TestLogLost takes the audit log away between intent and start: the payload
// must not run.
func TestLogLost(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "echo ran >/data/ran")
	mark := t.TempDir()
	os.Chmod(mark, 0o777)
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountBind, Source: mark, Target: "/data"}}
	plan := r.encode(p)
	permit := r.intend(p.Run, plan)
	key, err := filepath.Glob(filepath.Join(r.auditDir(), "*", "*key*"))
	if err != nil || len(key) == 0 {
		t.Fatalf("key files: %v %v", key, err)
	}
	for _, k := range key {
		if !strings.Contains(k, "pub") && !strings.Contains(k, "vkey") {
			os.Rename(k, k+".away")
		}
	}
	if _, err := r.launcher.Launch(t.Context(), plan, permit, sandbox.Stdio{}, nil); !errors.Is(err, fault.Unrecorded) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(mark, "ran")); err == nil {
		t.Error("the payload ran")
	}
	r.clean(p)
}

func TestDetached(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "sleep 0.3; echo done; exit 5")
	lock, err := os.Create(filepath.Join(p.Host.ContainerDir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	b := r.encode(p)
	proc, err := r.launcher.Launch(t.Context(), b, r.intend(p.Run, b), sandbox.Stdio{}, lock)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	monitor := proc.MonitorPID()
	if err := proc.Release(); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(lock.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		t.Error("the container's lock is free while it runs")
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s, err := sandbox.ReadStatus(p.Host.ContainerDir)
	if err != nil || s.Phase != sandbox.PhaseExited || s.Exit.Code != 5 {
		t.Errorf("status %+v %v", s, err)
	}
	var ws unix.WaitStatus
	unix.Wait4(monitor, &ws, 0, nil)
	r.clean(p)
}

func TestThirtyAtOnce(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for i := range 30 {
		p := r.plan("/bin/sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
		p.IDMap.Base = 100000 + uint32(i)*65536
		wg.Go(func() {
			res, err := r.try(p, "")
			if err != nil || res.exit.Code != i || res.out != fmt.Sprintf("%d\n", i) {
				t.Errorf("%d: %+v %v", i, res, err)
			}
		})
	}
	wg.Wait()
}

func TestCancelledLaunch(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "1000")
	b := r.encode(p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.launcher.Launch(ctx, b, r.intend(p.Run, b), sandbox.Stdio{}, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	r.removeCgroups(p)
	os.RemoveAll(p.Host.RuntimeDir)
}
