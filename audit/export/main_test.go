package export

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// childEnv turns the test binary into an exporter of its own process, which
// can be killed: its value is a job.
const childEnv = "WARD_EXPORT_TEST_CHILD"

type job struct {
	Dir, VKey, Name, To, Format string
	Follow                      bool
	Batch                       int
	Options                     Options
}

func (j job) config() (Config, error) {
	f, err := ParseFormat(j.Format)
	if err != nil {
		return Config{}, err
	}
	j.Options.Format = f
	d, err := ParseDestination(j.To, j.Options)
	return Config{Dir: j.Dir, VKey: j.VKey, Name: j.Name, To: d, Format: f, Follow: j.Follow, Batch: j.Batch}, err
}

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		var j job
		err := json.Unmarshal([]byte(s), &j)
		var cfg Config
		if err == nil {
			cfg, err = j.config()
		}
		if err == nil {
			cfg.Say = func(s string) { fmt.Fprintln(os.Stderr, s) }
			err = Run(context.Background(), cfg)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process is an exporter that can be killed.
func (j job) process(t testing.TB) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = &tail{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill9(cmd) })
	return cmd
}

func kill9(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// tail keeps what a process said last.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	w.b = w.b[max(0, len(w.b)-4000):]
	return len(p), nil
}

func (w *tail) String() string { w.mu.Lock(); defer w.mu.Unlock(); return string(w.b) }

// newLog is a log with n records of many kinds after its first.
func newLog(t testing.TB, n int) (l *audit.Log, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "audit")
	if err := audit.Create(audit.Config{Dir: dir, Host: "host-1.example"}); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	record(t, l, 0, n)
	return l, dir
}

func record(t testing.TB, l *audit.Log, from, n int) {
	t.Helper()
	var batch []audit.Record
	for i := range n {
		batch = append(batch, sample(from+i))
		if len(batch) == 7 || i == n-1 {
			if err := l.Post(context.Background(), batch...); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
	}
}

var testDigest = "sha256:" + strings.Repeat("cd", 32)

// sample is a record as ward makes them, of a kind that depends on i.
func sample(i int) audit.Record {
	run, c := fmt.Sprintf("%064x", i), fmt.Sprintf("%064x", i/2)
	img := audit.Image{Reference: "registry.example/app:1", Digest: testDigest}
	r := audit.Record{Run: run, Actor: audit.Caller()}
	switch i % 9 {
	case 0:
		r.Type, r.Data = audit.RunDenied, audit.Denied{Stage: "decide", Class: "denied", Rule: "policy.caps", Cause: "capability SYS_ADMIN is not allowed",
			Remedy: "drop it", Point: "run", Name: "web", Image: img, Decision: json.RawMessage(`{"answer":{"allow":false}}`), Args: []string{"/bin/sh", "-c", "a=b|c"}}
	case 1:
		r.Type, r.Data = audit.RunStart, audit.Start{PID: 4000 + i, MonitorPID: 3999, Cgroup: "/ward/x"}
	case 2:
		r.Type, r.Data = audit.RunExit, audit.Exit{Code: i % 3, DurationMS: 12, Usage: audit.Usage{CPUNanos: 5}}
	case 3:
		r.Type, r.Data, r.Run = audit.ContainerCreate, audit.ContainerEvent{Container: c, Name: "web", Image: img, Decision: json.RawMessage(`{"answer":{"allow":true}}`)}, ""
	case 4:
		r.Type, r.Data, r.Run = audit.ImagePull, audit.ImageEvent{Image: img, Registry: "registry.example"}, ""
	case 5:
		r.Type, r.Data, r.Run = audit.TrustAdd, audit.TrustEvent{Name: "team", Glob: "registry.example/**", KeyID: "k1"}, ""
	case 6:
		r.Type, r.Data, r.Run = audit.GateDecision, audit.Verdict{Outcome: "indeterminate", Point: "ci", Image: img, Class: "unavailable", Rule: "registry.down", Cause: "no answer"}, ""
	case 7:
		r.Type, r.Data = audit.RunDeniedSyscalls, audit.DeniedSyscalls{Syscalls: []audit.DeniedSyscall{{Name: "mount", Count: 3}}}
	case 8:
		r.Type, r.Data, r.Run = "future.kind", map[string]any{"name": []int{1}, "rule": "kept", "x": "\x1b[2J\u2028\n"}, ""
	}
	return r
}

func vkeyOf(t testing.TB, dir string) string {
	t.Helper()
	k, err := audit.VKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// once runs an export to its end.
func once(t testing.TB, j job) error {
	t.Helper()
	cfg, err := j.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Run(ctx, cfg)
}

// reached waits until the cursor is at the log's end, or fails.
func reached(t testing.TB, dir, name string, exporter *exec.Cmd) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Name == name && s.Lag == 0 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("not all was sent: %+v\n%s", list, exporter.Stderr)
		}
	}
}

// whole checks that ids are those of records 0 to size-1, none missing, each
// with one content, and in order but for what is sent again.
func whole(t testing.TB, origin string, size int64, got []sent) (duplicates int) {
	t.Helper()
	content := map[string]string{}
	next := int64(0)
	for _, s := range got {
		if s.id == fmt.Sprintf("ward:%s/%d", origin, next) {
			next++
		} else if content[s.id] == "" {
			t.Fatalf("%s came when record %d was due", s.id, next)
		} else {
			duplicates++
		}
		if was, again := content[s.id]; again && was != s.hash {
			t.Fatalf("%s has two contents", s.id)
		}
		content[s.id] = s.hash
	}
	if next != size {
		t.Fatalf("%d records came, the log has %d", next, size)
	}
	return duplicates
}

// sent is what a receiver has of an event.
type sent struct{ id, hash string }
