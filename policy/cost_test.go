package policy_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/policy"
)

func cpu() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkCold is what one ward run pays: Open and Decide of the shipped
// policy in a fresh process, in CPU time of that process (least and median of
// 20), without the start of the process itself. Nothing asserts it.
func BenchmarkCold(b *testing.B) {
	if os.Getenv("WARD_BENCH_COLD") != "" {
		before := cpu()
		e, err := policy.Open(policy.Config{})
		if err != nil {
			b.Fatal(err)
		}
		d, err := e.Decide(b.Context(), good())
		if err != nil || !d.Allowed() {
			b.Fatal(err, d.Reasons())
		}
		fmt.Printf("cold: %d\n", cpu()-before)
		os.Exit(0)
	}
	for b.Loop() {
		var took []float64
		for range 20 {
			cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkCold$", "-test.benchtime=1x")
			cmd.Env = append(os.Environ(), "WARD_BENCH_COLD=1")
			out, err := cmd.Output()
			if err != nil {
				b.Fatal(err, string(out))
			}
			var ns float64
			if _, err := fmt.Sscanf(string(out)[strings.Index(string(out), "cold: "):], "cold: %f", &ns); err != nil {
				b.Fatal(err)
			}
			took = append(took, ns/1e6)
		}
		slices.Sort(took)
		b.ReportMetric(took[0], "ms-cpu-least")
		b.ReportMetric(took[len(took)/2], "ms-cpu-median")
	}
}
