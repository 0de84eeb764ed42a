// Command bench prints what a run costs: CPU and wall milliseconds of
// `ward run --rm busybox true` with everything on, beside `runc run` of the
// same root file system under the same kind of limits, and beside a bare
// `unshare`; interleaved, so that all three see the same machine, and as
// ratios, so that the figures mean something elsewhere. Then what an answer of
// the gate costs, cold and warm, with and without its record. Then what the
// system-call filter adds to a call beside Docker's default profile, and what
// stays in memory for 1, 10 and 100 idle containers beside conmon and
// containerd's shim.
//
// It asserts nothing: what a machine under load can promise is not a time.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	bin := flag.String("bin", "bin", "directory of ward and ward-launch")
	rounds := flag.Int("n", 30, "rounds")
	part := flag.String("part", "", "runs, decisions, filter or memory alone")
	flag.Parse()
	if err := run(*bin, *rounds, *part); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// contender is one way to run true in a container.
type contender struct {
	name string
	cmd  func(round int) *exec.Cmd
	cost []cost
}

type cost struct{ cpu, wall time.Duration }

func run(bin string, rounds int, part string) (err error) {
	dir, err := os.MkdirTemp("", "ward-b-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := setup{dir: dir, bin: bin}
	if err := s.make(); err != nil {
		return err
	}
	// Every process somewhere below us must end up waited for by us, or its
	// CPU time is nobody's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		do   func() error
	}{
		{"runs", func() error { return errors.Join(s.runs(os.Stdout, rounds), s.launcherStart(os.Stdout)) }},
		{"decisions", func() error { return s.decisions(os.Stdout, rounds) }},
		{"filter", func() error { return s.filters(os.Stdout) }},
		{"memory", func() error { return s.memory(os.Stdout) }},
	} {
		if part == "" || part == p.name {
			err = errors.Join(err, p.do())
		}
	}
	return err
}

// runs prints what a run costs beside others'.
func (s setup) runs(w io.Writer, rounds int) error {
	list := contenders{
		{name: "ward run --rm busybox true", cmd: func(int) *exec.Cmd { return s.ward("run", "--rm", image, "true") }},
		{name: "runc run (same root, limits, seccomp)", cmd: s.runc},
		{name: "unshare, all namespaces", cmd: func(int) *exec.Cmd {
			return exec.Command("unshare", "-U", "-r", "-fmpinuC", filepath.Join(s.bundle(), "rootfs/bin/busybox"), "true")
		}},
	}
	for round := range rounds + 2 {
		for i := range list {
			c := list[(i+round)%len(list)] // nobody always follows the same one
			spent, err := measure(c.cmd(round))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 2 { // the first two warm caches
				c.cost = append(c.cost, spent)
			}
		}
	}
	return list.print(w)
}

// measure runs cmd and returns what it and everything below it used.
func measure(cmd *exec.Cmd) (cost, error) {
	before, err := childrenCPU()
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(start)
	if err != nil {
		return cost{}, fmt.Errorf("%w: %s", err, out)
	}
	if err := reap(); err != nil {
		return cost{}, err
	}
	after, err := childrenCPU()
	return cost{after - before, wall}, err
}

// reap waits for orphans: a monitor may end after the command that started it.
func reap() error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return errors.New("a process of the run did not end")
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func childrenCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

type contenders []*contender

// print shows medians, and everything as a ratio to runc.
func (l contenders) print(w io.Writer) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "medians of %d interleaved rounds, %d processors, load %.4s\n\n", len(l[0].cost), runtime.NumCPU(), load)
	fmt.Fprintf(w, "%-40s %9s %9s %9s %9s\n", "", "CPU ms", "vs runc", "wall ms", "vs runc")
	base := median(l[1].cost)
	for _, c := range l {
		m := median(c.cost)
		fmt.Fprintf(w, "%-40s %9.1f %8.2fx %9.1f %8.2fx\n", c.name, ms(m.cpu), ratio(m.cpu, base.cpu), ms(m.wall), ratio(m.wall, base.wall))
	}
	fmt.Fprintln(w)
	return nil
}

func median(all []cost) cost {
	pick := func(f func(cost) time.Duration) time.Duration {
		var v []time.Duration
		for _, c := range all {
			v = append(v, f(c))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return cost{pick(func(c cost) time.Duration { return c.cpu }), pick(func(c cost) time.Duration { return c.wall })}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
