package launcher_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// TestWaitersThatAreGone: who waits for the end and is killed meanwhile holds
// no place at the monitor's, else nobody could stop the container any more.
func TestWaitersThatAreGone(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	for range 2 * 128 { // the monitor has 128 places
		m, err := sandbox.Dial(c.plan.Host.RuntimeDir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		if _, err := m.Wait(ctx); err == nil {
			t.Error("the container has ended")
		}
		cancel()
		m.Close()
	}
	eventually(t, "the monitor takes a client again", func() bool {
		m, err := sandbox.Dial(c.plan.Host.RuntimeDir)
		if err != nil {
			return false
		}
		defer m.Close()
		return m.Signal(t.Context(), unix.SIGCONT) == nil
	})
	waiting, err := sandbox.Dial(c.plan.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	time.AfterFunc(50*time.Millisecond, func() { unix.Kill(c.proc.HostPID(), unix.SIGKILL) })
	if exit, err := waiting.Wait(t.Context()); err != nil || exit.Code != 137 {
		t.Errorf("who still waits hears %+v %v", exit, err)
	}
}
