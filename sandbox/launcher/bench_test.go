package launcher_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// childCPU is the processor time of all children waited for, in milliseconds.
func childCPU(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return float64(unix.TimevalToNsec(u.Utime)+unix.TimevalToNsec(u.Stime)) / 1e6
}

// BenchmarkLaunch runs `true` from a sealed plan to its recorded exit. cpu-ms
// is the processor time of launcher, container and monitor together; what the
// caller itself uses is not in it.
func BenchmarkLaunch(b *testing.B) {
	r := newRig(b)
	var used []float64
	for b.Loop() {
		p := r.plan("/bin/true")
		before := childCPU(b)
		if res := r.run(p); res.exit.Code != 0 {
			b.Fatalf("%+v", res)
		}
		used = append(used, childCPU(b)-before)
	}
	slices.Sort(used)
	b.ReportMetric(used[len(used)/2], "cpu-ms-median")
	b.ReportMetric(used[0], "cpu-ms-least")
}
