package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	_ "github.com/ward-project/ward/internal/early" // the collector's pace is the program's
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/sandbox"
)

// decisions prints what an answer of the gate costs: of a process for itself,
// of one that lives, with and without the record of it, and beside what cosign
// takes to look at the same signature.
func (s setup) decisions(w io.Writer, rounds int) error {
	cosign, stop, err := s.cosign()
	if err != nil {
		return err
	}
	defer stop()
	list := []*contender{
		{name: "ward gate: cold verify, decide, record", cmd: func(int) *exec.Cmd { return s.ward("gate", "--offline", image) }},
		{name: "ward version: the start of a process", cmd: func(int) *exec.Cmd { return s.ward("version") }},
	}
	if cosign != nil {
		list = append(list, &contender{name: "cosign verify --key, loopback registry", cmd: func(int) *exec.Cmd { return cosign() }})
	}
	for round := range rounds + 2 {
		for _, c := range list {
			spent, err := alone(c.cmd(round))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 2 {
				c.cost = append(c.cost, spent)
			}
		}
	}
	fmt.Fprintf(w, "%-40s %9s %9s\n", fmt.Sprintf("one answer, median of %d", rounds), "CPU ms", "wall ms")
	for _, c := range list {
		m := median(c.cost)
		fmt.Fprintf(w, "%-40s %9.1f %9.1f\n", c.name, ms(m.cpu), ms(m.wall))
	}
	if cosign == nil {
		fmt.Fprintf(w, "no cosign beside ward (make bin/tools/cosign): not compared\n")
	}
	fmt.Fprintf(w, "\n%-40s %9s %9s\n", "one process, one processor, median of 5", "CPU µs", "per s")
	recorded, err := fiveTimes(s.lines)
	if err != nil {
		return err
	}
	unrecorded, err := fiveTimes(s.inProcess)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		cost
	}{{"ward gate --stdin, each on record", recorded}, {"the same, nothing recorded", unrecorded}} {
		fmt.Fprintf(w, "%-40s %9.0f %9.0f\n", l.name, float64(l.cpu)/float64(time.Microsecond), float64(time.Second)/float64(l.wall))
	}
	fmt.Fprintln(w)
	return nil
}

// alone is measure for a command that leaves nothing behind.
func alone(cmd *exec.Cmd) (cost, error) {
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return cost{}, fmt.Errorf("%w: %s", err, out)
	}
	return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(start)}, nil
}

func fiveTimes(f func() (cost, error)) (cost, error) {
	var all []cost
	for range 5 {
		c, err := f()
		if err != nil {
			return cost{}, err
		}
		all = append(all, c)
	}
	return median(all), nil
}

const few, many = 200, 2200

// lines is what one more line costs a gate that lives.
func (s setup) lines() (cost, error) {
	ask := func(n int) (cost, error) {
		gate := s.ward("gate", "--stdin", "--offline")
		cmd := exec.Command("taskset", append([]string{"-c", "0", gate.Path}, gate.Args[1:]...)...)
		cmd.Env, cmd.Dir = gate.Env, gate.Dir
		cmd.Stdin = strings.NewReader(strings.Repeat(image+"\n", n))
		var out bytes.Buffer
		cmd.Stdout = &out
		start := time.Now()
		err := cmd.Run()
		if got := bytes.Count(out.Bytes(), []byte(`"outcome":"allow"`)); err == nil && got != n {
			err = fmt.Errorf("%d of %d allowed", got, n)
		}
		if err != nil {
			return cost{}, fmt.Errorf("gate --stdin: %w", err)
		}
		return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(start)}, nil
	}
	a, err := ask(few)
	if err != nil {
		return cost{}, err
	}
	b, err := ask(many)
	const n = many - few
	return cost{(b.cpu - a.cpu) / n, (b.wall - a.wall) / n}, err
}

// inProcess is the same without a record: Check is Run up to there.
func (s setup) inProcess() (c cost, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l, err := engine.NewLayout(filepath.Join(s.dir, "root"))
	if err != nil {
		return c, err
	}
	log, err := audit.Open(l.Audit())
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	store, err := images.Open(images.Config{Dir: l.Images()})
	if err != nil {
		return c, err
	}
	e, err := engine.New(engine.Config{
		Layout: l, Resolver: store, Rootfs: store, Log: log, Floor: sandbox.DefaultFloor(), Verifier: engine.TrustDir(l.Trust()),
		Decider: engine.PolicyDir(l.Policy()), Launcher: engine.LauncherAt(filepath.Join(s.bin, "ward-launch")),
	})
	if err != nil {
		return c, err
	}
	req := engine.Request{Image: image, Args: []string{"true"}, Actor: audit.Caller()}
	var before, after unix.Rusage
	var start time.Time
	for i := range many {
		if i == few {
			start = time.Now()
			if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
				return c, err
			}
		}
		_, dec, err := e.Check(context.Background(), req)
		if err != nil || !dec.Allowed() {
			return c, fmt.Errorf("not allowed: %w", err)
		}
	}
	wall := time.Since(start)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return c, err
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	return cost{time.Duration(used) / (many - few), wall / (many - few)}, nil
}

// cosign serves the image and its signature, and returns what verifies it; nil
// where there is no cosign.
func (s setup) cosign() (verify func() *exec.Cmd, stop func(), err error) {
	program := filepath.Join(s.bin, "tools", "cosign")
	if _, err := os.Stat(program); err != nil {
		return nil, func() {}, nil
	}
	serve := s.ward("registry", "serve", "--dir", filepath.Join(s.dir, "registry"))
	said, err := os.Create(filepath.Join(s.dir, "registry.log"))
	if err != nil {
		return nil, nil, err
	}
	defer said.Close()
	serve.Stdout, serve.Stderr = said, said
	if err := serve.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() { _ = serve.Process.Signal(os.Interrupt); _ = serve.Wait() }
	address := regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`)
	at := ""
	for deadline := time.Now().Add(10 * time.Second); at == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(said.Name())
		if err != nil {
			stop()
			return nil, nil, err
		}
		at = string(address.Find(b))
	}
	ref := at + "/bench/busybox:1"
	for _, args := range [][]string{{"tag", image, ref}, {"sign", "--key", filepath.Join(s.dir, "cosign.key"), ref}, {"push", ref}} {
		if out, err := s.ward(args...).CombinedOutput(); err != nil {
			stop()
			return nil, nil, fmt.Errorf("ward %v: %w\n%s", args, err, out)
		}
	}
	return func() *exec.Cmd {
		cmd := exec.Command(program, "verify", "--key", filepath.Join(s.dir, "cosign.pub"), "--insecure-ignore-tlog=true", "--allow-http-registry", ref)
		cmd.Env = []string{"HOME=" + s.dir}
		return cmd
	}, stop, nil
}
