package launcher_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// cpuOf is the processor time that a process has used, from /proc/PID/stat in
// hundredths of a second.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// A container that does nothing but write costs its monitor no more than it may
// use itself, whatever the size of what it writes.
func TestMonitorShare(t *testing.T) {
	r := newRig(t)
	for name, args := range map[string][]string{
		"large":        {"/bin/dd", "if=/dev/zero", "bs=64k"},
		"single bytes": {"/bin/sh", "-c", "dd if=/dev/zero bs=1 >&2 & exec dd if=/dev/zero bs=1"},
	} {
		p := paced(r.plan(args...))
		h := r.inhabit(p)
		time.Sleep(500 * time.Millisecond)
		before, begin := cpuOf(t, h.proc.MonitorPID()), time.Now()
		time.Sleep(3 * time.Second)
		share := float64(cpuOf(t, h.proc.MonitorPID())-before) / float64(time.Since(begin))
		t.Logf("%s: the monitor uses %.3f of a processor", name, share)
		if share > 0.15 {
			t.Errorf("%s: of a container with 0.1 of a processor the monitor uses %.2f", name, share)
		}
		unix.Kill(h.proc.HostPID(), unix.SIGKILL)
	}
	// Who waits loses nothing.
	p := paced(r.plan("/bin/dd", "if=/dev/zero", "bs=64k", "count=320"))
	if res := r.run(p); res.exit.Code != 0 || len(res.out) != 320*64<<10 {
		t.Errorf("exit %d, %d bytes of %d", res.exit.Code, len(res.out), 320*64<<10)
	}
}

// paced is p with a tenth of a processor and a log that is turned away, which
// takes its monitor most.
func paced(p sandbox.Plan) sandbox.Plan {
	p.Limits.CPUQuota, p.Limits.CPUPeriod = 10_000, 100_000
	p.Limits.OutputFile, p.Limits.OutputFiles = 4<<20, 2
	return p
}
