package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// keeper is a program of which one process stays with each container.
type keeper struct {
	name string
	// start starts container n, which does nothing, and returns what stays.
	start func(n int) (pid int, err error)
	// stop removes container n and what stayed with it.
	stop func(n int) error
	pids []int
}

// scale is how many idle containers there are when memory is looked at.
var scale = []int{1, 10, 100}

// memory prints what stays in memory for each idle container, and how that
// grows: ward's monitor beside conmon and containerd's shim. PSS shares out
// what several processes have in common; dirty is nobody else's.
func (s setup) memory(w io.Writer) (err error) {
	daemon, err := s.containerd()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.stop()) }()
	if err := s.sleepers(); err != nil {
		return err
	}
	fmt.Fprintf(w, "%-32s %10s %9s %9s %9s %14s\n", "for each idle container, kB", "containers", "resident", "PSS", "dirty", "PSS vs conmon")
	var base []float64
	for _, k := range []*keeper{s.conmons(), s.monitors(), daemon.shims()} {
		pss, err := k.measure(w, base)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if base == nil {
			base = pss
		}
	}
	fmt.Fprintln(w)
	return nil
}

func (k *keeper) measure(w io.Writer, base []float64) (all []float64, err error) {
	defer func() {
		for n := range k.pids {
			err = errors.Join(err, k.stop(n))
		}
	}()
	for step, want := range scale {
		for n := len(k.pids); n < want; n++ {
			pid, err := k.start(n)
			if err != nil {
				return nil, err
			}
			k.pids = append(k.pids, pid)
		}
		time.Sleep(500 * time.Millisecond) // for the last to come to rest
		var sum footprint
		for _, pid := range k.pids {
			if err := sum.add(pid); err != nil {
				return nil, err
			}
		}
		each := func(kB int) float64 { return float64(kB) / float64(want) }
		all = append(all, each(sum.pss))
		against := base
		if against == nil {
			against = all
		}
		fmt.Fprintf(w, "%-32s %10d %9.0f %9.0f %9.0f %13.2fx\n", k.name, want, each(sum.rss), each(sum.pss), each(sum.dirty), all[step]/against[step])
	}
	return all, nil
}

// footprint is memory in kB, as the kernel counts it.
type footprint struct{ rss, pss, dirty int }

func (f *footprint) add(pid int) error {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err
	}
	defer file.Close()
	for sc := bufio.NewScanner(file); sc.Scan(); {
		words := strings.Fields(sc.Text())
		if len(words) != 3 {
			continue
		}
		kB, _ := strconv.Atoi(words[1])
		switch words[0] {
		case "Rss:":
			f.rss += kB
		case "Pss:":
			f.pss += kB
		case "Private_Dirty:":
			f.dirty += kB
		}
	}
	return nil
}

// monitors are ward's.
func (s setup) monitors() *keeper {
	var ids []string
	return &keeper{name: "ward-launch monitor", start: func(int) (int, error) {
		out, err := s.ward("run", "-d", image, "sleep", "3600").Output()
		if err != nil {
			return 0, said(err)
		}
		id := strings.TrimSpace(string(out))
		ids = append(ids, id)
		st, err := sandbox.ReadStatus(filepath.Join(s.dir, "root/lib/containers", id))
		return st.MonitorPID, err
	}, stop: func(n int) error { return said(s.ward("rm", "-f", ids[n]).Run()) }}
}

// sleepers is a bundle like the one runc is measured with, whose container
// does nothing.
func (s setup) sleepers() error {
	dir := filepath.Join(s.dir, "sleepers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rs := spec()
	rs.Process.Args = []string{"sleep", "3600"}
	rs.Root.Path = filepath.Join(s.bundle(), "rootfs")
	b, err := json.Marshal(rs)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

// conmons watch containers of runc, as under podman and CRI-O.
func (s setup) conmons() *keeper {
	id := func(n int) string { return fmt.Sprintf("ward-bench-%d-conmon-%d", os.Getpid(), n) }
	root := filepath.Join(s.dir, "conmon")
	runc := func(args ...string) error {
		return said(exec.Command("runc", append([]string{"--root", root}, args...)...).Run())
	}
	k := &keeper{name: "conmon"}
	k.start = func(n int) (int, error) {
		dir := filepath.Join(root, "of", id(n))
		if err := os.MkdirAll(filepath.Join(dir, "exits"), 0o700); err != nil {
			return 0, err
		}
		path, err := exec.LookPath("runc")
		if err != nil {
			return 0, err
		}
		cmd := exec.Command("conmon", "--api-version", "1", "-c", id(n), "-u", id(n), "-n", id(n), "-r", path,
			"--runtime-arg", "--root", "--runtime-arg", root, "-b", filepath.Join(s.dir, "sleepers"),
			"-p", filepath.Join(dir, "pid"), "-P", filepath.Join(dir, "conmon"), "-l", "k8s-file:"+filepath.Join(dir, "log"),
			"--exit-dir", filepath.Join(dir, "exits"), "--socket-dir-path", dir)
		if err := cmd.Run(); err != nil {
			return 0, said(err)
		}
		if err := waitFor(filepath.Join(dir, "pid")); err != nil {
			return 0, err
		}
		if err := runc("start", id(n)); err != nil {
			return 0, err
		}
		b, err := os.ReadFile(filepath.Join(dir, "conmon"))
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(string(b)))
	}
	k.stop = func(n int) error {
		if err := runc("kill", id(n), "KILL"); err != nil {
			return err
		}
		if err := reaped(k.pids[n]); err != nil {
			return err
		}
		return runc("delete", id(n))
	}
	return k
}

// waitFor waits for a file with something in it.
func waitFor(path string) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if st, err := os.Stat(path); err == nil && (st.Size() > 0 || !st.Mode().IsRegular()) {
			return nil
		}
	}
	return fmt.Errorf("%s does not appear", path)
}

// reaped waits for the end of a process whose parent is gone: it is ours now.
func reaped(pid int) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got == pid || errors.Is(err, unix.ECHILD) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// said adds what a program wrote about its failure.
func said(err error) error {
	var e *exec.ExitError
	if errors.As(err, &e) && len(e.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return err
}
