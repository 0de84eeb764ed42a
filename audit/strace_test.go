package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func straced(t testing.TB, options ...string) (prefix []string, trace string) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	trace = filepath.Join(t.TempDir(), "trace")
	return append([]string{path, "-f", "-qq", "-o", trace}, options...), trace
}

var traceLine = regexp.MustCompile(`(?m)^\d+ +(\w+)\((.*)$`)

// One Intend is one write and one flush, in this order and with the lock held
// for the write alone. Everything the design promises about cost and about
// other processes hangs on this sequence.
func TestIntendIsOneWriteAndOneFlush(t *testing.T) {
	_, dir := newLog(t)
	prefix, trace := straced(t, "-y", "-e", "trace=flock,pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range,sync,syncfs,msync,ftruncate,rename,renameat,renameat2,linkat,unlinkat")
	cmd := childCommand(t, prefix, "intend", dir, "2")
	if out, err := cmd.Output(); err != nil || bytes.Count(out, []byte("\n")) != 2 {
		t.Fatalf("%s %v", out, err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range traceLine.FindAllStringSubmatch(string(b), -1) {
		what := "?"
		for _, name := range []string{lockFile, "00000000.seg"} {
			if strings.Contains(m[2], "/"+name+">") {
				what = name
			}
		}
		call := m[1] + " " + what
		if m[1] == "flock" && strings.Contains(m[2], "LOCK_UN") {
			call += " off"
		}
		if m[1] == "fdatasync" && !strings.HasSuffix(m[2], "= 0") {
			call += " failed"
		}
		got = append(got, call)
	}
	one := []string{"flock lock", "pwrite64 00000000.seg", "flock lock off", "fdatasync 00000000.seg"}
	if !slices.Equal(got, append(slices.Clone(one), one...)) {
		t.Fatalf("two intents made %q", got)
	}
}

// Every call that touches the log fails in turn, with each error, and the
// process is killed at each. What was acknowledged is in the log, the log
// verifies, and the next writer goes on; nothing is ever made anew.
func TestEverySystemCallFails(t *testing.T) {
	for _, call := range []struct {
		name  string
		times int
		path  bool // only calls on the log's own files
	}{
		{"pwrite64", 3, false}, {"fdatasync", 3, false}, {"flock", 6, false},
		{"openat", 5, true}, {"read", 4, true}, {"pread64", 2, true}, {"fstat", 3, true}, {"statfs", 1, false}, {"fstatfs", 2, false},
	} {
		for _, fault := range []string{"error=EIO", "error=ENOSPC", "error=EINTR", "signal=SIGKILL"} {
			t.Run(call.name+" "+fault, func(t *testing.T) {
				t.Parallel()
				l, dir := newLog(t)
				key, err := os.ReadFile(filepath.Join(dir, journalDir, keyFile))
				if err != nil {
					t.Fatal(err)
				}
				var runs []string
				hits := 0
				for n := 1; n <= call.times; n++ {
					options := []string{"-e", "trace=" + call.name, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call.name, fault, n)}
					if call.path {
						for _, f := range []string{keyFile, vkeyFile, lockFile, segmentName(0), segmentName(1), segmentName(2), segmentName(3)} {
							options = append(options, "-P", filepath.Join(dir, journalDir, f))
						}
					}
					prefix, trace := straced(t, options...)
					cmd := childCommand(t, prefix, "intend", dir, "3")
					cmd.Stderr = nil
					runs = append(runs, acknowledged(t, cmd)()...)
					b, err := os.ReadFile(trace)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(b, []byte("INJECTED")) || bytes.Contains(b, []byte("SIGKILL")) {
						hits++
					}
					next := openLog(t, dir)
					intend(t, next, fmt.Sprint("after-", n))
					runs = append(runs, fmt.Sprint("after-", n))
					next.Close()
				}
				if hits == 0 {
					t.Fatal("no fault was injected")
				}
				assertRecorded(t, dir, runs)
				verified(t, dir, l.VKey())
				if after, err := os.ReadFile(filepath.Join(dir, journalDir, keyFile)); err != nil || !bytes.Equal(after, key) {
					t.Fatalf("the key changed: %v", err)
				}
			})
		}
	}
}

// After a failed flush the writer is done for, says so, and the log goes on in
// a new segment that names what became of the old one.
func TestFailedFlushPoisons(t *testing.T) {
	l, dir := newLog(t)
	intend(t, l, "before")
	prefix, _ := straced(t, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=2")
	cmd := childCommand(t, prefix, "intend", dir, "3")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	runs := acknowledged(t, cmd)()
	if len(runs) != 1 || !strings.Contains(stderr.String(), ErrPoisoned.Error()) {
		t.Fatalf("acknowledged %v, said %s", runs, stderr.String())
	}
	// This Log was opened before: it follows to the new segment.
	intend(t, l, "after")
	assertRecorded(t, dir, append(runs, "before", "after"))
	r := verified(t, dir, l.VKey())
	if r.Segments != 2 {
		t.Fatalf("%+v", r)
	}
	var found bool
	for _, e := range entries(t, dir) {
		if e.Type == LogRecovered {
			var d Recovered
			decode(t, e.Data, &d)
			found = d.Reason == "flush" && d.Segment == segmentName(0)
		}
	}
	if !found {
		t.Fatal("nothing on record about the failed flush")
	}
}

// A retired Log stays retired, for every caller, with the first cause.
func TestPoisonedLogRefuses(t *testing.T) {
	l, dir := newLog(t)
	intend(t, l, "r")
	if err := errors.Join(l.retire(errors.New("disk gone")), l.poison()); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	// Who already waits for a flush hears of it too.
	if _, err := l.sync(math.MaxInt64); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.Intend(t.Context(), testIntent("r")); !errors.Is(err, ErrPoisoned) || !strings.Contains(err.Error(), "disk gone") {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), Record{Type: RunExit}); !errors.Is(err, ErrPoisoned) {
			t.Fatal(err)
		}
	}
	intend(t, openLog(t, dir), "on")
	if r := verified(t, dir, l.VKey()); r.Size != 4 || r.Segments != 2 { // genesis, r, log.recovered, on
		t.Fatalf("%+v", r)
	}
}

// A segment is on disk before the next one vouches for it.
func TestRotationFlushesFirst(t *testing.T) {
	l, dir := newLog(t)
	prefix, trace := straced(t, "-y", "-e", "trace=fdatasync,linkat,link")
	if out, err := childCommand(t, prefix, "rotate", dir).Output(); err != nil {
		t.Fatal(string(out), err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	flushed, linked := bytes.Index(b, []byte("00000000.seg>)")), bytes.Index(b, []byte("00000001.seg\""))
	if flushed < 0 || linked < 0 || flushed > linked {
		t.Fatalf("not flushed before the next segment:\n%s", b)
	}
	if r := verified(t, dir, l.VKey()); r.Segments != 2 {
		t.Fatalf("%+v", r)
	}
}

func TestFaultsAtOpen(t *testing.T) {
	for name, tt := range map[string]struct {
		file    string
		options []string
		want    error
	}{
		"key I/O error":  {keyFile, []string{"-e", "inject=openat:error=EIO"}, ErrKey},
		"key unreadable": {keyFile, []string{"-e", "inject=read:error=EIO"}, ErrKey},
		"key forbidden":  {keyFile, []string{"-e", "inject=openat:error=EACCES"}, ErrKey},
		"log forbidden":  {segmentName(0), []string{"-e", "inject=openat:error=EPERM"}, ErrReadOnly},
		"log on nfs":     {"", []string{"-e", "inject=statfs:poke_exit=@arg2=6969000000000000"}, ErrFileSystem},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := newLog(t)
			before := listing(t, dir)
			options := tt.options
			if tt.file != "" {
				options = append([]string{"-P", filepath.Join(dir, journalDir, tt.file)}, options...)
			}
			prefix, _ := straced(t, options...)
			cmd := childCommand(t, prefix, "open", dir)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), tt.want.Error()) {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			if after := listing(t, dir); after != before {
				t.Fatalf("changed:\n%s\n%s", before, after)
			}
		})
	}
}
