package launcher_test

import (
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestChangesHaveAnOrder asks a monitor for changes of limits as commands do
// that were killed, overtaken, or meant an earlier run: what somebody was told
// did not happen does not happen later.
func TestChangesHaveAnOrder(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "60")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop(proc)
	m, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	change := func(run string, number int) error {
		l := p.Limits
		l.PIDs += int64(number)
		return m.Update(t.Context(), sandbox.Change{Run: run, Number: number, Limits: &l})
	}
	settle := func(number int) bool {
		t.Helper()
		made, err := m.Settle(t.Context(), sandbox.Change{Run: p.Run, Number: number})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	late := func(what string, err error) {
		t.Helper()
		if err == nil || fault.As(err).Rule != "container.state" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := change(p.Run, 1); err != nil {
		t.Fatal(err)
	}
	if !settle(1) {
		t.Error("a change that was made is denied")
	}
	if settle(2) {
		t.Error("a change that never came is said to be made")
	}
	late("one that was given up", change(p.Run, 2))
	late("one that was made before", change(p.Run, 1))
	late("one for another run", change("another", 3))
	if _, err := m.Settle(t.Context(), sandbox.Change{Run: "another", Number: 9}); err == nil {
		t.Error("a question about another run was answered")
	}
	if settle(2) {
		t.Error("a change that was refused is said to be made")
	}
	if err := change(p.Run, 3); err != nil || !settle(3) {
		t.Errorf("the next one: %v", err)
	}
}
