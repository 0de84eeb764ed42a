package launcher_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// program is ward-launch, built once from this source.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "ward-launch")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "ward-launch")
		if path := os.Getenv("WARD_LAUNCH"); path != "" {
			program = path
			return m.Run()
		}
		build := exec.Command("go", "build", "-tags", "seccomp netgo osusergo", "-o", program,
			"-ldflags", "-s -w", "github.com/ward-project/ward/cmd/ward-launch")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build ward-launch: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// rig is a place to launch from: a layer, an audit log, and directories.
type rig struct {
	t        testing.TB
	dir      string
	layer    string
	log      *audit.Log
	launcher *sandbox.Launcher
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs busybox-static")
	}
	r := &rig{t: t, dir: t.TempDir()}
	r.layer = r.busybox("base")
	if err := audit.Create(audit.Config{Dir: r.auditDir(), Host: "test.invalid"}); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.log, err = audit.Open(r.auditDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.log.Close() })
	if r.launcher, err = sandbox.NewLauncher(program); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Other tests may mount things meanwhile; ours have these marks.
		for line := range strings.Lines(mounts(t)) {
			if strings.Contains(line, r.dir) || strings.Contains(line, " ward rw") {
				t.Errorf("a mount is left on the host: %s", line)
			}
		}
	})
	return r
}

func (r *rig) auditDir() string { return filepath.Join(r.dir, "audit") }

// busybox makes a layer directory with busybox and links to it.
func (r *rig) busybox(name string) string {
	r.t.Helper()
	layer := filepath.Join(r.dir, name)
	for _, d := range []string{"bin", "etc", "home", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(layer, d), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layer, "bin/busybox"), b, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, n := range strings.Fields("sh cat ls echo true false sleep id head tail grep env hostname mount dd kill stat touch od tr wc chmod mkdir readlink") {
		if err := os.Symlink("busybox", filepath.Join(layer, "bin", n)); err != nil {
			r.t.Fatal(err)
		}
	}
	return layer
}

// plan is a plan at the defaults that runs args.
func (r *rig) plan(args ...string) sandbox.Plan {
	r.t.Helper()
	raw := make([]byte, 32)
	rand.Read(raw)
	run := hex.EncodeToString(raw)
	p := sandbox.Plan{
		Version: sandbox.PlanVersion, Build: sandbox.Build, Container: run, Run: run, Start: 1, Name: "test_" + run[:12], Hostname: run[:12],
		Image: sandbox.Image{Reference: "test.invalid/busybox:1", Digest: "sha256:" + strings.Repeat("0", 64)},
		Process: sandbox.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", NoNewPrivs: true,
			Rlimits: sandbox.DefaultRlimits()},
		Root:    sandbox.Root{Layers: []sandbox.Layer{{DiffID: "sha256:" + strings.Repeat("1", 64), Path: r.layer}}},
		IDMap:   sandbox.IDMap{Base: 100000, Size: sandbox.IDRange},
		Network: sandbox.NetworkNone, Limits: sandbox.DefaultLimits(), Seccomp: sandbox.DefaultSeccomp(),
		MaskedPaths: sandbox.MaskedPaths(), ReadonlyPaths: sandbox.ReadonlyPaths(),
		Host: sandbox.Host{ContainerDir: filepath.Join(r.dir, "c", run), RuntimeDir: filepath.Join(r.dir, "run", run[:12]),
			AuditDir: r.auditDir(), VolumeDir: filepath.Join(r.dir, "volumes"), Keep: []string{filepath.Join(r.dir, "etc"), filepath.Join(r.dir, "run")}},
	}
	if err := os.MkdirAll(p.Host.ContainerDir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) encode(p sandbox.Plan) []byte {
	r.t.Helper()
	if reflect.DeepEqual(p.Landlock, sandbox.Landlock{}) { // else the test's own
		p = p.Landlocked(sandbox.LandlockABI(), false)
	}
	b, err := p.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// intend records the intent to run exactly these plan bytes.
func (r *rig) intend(run string, plan []byte) receipt.Receipt {
	r.t.Helper()
	permit, err := r.log.Intend(context.Background(), audit.Intent{Run: run, Plan: sandbox.Digest(plan), Actor: audit.Caller()})
	if err != nil {
		r.t.Fatal(err)
	}
	return permit.Receipt()
}

func (r *rig) launch(p sandbox.Plan, io sandbox.Stdio) (*sandbox.Running, error) {
	r.t.Helper()
	b := r.encode(p)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	proc, err := r.launcher.Launch(ctx, b, r.intend(p.Run, b), io, nil)
	r.t.Cleanup(func() { r.clean(p) })
	if err == nil {
		r.t.Cleanup(func() {
			if running(proc.MonitorPID()) { // only after a failure
				unix.Kill(proc.MonitorPID(), unix.SIGKILL)
			}
		})
	}
	return proc, err
}

// result is what a finished run left.
type result struct {
	exit        sandbox.Exit
	out, errOut string
}

// run launches p and waits; the test fails if it does not start.
func (r *rig) run(p sandbox.Plan) result {
	r.t.Helper()
	res, err := r.try(p, "")
	if err != nil {
		r.t.Fatalf("launch: %v", fault.As(err).Report())
	}
	return res
}

func (r *rig) sh(script string) result { r.t.Helper(); return r.run(r.plan("/bin/sh", "-c", script)) }

func (r *rig) try(p sandbox.Plan, stdin string) (result, error) {
	r.t.Helper()
	outR, outW := r.pipe()
	errR, errW := r.pipe()
	var in *os.File
	if p.Process.Stdin {
		inR, inW := r.pipe()
		in = inR
		go func() { io.WriteString(inW, stdin); inW.Close() }()
	}
	proc, err := r.launch(p, sandbox.Stdio{In: in, Out: outW, Err: errW})
	outW.Close()
	errW.Close()
	if err != nil {
		return result{}, err
	}
	var out, errOut bytes.Buffer
	done := make(chan error, 2)
	go func() { _, err := io.Copy(&out, outR); done <- err }()
	go func() { _, err := io.Copy(&errOut, errR); done <- err }()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	exit, err := proc.Wait(ctx)
	if err != nil {
		unix.Kill(proc.MonitorPID(), unix.SIGKILL)
		r.t.Fatalf("wait: %v", err)
	}
	if err := errors.Join(<-done, <-done); err != nil {
		r.t.Fatal(err)
	}
	return result{exit, out.String(), errOut.String()}, nil
}

func (r *rig) pipe() (*os.File, *os.File) {
	r.t.Helper()
	pr, pw, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { pr.Close(); pw.Close() })
	return pr, pw
}

// clean checks that a run has left nothing on the host.
func (r *rig) clean(p sandbox.Plan) {
	r.t.Helper()
	for _, dir := range cgroupDirs(p.Run) {
		r.t.Errorf("cgroup %s is still there", dir)
		os.Remove(dir)
	}
	if _, err := os.Stat(p.Host.RuntimeDir); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("runtime directory is still there: %v", err)
	}
}

// cgroupDirs are the cgroups named after run, in any hierarchy.
func cgroupDirs(run string) []string {
	all, _ := filepath.Glob("/sys/fs/cgroup/*/ward/" + run)
	unified, _ := filepath.Glob("/sys/fs/cgroup/ward/" + run)
	return append(all, unified...)
}

func mounts(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits for what another process does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within ten seconds: %s", what)
}

// running reports whether pid is a process that is not a zombie.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}
