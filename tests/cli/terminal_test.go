package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// person sits at a terminal at which a ward command runs.
type person struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File
	before unix.Termios
	ended  chan error

	mu   sync.Mutex
	seen bytes.Buffer
}

func sit(t *testing.T, w *lab.Ward, rows, columns uint16, args ...string) *person {
	t.Helper()
	p := &person{t: t, cmd: w.Command(args...), ended: make(chan error, 1)}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.master = os.NewFile(uintptr(fd), "person")
	t.Cleanup(func() { p.master.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.slave.Close() })
	p.resize(rows, columns)
	p.before = p.settings()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := p.master.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *person) resize(rows, columns uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) settings() unix.Termios {
	p.t.Helper()
	s, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *s
}

func (p *person) types(s string) {
	p.t.Helper()
	if _, err := p.master.WriteString(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *person) sees(want string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(p.text(), want) {
			return
		}
	}
	p.t.Fatalf("no %q in %q", want, p.text())
}

// leaves waits for the command's end, with its terminal as it was.
func (p *person) leaves(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("it does not end; seen so far: %q", p.text())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit %d, want %d: %q", got, code, p.text())
	}
	if now := p.settings(); now != p.before {
		p.t.Errorf("the terminal is not as it was: %+v, before %+v", now, p.before)
	}
}

const shell = `PS1='> '; trap 'echo now $(stty size)' WINCH; while :; do read line; case $line in out) exit 9;; ?*) echo got $line;; esac; done`

func newTerminalWard(t *testing.T) *lab.Ward {
	t.Helper()
	lab.NeedsRoot(t)
	w := lab.New(t)
	w.Busybox("demo/busybox:1")
	w.Vouch("demo/busybox:1")
	return w
}

// TestTerminalSession is a person's day: run, resize, leave by the keys, come
// back beside somebody else, be cut off, end it.
func TestTerminalSession(t *testing.T) {
	w := newTerminalWard(t)
	p := sit(t, w, 24, 80, "run", "-it", "--name", "c", "demo/busybox:1", "sh", "-c", "echo $TERM; stty size; "+shell)
	p.sees("xterm\r\n24 80\r\n")
	if now := p.settings(); now == p.before {
		t.Error("the person's terminal is not in raw mode")
	}
	p.resize(40, 132)
	p.sees("now 40 132")
	p.types("\x10x\r") // not the keys: a ctrl-p that goes through
	p.sees("got \x10x")
	p.types("\x10\x11")
	p.leaves(0)
	if text := p.text(); strings.Contains(text, "read escape") {
		t.Errorf("leaving said something: %q", text)
	}
	if got := strings.TrimSpace(w.Must("ps", "-q", "--filter", "name=c")); got == "" {
		t.Fatal("the container did not outlive its client")
	}
	one := sit(t, w, 20, 60, "attach", "c")
	one.sees("now 20 60")
	two := sit(t, w, 20, 60, "attach", "--detach-keys", "ctrl-a,d", "c")
	two.sees("now 20 60") // drawn again for who comes with the same size
	for w.Count(audit.ContainerAttach, "") < 2 {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // on record before it is attached
	one.types("hello\r")
	one.sees("got hello")
	two.sees("got hello")
	two.types("\x01d")
	two.leaves(0)
	one.cmd.Process.Kill()
	<-one.ended
	three := sit(t, w, 25, 70, "attach", "c")
	three.sees("now 25 70")
	// Ended by a signal it puts the terminal back, and the container goes on.
	three.cmd.Process.Signal(syscall.SIGTERM)
	three.leaves(128 + 15)
	four := sit(t, w, 26, 70, "attach", "c")
	four.sees("now 26 70")
	four.types("out\r")
	four.leaves(9)
	if n := w.Count(audit.ContainerDetach, ""); n != 4 {
		t.Errorf("%d records of leaving, want 4", n)
	}
	five := sit(t, w, 27, 71, "start", "-ai", "c")
	five.sees("27 71")
	five.types("out\r")
	five.leaves(9)
	w.Must("rm", "c")
	w.Must("audit", "verify")
	w.Gone(t)
}
