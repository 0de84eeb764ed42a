package lab

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// NeedsRoot skips a test that starts containers.
func NeedsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers get a range of ids of their own")
	}
}

// Ward is one throw-away ward.
type Ward struct {
	t testing.TB
	// Dir is the test's own directory, Root the ward's (--root) below it.
	Dir, Root string
	// Env is the environment its commands get.
	Env []string
	// Patience is how long a command may take; New sets a minute.
	Patience time.Duration
}

// New makes an empty ward. It needs root.
func New(t *testing.T) *Ward {
	t.Helper()
	NeedsRoot(t)
	// Short, because a unix socket's path is; t.TempDir is not.
	dir, err := os.MkdirTemp("", "ward-t-")
	if err != nil {
		t.Fatal(err)
	}
	w := &Ward{t: t, Dir: dir, Root: filepath.Join(dir, "root"), Patience: time.Minute}
	w.Env = []string{
		"PATH=" + Bin() + ":" + os.Getenv("PATH"), "HOME=" + dir, "WARD_ROOT=" + w.Root,
		"LANG=C.UTF-8", "TMPDIR=" + os.TempDir(), "COSIGN_PASSWORD=",
	}
	t.Cleanup(func() {
		w.Sweep()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the ward cannot be removed: %v", err)
		}
	})
	return w
}

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Command prepares a ward command.
func (w *Ward) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(Bin(), "ward"), args...)
	cmd.Env, cmd.Dir = w.Env, w.Dir
	return cmd
}

// Do runs a ward command to its end, for as long as the ward has patience.
func (w *Ward) Do(args ...string) Result {
	w.t.Helper()
	cmd := w.Command(args...)
	return w.Finish(cmd)
}

// Finish runs a prepared command to its end, for as long as the ward has
// patience.
func (w *Ward) Finish(cmd *exec.Cmd) Result {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	timer := time.AfterFunc(w.Patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		w.t.Errorf("%v did not end within %v", cmd.Args, w.Patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		w.t.Fatalf("%v: %v", cmd.Args, err)
	}
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return Result{code, out.String(), errs.String()}
}

// Must is Do for a command that has to succeed; it returns standard output.
func (w *Ward) Must(args ...string) string {
	w.t.Helper()
	r := w.Do(args...)
	if r.Code != 0 {
		w.t.Fatalf("ward %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Busybox imports a busybox image under the name ref.
func (w *Ward) Busybox(ref string, extra ...tar.Header) {
	w.t.Helper()
	file := filepath.Join(w.Dir, "rootfs.tar")
	if err := Rootfs(file, extra...); err != nil {
		w.t.Fatal(err)
	}
	w.Must("import", file, ref)
}

// Vouch makes a key (once), signs ref with it and trusts it for everything.
func (w *Ward) Vouch(ref string) {
	w.t.Helper()
	key := filepath.Join(w.Dir, "cosign.key")
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		w.Must("key", "generate", "--out", w.Dir)
		w.Must("trust", "add", "--key", filepath.Join(w.Dir, "cosign.pub"), "**")
	}
	w.Must("sign", "--key", key, ref)
}

// Records reads the whole audit log.
func (w *Ward) Records() []audit.Entry {
	w.t.Helper()
	var all []audit.Entry
	err := audit.Read(filepath.Join(w.Root, "lib/audit"), 0, func(e audit.Entry) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		w.t.Fatalf("the audit log cannot be read: %v", err)
	}
	return all
}

// Count counts the records of one type for one run; an empty run means any.
func (w *Ward) Count(typ audit.Type, run string) int {
	w.t.Helper()
	n := 0
	for _, e := range w.Records() {
		if e.Type == typ && (run == "" || e.Run == run) {
			n++
		}
	}
	return n
}

// Containers lists what the ward keeps of containers, ended ones too.
func (w *Ward) Containers() []string {
	es, _ := os.ReadDir(filepath.Join(w.Root, "lib/containers"))
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// Runs lists the ids of all containers and runs this ward has known.
func (w *Ward) runs() map[string]bool {
	ids := map[string]bool{}
	for _, c := range w.Containers() {
		ids[c] = true
	}
	_ = audit.Read(filepath.Join(w.Root, "lib/audit"), 0, func(e audit.Entry) error {
		if e.Run != "" {
			ids[e.Run] = true
		}
		return nil
	})
	return ids
}

// Leftovers lists what this ward has on the machine outside its directory:
// processes, mounts in any mount namespace it can see, and cgroups.
func (w *Ward) Leftovers() []string {
	var found []string
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for _, l := range strings.Split(string(b), "\n") {
			if strings.Contains(l, w.Dir) {
				found = append(found, "mount "+l)
			}
		}
	}
	for _, c := range w.Cgroups() {
		found = append(found, "cgroup "+c)
	}
	for _, p := range w.Processes() {
		found = append(found, "process "+p)
	}
	return found
}

// Gone waits a moment for everything of this ward to be torn down, and fails
// t, the test at hand, if something stays.
func (w *Ward) Gone(t testing.TB) {
	t.Helper()
	var left []string
	for range 100 {
		if left = w.Leftovers(); len(left) == 0 {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
}

// Cgroups lists the control groups of this ward's runs in all hierarchies.
func (w *Ward) Cgroups() []string {
	runs := w.runs()
	var found []string
	for _, top := range hierarchies() {
		_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // it went away while we looked
			}
			name := d.Name()
			for id := range runs {
				if len(id) >= 12 && strings.Contains(name, id[:12]) {
					found = append(found, p)
				}
			}
			if strings.Contains(name, w.Mark()) {
				found = append(found, p)
			}
			return nil
		})
	}
	return found
}

// Mark is what the names of a test's own control groups, and of containers
// that other programs than ward make, have to hold to be taken for this ward's.
func (w *Ward) Mark() string { return filepath.Base(w.Dir) + "-" }

// hierarchies are the mounted cgroup file systems.
func hierarchies() []string {
	var tops []string
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup") && len(fields) > 4 {
			tops = append(tops, fields[4])
		}
	}
	return tops
}

// Processes lists live processes whose root directory, programs or control
// group say that they belong to this ward: "PID name".
func (w *Ward) Processes() []string {
	runs := w.runs()
	es, _ := os.ReadDir("/proc")
	var found []string
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if name, ours := w.owns(pid, runs); ours {
			found = append(found, strconv.Itoa(pid)+" "+name)
		}
	}
	return found
}

// begun is when this process began, in ticks since the machine did: what is
// older belongs to no ward of its own.
var begun = func() uint64 {
	stat, _ := os.ReadFile("/proc/self/stat")
	return startTime(stat)
}()

// startTime is field 22 of a /proc/PID/stat.
func startTime(stat []byte) uint64 {
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(string(f[19]), 10, 64)
	return n
}

func (w *Ward) owns(pid int, runs map[string]bool) (string, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return "", false
	}
	if i := bytes.LastIndexByte(stat, ')'); i < 0 || bytes.HasPrefix(stat[i:], []byte(") Z")) {
		return "", false // a zombie is its parent's
	}
	if startTime(stat) < begun {
		return "", false // before there was any ward, and read no further
	}
	cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	line := strings.ReplaceAll(string(cmdline), "\x00", " ")
	if strings.Contains(line, " registry serve ") {
		return "", false // its starter's to stop
	}
	for id := range runs {
		if len(id) >= 12 && (bytes.Contains(cgroup, []byte(id[:12])) || bytes.Contains(cmdline, []byte(id[:12]))) {
			return line, true
		}
	}
	if bytes.Contains(cgroup, []byte(w.Mark())) {
		return line, true
	}
	exe, _ := os.Readlink(filepath.Join(dir, "exe"))
	if !strings.HasPrefix(exe, Bin()+"/ward") {
		return line, false
	}
	return line, bytes.Contains(environ, []byte("WARD_ROOT="+w.Root+"\x00")) || w.holds(dir)
}

// holds says whether a process has a file of this ward's directory open: the
// launcher and the monitors of ward-oci have nothing else to be told by.
func (w *Ward) holds(proc string) bool {
	es, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, e := range es {
		if name, _ := os.Readlink(filepath.Join(proc, "fd", e.Name())); strings.HasPrefix(name, w.Dir+"/") {
			return true
		}
	}
	return false
}

// Sweep ends and removes whatever the ward still has on the machine. It is
// for the end of a test that went wrong; one that went well leaves nothing.
func (w *Ward) Sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		ps := w.Processes()
		for _, p := range ps {
			pid, _ := strconv.Atoi(strings.Fields(p)[0])
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(ps) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		lines := strings.Split(string(b), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], w.Dir) {
				_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
			}
		}
	}
	for range 20 {
		cs := w.Cgroups()
		for i := len(cs) - 1; i >= 0; i-- {
			_ = os.Remove(cs[i])
		}
		if len(cs) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
