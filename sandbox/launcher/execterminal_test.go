package launcher_test

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

// A process started later can have a terminal of the container's own, of any
// size, at which somebody types.
func TestExecTerminal(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	e := c.execPlan("/bin/sh", "-c", "busybox tty; busybox stty size; read line; echo got $line; busybox stty size; exit 5")
	e.Process.Terminal, e.Process.Stdin = &sandbox.Terminal{Rows: 24, Columns: 81}, true
	b := c.encode(e)
	inR, inW := r.pipe()
	outR, outW := r.pipe()
	proc, err := r.launcher.Exec(t.Context(), b, c.raw, c.intend(e.Run, b), sandbox.Stdio{In: inR, Out: outW})
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	out := bufio.NewReader(outR)
	line := func(want string) {
		t.Helper()
		got, err := out.ReadString('\n')
		if got = strings.TrimRight(got, "\r\n"); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	line("/dev/pts/0")
	line("24 81")
	m, err := sandbox.Dial(c.plan.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Resize(t.Context(), e.Exec, sandbox.Terminal{Rows: 50, Columns: 132}); err != nil {
		t.Error(err)
	}
	if ids, err := m.Execs(t.Context()); err != nil || len(ids) != 1 || ids[0] != e.Exec {
		t.Errorf("%v %v", ids, err)
	}
	io.WriteString(inW, "typed\n")
	line("typed") // the terminal's echo
	line("got typed")
	line("50 132")
	if exit, err := proc.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Errorf("%+v %v", exit, err)
	}
	if err := m.Resize(t.Context(), e.Exec, sandbox.Terminal{Rows: 1, Columns: 1}); err == nil {
		t.Error("the terminal of a process that has ended was resized")
	}
	c.alone()
}
