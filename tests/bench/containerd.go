package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is a containerd of the bench's own, in directories of its own.
type daemon struct {
	s    setup
	dir  string
	proc *exec.Cmd
}

func (s setup) containerd() (*daemon, error) {
	d := &daemon{s: s, dir: filepath.Join(s.dir, "containerd")}
	if err := os.MkdirAll(d.dir, 0o711); err != nil {
		return nil, err
	}
	config := filepath.Join(d.dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(d.dir, "root"), filepath.Join(d.dir, "state"), d.address())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.proc = exec.Command("containerd", "-c", config)
	d.proc.Stdout, d.proc.Stderr = log, log
	if err := d.proc.Start(); err != nil {
		return nil, err
	}
	if err := waitFor(d.address()); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("containerd: %w\n%s", err, text), d.stop())
	}
	return d, nil
}

func (d *daemon) address() string { return filepath.Join(d.dir, "sock") }

func (d *daemon) stop() error {
	if err := d.proc.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_, err := d.proc.Process.Wait()
	return err
}

func (d *daemon) ctr(args ...string) error {
	out, err := exec.Command("ctr", append([]string{"-a", d.address(), "-n", d.namespace()}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", args[0], err, out)
	}
	return nil
}

func (d *daemon) namespace() string { return "ward-bench-" + strconv.Itoa(os.Getpid()) }

// shims watch containers of runc, as under Docker and containerd's CRI.
func (d *daemon) shims() *keeper {
	id := func(n int) string { return fmt.Sprintf("%s-%d", d.namespace(), n) }
	k := &keeper{name: "containerd-shim-runc-v2"}
	k.start = func(n int) (int, error) {
		if err := d.ctr("run", "-d", "--fifo-dir", filepath.Join(d.dir, "fifo"), "--config", filepath.Join(d.s.dir, "sleepers", "config.json"), id(n)); err != nil {
			return 0, err
		}
		return shimOf(id(n), d.address())
	}
	k.stop = func(n int) error {
		if err := d.ctr("tasks", "kill", "-s", "KILL", id(n)); err != nil {
			return err
		}
		err := d.ctr("tasks", "rm", id(n))
		for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = d.ctr("tasks", "rm", id(n)) {
			time.Sleep(20 * time.Millisecond) // it is told of the end by and by
		}
		return errors.Join(err, d.ctr("containers", "rm", id(n)), reaped(k.pids[n]))
	}
	return k
}

// shimOf finds the shim that containerd at this address started for id.
func shimOf(id, address string) (int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, name := range lines {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(b), "\x00")
		if strings.HasSuffix(args[0], "containerd-shim-runc-v2") && has(args, "-id", id) && has(args, "-address", address) {
			return strconv.Atoi(filepath.Base(filepath.Dir(name)))
		}
	}
	return 0, fmt.Errorf("no shim for %s", id)
}

func has(args []string, flag, value string) bool {
	for i := range len(args) - 1 {
		if args[i] == flag && args[i+1] == value {
			return true
		}
	}
	return false
}
