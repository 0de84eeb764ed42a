package audit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// percentiles reports the median and the 99th percentile in microseconds.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// cpu is this process's processor time so far.
func cpu(b *testing.B, who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIntend is one durable, signed and provable intent.
func BenchmarkIntend(b *testing.B) {
	l, _ := newLog(b)
	in := testIntent("r")
	b.ReportAllocs()
	begun := cpu(b, unix.RUSAGE_SELF)
	var took []time.Duration
	for b.Loop() {
		t := time.Now()
		if _, err := l.Intend(context.Background(), in); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(t))
	}
	percentiles(b, took)
	b.ReportMetric(float64((cpu(b, unix.RUSAGE_SELF)-begun).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkFdatasync is what the disk alone takes for a write of that size: the
// floor of BenchmarkIntend.
func BenchmarkFdatasync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := []byte(strings.Repeat("x", 1500))
	var took []time.Duration
	for b.Loop() {
		t := time.Now()
		if _, err := f.Write(p); err != nil {
			b.Fatal(err)
		}
		if err := fdatasync(f); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(t))
	}
	percentiles(b, took)
}

// BenchmarkPost is a record that is not waited for.
func BenchmarkPost(b *testing.B) {
	l, _ := newLog(b)
	r := Record{Type: RunExit, Run: "r", Actor: Caller(), Data: Exit{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Post(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is what each new process pays before its first record.
func BenchmarkOpen(b *testing.B) {
	l, dir := newLog(b)
	for i := range 100 {
		intend(b, l, fmt.Sprint(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		l, err := Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkColdProcess is a process that opens the log, records one intent and
// ends, less the same process that does nothing.
func BenchmarkColdProcess(b *testing.B) {
	_, dir := newLog(b)
	run := func(words ...string) time.Duration {
		before := cpu(b, unix.RUSAGE_CHILDREN)
		if _, err := childCommand(b, nil, words...).Output(); err != nil {
			b.Fatal(err)
		}
		return cpu(b, unix.RUSAGE_CHILDREN) - before
	}
	var with, without time.Duration
	for b.Loop() {
		with += run("intend", dir, "1")
		without += run("nothing")
	}
	b.ReportMetric(float64(with.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64((with-without).Microseconds())/float64(b.N), "audit-cpu-µs/op")
}

// BenchmarkProcesses is intents per second of eight processes on one log.
func BenchmarkProcesses(b *testing.B) {
	_, dir := newLog(b)
	const procs, each = 8, 100
	begun := time.Now()
	n := 0
	for b.Loop() {
		done := make(chan error)
		for range procs {
			cmd := childCommand(b, nil, "intend", dir, fmt.Sprint(each))
			go func() { _, err := cmd.Output(); done <- err }()
		}
		for range procs {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		n += procs * each
	}
	b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "intents/s")
}

// BenchmarkVerify is the reading side, per record, on a log of one record per
// commit.
func BenchmarkVerify(b *testing.B) {
	l, dir := newLog(b)
	const n = 2000
	r := Record{Type: RunExit, Run: "r", Actor: Caller(), Data: Exit{}}
	for range n {
		if err := l.Post(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
	for _, every := range []bool{false, true} {
		b.Run(map[bool]string{false: "last signature", true: "every signature"}[every], func(b *testing.B) {
			for b.Loop() {
				if _, err := Verify(dir, Expect{VKey: l.VKey(), EverySignature: every}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkOutput is output through the per-run log, in pieces of a pipe's size.
func BenchmarkOutput(b *testing.B) {
	o, _ := newOutput(b)
	p := []byte(strings.Repeat("x", 16<<10))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Write(Stdout, p); err != nil {
			b.Fatal(err)
		}
	}
}
