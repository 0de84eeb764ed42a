package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const calls = "2000000"

// filters prints what the system-call filter adds to a call that it allows:
// ward's beside Docker's, with no filter as the measure.
func (s setup) filters(w io.Writer) error {
	list := []struct {
		name string
		cmd  func() *exec.Cmd
		ns   []float64
	}{
		{name: "no filter (runc)", cmd: s.looping("none", func(*specs.Spec) *specs.LinuxSeccomp { return nil })},
		{name: "Docker's profile (runc)", cmd: s.looping("docker", dockers)},
		{name: "ward's filter", cmd: func() *exec.Cmd { return s.ward("run", "--rm", image, "getppid", calls) }},
	}
	for range 9 {
		for i := range list {
			out, err := list[i].cmd().Output()
			if err != nil {
				return fmt.Errorf("%s: %w", list[i].name, said(err))
			}
			ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return fmt.Errorf("%s: %w", list[i].name, err)
			}
			list[i].ns = append(list[i].ns, ns)
		}
	}
	fmt.Fprintf(w, "%-40s %9s %9s %9s\n", "getppid, median of 9", "CPU ns", "filter", "vs Docker")
	middle := func(i int) float64 { v := slices.Sorted(slices.Values(list[i].ns)); return v[len(v)/2] }
	for i, c := range list {
		fmt.Fprintf(w, "%-40s %9.0f %+9.0f %8.2fx\n", c.name, middle(i), middle(i)-middle(0), middle(i)/middle(1))
	}
	fmt.Fprintln(w)
	return nil
}

// dockers is Docker's default profile as Docker gives it to runc.
func dockers(rs *specs.Spec) *specs.LinuxSeccomp {
	p, err := seccomp.GetDefaultProfile(rs)
	if err != nil {
		panic(err) // the profile is compiled in
	}
	return p
}

// looping is a bundle that calls getppid under the filter that it is given.
func (s setup) looping(name string, filter func(*specs.Spec) *specs.LinuxSeccomp) func() *exec.Cmd {
	dir := filepath.Join(s.dir, "getppid-"+name)
	rs := spec()
	rs.Process.Args = []string{"getppid", calls}
	rs.Root.Path = filepath.Join(s.bundle(), "rootfs")
	rs.Linux.Seccomp = filter(rs)
	round := 0
	return func() *exec.Cmd {
		round++
		b, err := json.Marshal(rs)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
		}
		if err != nil {
			return &exec.Cmd{Err: err}
		}
		return exec.Command("runc", "--root", filepath.Join(s.dir, "runc"), "run", "-b", dir,
			fmt.Sprintf("ward-bench-%d-%s-%d", os.Getpid(), name, round))
	}
}
