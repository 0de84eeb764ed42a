package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// acknowledged starts cmd and collects the runs it says were recorded; wait
// returns them once it has ended.
func acknowledged(t *testing.T, cmd *exec.Cmd) (wait func() []string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var runs []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return // half a line was not acknowledged
			}
			runs = append(runs, strings.TrimSpace(line))
		}
	}()
	return func() []string {
		<-done
		_ = cmd.Wait() // killed on purpose; what counts is what is in the log
		return runs
	}
}

// assertRecorded checks that every run is in the log exactly once.
func assertRecorded(t *testing.T, dir string, runs []string) {
	t.Helper()
	seen := map[string]int{}
	for _, e := range entries(t, dir) {
		if e.Type == RunIntent {
			seen[e.Run]++
		}
	}
	for _, r := range runs {
		if seen[r] != 1 {
			t.Errorf("run %s was acknowledged and is recorded %d times", r, seen[r])
		}
	}
}

func TestManyProcesses(t *testing.T) {
	l, dir := newLog(t)
	const procs, each = 8, 25
	var waits []func() []string
	for range procs {
		waits = append(waits, acknowledged(t, childCommand(t, nil, "intend", dir, fmt.Sprint(each))))
	}
	var runs []string
	for _, w := range waits {
		runs = append(runs, w()...)
	}
	if len(runs) != procs*each {
		t.Fatalf("%d of %d acknowledged", len(runs), procs*each)
	}
	assertRecorded(t, dir, runs)
	if r := verified(t, dir, l.VKey()); r.Size != procs*each+1 {
		t.Fatalf("%d records", r.Size)
	}
}

// Writers are killed at random moments: whatever was acknowledged stays, and
// the next process goes on.
func TestKillStorm(t *testing.T) {
	l, dir := newLog(t)
	var runs []string
	for round := range 8 {
		var waits []func() []string
		var cmds []*exec.Cmd
		for range 3 {
			cmd := childCommand(t, nil, "intend", dir, "100000")
			waits = append(waits, acknowledged(t, cmd))
			cmds = append(cmds, cmd)
		}
		time.Sleep(time.Duration(30+17*round) * time.Millisecond)
		for _, c := range cmds {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range waits {
			runs = append(runs, w()...)
		}
		appendExit(t, l, "round", round)
	}
	if len(runs) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	assertRecorded(t, dir, runs)
	r := verified(t, dir, l.VKey())
	t.Logf("%d acknowledged, %d records", len(runs), r.Size)
}

// A stopped process with the lock cannot hang the others: they give up in time
// and say whom to look at.
func TestStoppedLockHolder(t *testing.T) {
	l, dir := newLog(t)
	cmd := childCommand(t, nil, "hold", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // may have ended
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err = l.Intend(t.Context(), testIntent("r"))
	if took := time.Since(begun); !errors.Is(err, ErrLocked) || took < lockTimeout || took > lockTimeout+2*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	if want := fmt.Sprintf("pid %d (", cmd.Process.Pid); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "stopped)") {
		t.Fatalf("the holder is not named: %v", err)
	}
	// A verifier does not depend on it.
	if r := verified(t, dir, l.VKey()); r.Size != 1 {
		t.Fatal(r.Size)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	intend(t, l, "r")
}

// Readers see whole commits only, while others write.
func TestReadWhileWriting(t *testing.T) {
	l, dir := newLog(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				appendExit(t, l, "r", i)
			}
		}
	})
	for range 30 {
		if _, err := Verify(dir, Expect{VKey: l.VKey()}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// What was only posted is in the log when its writer is gone.
func TestPostSurvivesClose(t *testing.T) {
	l, dir := newLog(t)
	if err := l.Post(t.Context(), Record{Type: RunExit, Run: "r", Data: Exit{Code: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if es := entries(t, dir); len(es) != 2 || es[1].Run != "r" {
		t.Fatal(es)
	}
	verified(t, dir, l.VKey())
}

// mounted mounts a tmpfs with the given options, and unmounts it at the end.
func mounted(t *testing.T, options string) string {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := mounted(t, "size=16m")
	if err := Create(Config{Dir: dir, Host: "h"}); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir)
	intend(t, l, "r")
	l.Close()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrReadOnly) {
		t.Errorf("open: %v", err)
	}
	if err := Create(Config{Dir: dir + "/x", Host: "h"}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("create: %v", err)
	}
	// Reading needs no right to write.
	verified(t, dir, l.VKey())
}

// Below the low-water mark nothing new begins, and what runs can still end;
// with no space at all nothing is half written.
func TestFullDirectory(t *testing.T) {
	dir := mounted(t, "size=24m")
	if err := Create(Config{Dir: dir, Host: "h"}); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir)
	intend(t, l, "r")
	fill := func(name string, n int) error {
		f, err := unix.Open(dir+"/"+name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		for range n {
			if _, err := unix.Write(f, bytes.Repeat([]byte("x"), 4096)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := fill("most", 4500); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Intend(t.Context(), testIntent("r2")); !errors.Is(err, ErrFull) {
		t.Fatalf("below the mark: %v", err)
	}
	appendExit(t, l, "r", 0)
	if err := fill("rest", 1<<20); err != unix.ENOSPC {
		t.Fatal(err)
	}
	// The ballast is for the ends of what runs, and it is not for ever.
	end := Record{Type: RunExit, Run: "r", Data: Exit{Error: strings.Repeat("x", 50<<10)}}
	size := int64(3)
	for {
		err := l.Append(t.Context(), end)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if size++; size > 100 {
			t.Fatal("the disk does not fill")
		}
	}
	if size < 13 {
		t.Fatalf("%d ends recorded on a full disk", size-3)
	}
	if r := verified(t, dir, l.VKey()); r.Size != size {
		t.Fatalf("%d records, not %d", r.Size, size)
	}
	if err := unix.Unlink(dir + "/rest"); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unlink(dir + "/most"); err != nil {
		t.Fatal(err)
	}
	intend(t, openLog(t, dir), "r3") // and the ballast is put back
	if st, err := os.Stat(filepath.Join(dir, journalDir, ballastFile)); err != nil || st.Size() != ballastSize {
		t.Fatal(st, err)
	}
	if r := verified(t, dir, l.VKey()); r.Size != size+2 {
		t.Fatalf("%d records", r.Size)
	}
}
