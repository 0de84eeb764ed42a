package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/tests/lab"
)

const image = "bench.example/busybox:1"

// setup is a throw-away ward with a signed image, and an OCI bundle of the
// same root file system.
type setup struct{ dir, bin string }

func (s setup) bundle() string { return filepath.Join(s.dir, "bundle") }

func (s setup) ward(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, "ward"), args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir, "WARD_ROOT=" + filepath.Join(s.dir, "root"), "COSIGN_PASSWORD="}
	cmd.Dir = s.dir
	return cmd
}

func (s setup) make() error {
	tarball := filepath.Join(s.dir, "rootfs.tar")
	loop, err := s.loop()
	if err != nil {
		return err
	}
	if err := lab.Rootfs(tarball, loop); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"import", tarball, image},
		{"key", "generate", "--out", s.dir},
		{"sign", "--key", filepath.Join(s.dir, "cosign.key"), image},
		{"trust", "add", "--key", filepath.Join(s.dir, "cosign.pub"), "bench.example/**"},
	} {
		if out, err := s.ward(args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ward %v: %w\n%s", args, err, out)
		}
	}
	// runc's container root is nobody here, and must find its way in.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return err
	}
	rootfs := filepath.Join(s.bundle(), "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-xf", tarball, "-C", rootfs).CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w\n%s", err, out)
	}
	b, err := json.Marshal(spec())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.bundle(), "config.json"), b, 0o600)
}

// loop is the program of ./getppid as an entry of the root file system.
func (s setup) loop() (tar.Header, error) {
	file := filepath.Join(s.dir, "getppid")
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "github.com/ward-project/ward/tests/bench/getppid")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return tar.Header{}, fmt.Errorf("build getppid: %w\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	return tar.Header{Typeflag: tar.TypeReg, Name: "bin/getppid", Mode: 0o755, PAXRecords: map[string]string{"WARD.body": string(b)}}, err
}

func (s setup) runc(round int) *exec.Cmd {
	return exec.Command("runc", "--root", filepath.Join(s.dir, "runc"), "run", "-b", s.bundle(), "ward-bench-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(round))
}

// spec asks runc for what ward gives by default.
func spec() *specs.Spec {
	limits := sandbox.DefaultLimits()
	swap := limits.Memory + limits.Swap
	rs := &specs.Spec{
		Version:  "1.0.2",
		Hostname: "bench",
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=64m"}},
			{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=64m"}},
		},
		Linux: &specs.Linux{
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 30, Size: 65536}},
			GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 30, Size: 65536}},
			Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &limits.Memory, Swap: &swap},
				CPU:    &specs.LinuxCPU{Quota: &limits.CPUQuota, Period: &limits.CPUPeriod},
				Pids:   &specs.LinuxPids{Limit: &limits.PIDs},
			},
			MaskedPaths: sandbox.MaskedPaths(), ReadonlyPaths: sandbox.ReadonlyPaths(),
		},
	}
	for _, ns := range []specs.LinuxNamespaceType{"pid", "network", "ipc", "uts", "mount", "user", "cgroup"} {
		rs.Linux.Namespaces = append(rs.Linux.Namespaces, specs.LinuxNamespace{Type: ns})
	}
	filter, err := seccomp.GetDefaultProfile(rs)
	if err != nil {
		panic(err) // the profile is compiled in
	}
	// Native alone, as ward: the usual three architectures cost twice as much.
	filter.Architectures = filter.Architectures[:1]
	rs.Linux.Seccomp = filter
	return rs
}

// launcherStart prints what the launcher costs before it does anything.
func (s setup) launcherStart(w io.Writer) error {
	var all []cost
	for range 30 {
		before, err := childrenCPU()
		if err != nil {
			return err
		}
		start := time.Now()
		// Without a plan it refuses; that is the earliest end there is.
		_ = exec.Command(filepath.Join(s.bin, "ward-launch")).Run()
		wall := time.Since(start)
		after, err := childrenCPU()
		if err != nil {
			return err
		}
		all = append(all, cost{after - before, wall})
	}
	m := median(all)
	_, err := fmt.Fprintf(w, "ward-launch, start to refusal of nothing: %.1f ms wall, %.1f ms CPU\n", ms(m.wall), ms(m.cpu))
	return err
}
