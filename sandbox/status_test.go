package sandbox_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	if _, err := sandbox.ReadStatus(dir); !errors.Is(err, fault.NotFound) {
		t.Fatalf("no status: %v", err)
	}
	long := sandbox.Status{Phase: sandbox.PhaseExited, PID: 5, Exit: &sandbox.Exit{Code: 3, Error: strings.Repeat("x", 500)}}
	short := sandbox.Status{Phase: sandbox.PhaseRunning, PID: 5}
	for _, want := range []sandbox.Status{short, long, short} {
		if err := sandbox.WriteStatus(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := sandbox.ReadStatus(dir)
		if err != nil || got.Phase != want.Phase || (got.Exit == nil) != (want.Exit == nil) {
			t.Fatalf("%+v %v", got, err)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "status.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	for _, bad := range []string{"", "{", "{}", "{}\n{}\n", `{"phase":"exi`, strings.Repeat("x", 70<<10)} {
		if err := os.WriteFile(filepath.Join(dir, "status.json"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := sandbox.ReadStatus(dir); !errors.Is(err, fault.Invalid) {
			t.Errorf("%.20q was read as %+v (%v)", bad, s, err)
		}
	}
}

// TestStatusWhileWritten reads a status that changes all the time.
func TestStatusWhileWritten(t *testing.T) {
	dir := t.TempDir()
	states := []sandbox.Status{
		{Phase: sandbox.PhaseRunning, PID: 1},
		{Phase: sandbox.PhaseExited, PID: 22222, Exit: &sandbox.Exit{Error: strings.Repeat("y", 3000)}},
	}
	if err := sandbox.WriteStatus(dir, states[0]); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; !stop.Load() && err == nil; i++ {
			err = sandbox.WriteStatus(dir, states[i%2])
		}
		done <- err
	}()
	for range 2000 {
		s, err := sandbox.ReadStatus(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if (s.Phase == sandbox.PhaseExited) != (s.Exit != nil && s.PID == 22222 && len(s.Exit.Error) == 3000) {
			t.Errorf("a mix of two states: %+v", s)
			break
		}
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
