package launcher_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// client is one that is attached, as a person would be.
type client struct {
	*sandbox.Monitor
	in       *os.File
	out, err *bufio.Reader
	ends     []*os.File
}

func (r *rig) attach(p sandbox.Plan, input bool) *client {
	r.t.Helper()
	m, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{Monitor: m}
	var theirIn *os.File
	if input {
		theirIn, c.in = r.pipe()
	}
	outR, outW := r.pipe()
	errR, errW := r.pipe()
	c.out, c.err, c.ends = bufio.NewReader(outR), bufio.NewReader(errR), []*os.File{outR, errR}
	raw := make([]byte, 32)
	rand.Read(raw)
	if err := m.Attach(r.t.Context(), hex.EncodeToString(raw), theirIn, outW, errW); err != nil {
		r.t.Fatal(err)
	}
	for _, f := range []*os.File{theirIn, outW, errW} {
		if f != nil {
			f.Close()
		}
	}
	r.t.Cleanup(func() { c.leave() })
	return c
}

func (c *client) leave() {
	c.Close()
	for _, f := range append(c.ends, c.in) {
		if f != nil {
			f.Close()
		}
	}
}

// await reads lines until one has want in it.
func await(t *testing.T, from *bufio.Reader, want string) string {
	t.Helper()
	var all strings.Builder
	found := make(chan string, 1)
	go func() {
		for {
			line, err := from.ReadString('\n')
			all.WriteString(line)
			if strings.Contains(line, want) {
				found <- line
				return
			}
			if err != nil {
				found <- ""
				return
			}
		}
	}()
	select {
	case line := <-found:
		if line == "" {
			t.Fatalf("no %q in %q", want, all.String())
		}
		return strings.TrimSpace(line)
	case <-time.After(20 * time.Second):
		t.Fatalf("no %q in twenty seconds", want)
	}
	return ""
}

// terminalPlan runs script on a terminal.
func (r *rig) terminalPlan(script string) sandbox.Plan {
	r.t.Helper()
	for _, n := range []string{"stty", "tty", "seq", "yes"} {
		if err := os.Symlink("busybox", filepath.Join(r.layer, "bin", n)); err != nil && !errors.Is(err, os.ErrExist) {
			r.t.Fatal(err)
		}
	}
	p := r.plan("/bin/sh", "-c", script)
	p.Process.Stdin, p.Process.Terminal = true, &sandbox.Terminal{Rows: 33, Columns: 101}
	return p
}

func end(t *testing.T, proc *sandbox.Running) sandbox.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exit, err := proc.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	p := r.terminalPlan(`tty; stty size; for f in /dev/tty /dev/console; do test -c $f && echo $f is there; done
		grep ' /dev/console ' /proc/self/mountinfo; (: </dev/tty) && echo controlling; ls -l /proc/self/fd | grep -v ' /proc/' ; exit 7`)
	outR, outW := r.pipe()
	proc, err := r.launch(p, sandbox.Stdio{Out: outW})
	outW.Close()
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	b, err := io.ReadAll(outR)
	if err != nil {
		t.Fatal(err)
	}
	out := string(b)
	for _, want := range []string{"/dev/pts/0\r\n", "33 101\r\n", "/dev/tty is there", "/dev/console is there", "controlling", " - devpts ward "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, not := range []string{"/dev/null", r.dir} {
		if strings.Contains(out, not) {
			t.Errorf("there is %q in\n%s", not, out)
		}
	}
	if exit := end(t, proc); exit.Code != 7 || exit.Error != "" {
		t.Errorf("%+v", exit)
	}
}

func TestTerminalResize(t *testing.T) {
	r := newRig(t)
	p := r.terminalPlan("trap 'echo changed to $(stty size)' WINCH; echo begin; while :; do read line && echo got $line && test $line = last && exit 5; done")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	c := r.attach(p, true)
	if err := c.Resize(t.Context(), "", sandbox.Terminal{Rows: 12, Columns: 34}); err != nil {
		t.Fatal(err)
	}
	await(t, c.out, "changed to 12 34")
	if err := c.Resize(t.Context(), strings.Repeat("a", 64), sandbox.Terminal{}); err == nil {
		t.Error("the terminal of a process that is not there was resized")
	}
	// Hanging up is not the end of its input, and no signal.
	c.leave()
	c = r.attach(p, true)
	io.WriteString(c.in, "again\n")
	await(t, c.out, "got again")
	io.WriteString(c.in, "last\n")
	if exit := end(t, proc); exit.Code != 5 || exit.Error != "" {
		t.Errorf("%+v", exit)
	}
}

// TestConsoleDecoys runs images whose /dev is full of traps: links in the
// places a terminal is mounted over and opened by (CVE-2025-52565,
// CVE-2025-31133). The container's /dev is fresh, so that none is in the way.
func TestConsoleDecoys(t *testing.T) {
	r := newRig(t)
	victim := filepath.Join(r.dir, "victim")
	if err := os.WriteFile(victim, []byte("before"), 0o666); err != nil {
		t.Fatal(err)
	}
	dev := filepath.Join(r.layer, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"console": victim, "pts": "/proc/sys", "ptmx": victim, "tty": victim, "null": victim} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := r.terminalPlan(`readlink /dev/console; readlink /dev/pts; echo hi >/dev/console; echo through >/dev/tty; exit 3`)
	res, err := r.try(p, "")
	if err != nil || res.exit.Code != 3 || res.out != "hi\r\nthrough\r\n" {
		t.Errorf("%+v %v", res, err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "before" {
		t.Errorf("the host's file has %q", b)
	}
	if err := os.RemoveAll(dev); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp", dev); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try(r.terminalPlan("true"), ""); err == nil || fault.As(err).Rule != "launch.root-symlink" {
		t.Errorf("an image whose /dev is a link: %v", err)
	}
}

// TestAttach has several clients at a time, and takes them away in all ways.
func TestAttach(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "while read line; do echo out $line; echo err $line >&2; done; echo end of input; sleep 1000")
	p.Process.Stdin, p.Process.StdinOpen = true, true
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	one, two := r.attach(p, true), r.attach(p, false)
	io.WriteString(one.in, "1\n")
	for _, c := range []*client{one, two} {
		await(t, c.out, "out 1")
		await(t, c.err, "err 1")
	}
	one.leave() // and with it its input, which stays open for the next
	three := r.attach(p, true)
	io.WriteString(three.in, "2\n")
	await(t, two.out, "out 2")
	await(t, three.out, "out 2")
	two.leave()
	if err := three.Signal(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(three.out) // the container's end is the streams'
	if err != nil || strings.Contains(string(rest), "end of input") {
		t.Errorf("%q %v", rest, err)
	}
	exit, err := three.Wait(t.Context())
	if err != nil || exit.Signal != 9 {
		t.Errorf("%+v %v", exit, err)
	}
	end(t, proc)
}

// TestAttachEndsInput has input end with that of its client where it does not
// stay open.
func TestAttachEndsInput(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "cat; echo end of input")
	p.Process.Stdin = true
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	c := r.attach(p, true)
	io.WriteString(c.in, "text\n")
	await(t, c.out, "text")
	c.in.Close()
	await(t, c.out, "end of input")
	end(t, proc)
}

// TestAttachStuck has a client that never reads beside one that does: the
// payload waits for it for a bounded time, the other gets all.
func TestAttachStuck(t *testing.T) {
	r := newRig(t)
	p := r.terminalPlan("read start; seq 1 400000; echo over")
	p.Process.Terminal, p.Process.StdinOpen = nil, true
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	r.attach(p, false)
	c := r.attach(p, true)
	began := time.Now()
	io.WriteString(c.in, "go\n")
	n := 0
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d lines: %v", n, err)
		}
		if line == "over\n" {
			break
		}
		if n++; line != fmt.Sprintln(n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if took := time.Since(began); n != 400000 || took > 20*time.Second {
		t.Errorf("%d lines in %v", n, took)
	}
	end(t, proc)
}

func TestAttachTakesPipesOnly(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "1000")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	m, err := sandbox.Dial(p.Host.RuntimeDir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Signal(t.Context(), 0) // it has answered: the connection is among them
	before := descriptors(t, proc.MonitorPID())
	f, err := os.Create(filepath.Join(r.dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := strings.Repeat("a", 64)
	for what, try := range map[string]error{
		"a file": m.Attach(t.Context(), id, nil, f, nil),
		"no id":  m.Attach(t.Context(), "", nil, nil, nil),
		"a size": m.Resize(t.Context(), "", sandbox.Terminal{}),
	} {
		if try == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if err := m.Signal(t.Context(), 0); err == nil || fault.As(err).Rule != "monitor.signal" {
		t.Errorf("after refusals the monitor says %v", err)
	}
	if now := descriptors(t, proc.MonitorPID()); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
	m.Signal(t.Context(), unix.SIGKILL)
	end(t, proc)
}

// TestAttachLeaksNothing attaches a hundred clients, ten at a time, with input
// that the payload does not read, and takes them away.
func TestAttachLeaksNothing(t *testing.T) {
	r := newRig(t)
	p := r.terminalPlan("while :; do sleep 1000; done")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(fault.As(err).Report())
	}
	round := func() {
		var all sync.WaitGroup
		for range 10 {
			c := r.attach(p, true)
			all.Go(func() {
				c.in.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				c.in.Write(make([]byte, 100_000))
				c.leave()
			})
		}
		all.Wait()
	}
	round()
	time.Sleep(300 * time.Millisecond)
	fds, threads := descriptors(t, proc.MonitorPID()), threads(t, proc.MonitorPID())
	for range 10 {
		round()
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t, proc.MonitorPID()) <= fds })
	if now := descriptorsOf(t, proc.MonitorPID(), "task"); now > threads+3 {
		t.Errorf("%d threads, before %d", now, threads)
	}
	unix.Kill(proc.HostPID(), unix.SIGKILL)
	end(t, proc)
}

func descriptors(t *testing.T, pid int) int { t.Helper(); return descriptorsOf(t, pid, "fd") }

func threads(t *testing.T, pid int) int { t.Helper(); return descriptorsOf(t, pid, "task") }

func descriptorsOf(t *testing.T, pid int, what string) int {
	t.Helper()
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, what))
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}
