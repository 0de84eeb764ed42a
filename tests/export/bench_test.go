package export

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// BenchmarkExport is what exporting costs the exporter: records a second, and
// its processor time for each, which noise from others does not change much.
func BenchmarkExport(b *testing.B) {
	const n = 20000
	h := newHost(b)
	var batch []audit.Record
	for range n {
		batch = append(batch, audit.Record{Type: audit.RunExit, Run: "0123456789abcdef", Actor: audit.Caller(), Data: audit.Exit{Code: 1, DurationMS: 12, Usage: audit.Usage{CPUNanos: 5}}})
		if len(batch) == 100 {
			if err := h.log.Post(context.Background(), batch...); err != nil {
				b.Fatal(err)
			}
			batch = nil
		}
	}
	syslog := rsyslog(b)
	syslog.start(b)
	for _, to := range []struct {
		name string
		args []string
	}{
		{"file", []string{"--to", filepath.Join(b.TempDir(), "out")}},
		{"file-ocsf", []string{"--format", "ocsf", "--to", filepath.Join(b.TempDir(), "out")}},
		{"syslog-tls", syslog.to},
	} {
		b.Run(to.name, func(b *testing.B) {
			for range b.N {
				cmd := h.ward(to.args...)
				begin := time.Now()
				if err := cmd.Run(); err != nil {
					b.Fatal(err, cmd.Stderr)
				}
				cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				b.ReportMetric(n/time.Since(begin).Seconds(), "records/s")
				b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-µs/record")
			}
		})
	}
}
