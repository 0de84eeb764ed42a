package launcher_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func TestMemoryLimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	p.Limits.Memory = 32 << 20
	res := r.run(p)
	if res.exit.Code != 137 || res.exit.Signal != 9 || !res.exit.OOMKilled || res.exit.Usage.OOMKills == 0 {
		t.Errorf("%+v", res.exit)
	}
	recs := r.records(p.Run)
	if got := names(recs); got != "run.intent run.start run.oom run.anchor run.exit run.seal" {
		t.Errorf("records: %s", got)
	}
}

func TestPIDsLimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "i=0; while [ $i -lt 50 ]; do sleep 2 & i=$((i+1)); done; wait")
	p.Limits.PIDs = 10
	res := r.run(p)
	if res.exit.Usage.PIDsPeak > 10 || res.exit.Usage.PIDsRefused == 0 || !strings.Contains(res.errOut, "fork") {
		t.Errorf("%+v %q", res.exit.Usage, res.errOut)
	}
}

func TestCPULimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "(while :; do :; done) & sleep 1")
	p.Limits.CPUQuota, p.Limits.CPUPeriod = 10_000, 100_000
	exit := r.run(p).exit
	// The start is in the usage, but not in the time.
	took := exit.Finished.Sub(exit.Started)
	if got := time.Duration(exit.Usage.CPUNanos); got > took/4+200*time.Millisecond {
		t.Errorf("a tenth of a processor used %v in %v", got, took)
	}
}

// diskOf is the whole disk that holds dir, or the test is skipped.
func diskOf(t *testing.T, dir string) sandbox.IOLimits {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	number := strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		t.Skip("needs a temporary directory on a disk")
	}
	if _, err := os.Stat(sys + "/partition"); err == nil {
		sys = filepath.Dir(sys)
	}
	b, err := os.ReadFile(sys + "/dev")
	if err != nil {
		t.Fatal(err)
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(b)), ":")
	d := sandbox.IOLimits{Path: "/dev/" + filepath.Base(sys)}
	d.Major, _ = strconv.ParseInt(major, 10, 64)
	d.Minor, _ = strconv.ParseInt(minor, 10, 64)
	return d
}

func TestCPUSet(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/grep", "Cpus_allowed_list\\|Mems_allowed_list", "/proc/self/status")
	p.Limits.CPUSet, p.Limits.MemSet = "0", "0"
	if got := r.run(p).out; got != "Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n" {
		t.Errorf("%q", got)
	}
}

func TestWriteRate(t *testing.T) {
	r := newRig(t)
	d := diskOf(t, r.dir)
	d.WriteBPS = 2 << 20
	p := r.plan("/bin/dd", "if=/dev/zero", "of=/home/x", "bs=1M", "count=4", "oflag=direct")
	p.Root.Writable = true
	p.Limits.IO = []sandbox.IOLimits{d}
	res := r.run(p)
	if took := res.exit.Finished.Sub(res.exit.Started); res.exit.Code != 0 || took < 1200*time.Millisecond {
		t.Errorf("4 MiB at 2 MiB/s took %v: %+v %s", took, res.exit, res.errOut)
	}
}

// TestWeightsThatNothingHeeds: a weight is refused where no disk has the
// scheduler that would act on it.
func TestWeightsThatNothingHeeds(t *testing.T) {
	r := newRig(t)
	queues, _ := filepath.Glob("/sys/block/*/queue/scheduler")
	for _, q := range queues {
		if b, _ := os.ReadFile(q); strings.Contains(string(b), "[bfq]") {
			t.Skip("a disk here has the bfq scheduler")
		}
	}
	p := r.plan("/bin/true")
	p.Limits.IOWeight = 300
	_, err := r.try(p, "")
	if f := fault.As(err); !errors.Is(err, fault.Unavailable) || f.Rule != "launch.limits" {
		t.Errorf("%v", err)
	}
}

func TestShmSizeAndReservation(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=3; cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low 2>/dev/null")
	p.Limits.Shm, p.Limits.Reservation = 2<<20, 64<<20
	res := r.run(p)
	if !strings.Contains(res.errOut, "No space left on device") {
		t.Errorf("3 MiB into 2: %s", res.errOut)
	}
	if res.out != "67108864\n" {
		t.Errorf("reservation: %q", res.out)
	}
}

func TestUlimits(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "ulimit -n; ulimit -Hn; ulimit -f; dd if=/dev/zero of=/tmp/x bs=1M count=2; echo $?")
	p.Process.Rlimits = []sandbox.Rlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_FSIZE", Soft: 1 << 20, Hard: 1 << 20}, {Type: "RLIMIT_NOFILE", Soft: 100, Hard: 120}}
	res := r.run(p)
	if res.out != "100\n120\n2048\n153\n" {
		t.Errorf("%q %q", res.out, res.errOut)
	}
}

// TestCallersPriority: what the caller is given more or less of than others is
// not the container's, nor the monitor's.
func TestCallersPriority(t *testing.T) {
	r := newRig(t)
	// A process inherits from the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore := func(nice int, score string) {
		if err := errors.Join(unix.Setpriority(unix.PRIO_PROCESS, 0, nice), os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0)); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	restore(7, "500")
	defer restore(0, string(was))
	p := r.plan("/bin/sh", "-c", "cat /proc/self/oom_score_adj; tr ' ' '\\n' </proc/self/stat | head -19 | tail -1; sleep 5")
	p.Process.OOMScoreAdj = 300
	outR, outW := r.pipe()
	proc, err := r.launch(p, sandbox.Stdio{Out: outW})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(proc.MonitorPID(), unix.SIGKILL)
	outW.Close()
	got := ""
	buf := make([]byte, 100)
	for strings.Count(got, "\n") < 2 {
		n, err := outR.Read(buf)
		if got += string(buf[:n]); err != nil {
			break
		}
	}
	if got != "300\n0\n" {
		t.Errorf("OOM score and nice value inside: %q", got)
	}
	if score := procFile(t, proc.MonitorPID(), "oom_score_adj"); score != "0\n" {
		t.Errorf("the monitor's OOM score is %q", score)
	}
	if nice, _ := unix.Getpriority(unix.PRIO_PROCESS, proc.MonitorPID()); nice != 20 {
		t.Errorf("the monitor's nice value is %d", 20-nice)
	}
	unix.Kill(proc.HostPID(), unix.SIGKILL)
	proc.Wait(t.Context())
}

// TestKilledMonitorOfAPausedContainer: what the freezer holds does not die of
// the kernel's signal alone; cleaning up lets it.
func TestKilledMonitorOfAPausedContainer(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "60")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(proc.MonitorPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Clean(p.Container, p.Host.RuntimeDir); err != nil {
		t.Error(err)
	}
	eventually(t, "the payload is gone", func() bool { return !running(proc.HostPID()) })
}
