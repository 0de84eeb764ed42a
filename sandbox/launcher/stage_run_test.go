package launcher

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// staging is a stage that waits at its gate, outside of any container but as
// an ordinary user and without new privileges, as it is inside of one.
type staging struct {
	*stage
	t        *testing.T
	cmd      *exec.Cmd
	listener *os.File
	out      *os.File
}

const stagedUser = "65533"

func stageTo(t *testing.T, args ...string) *staging {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	st, err := newStage(sandbox.Process{}, sandbox.DefaultSeccomp(), domain{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	p := libcontainer.Process{Args: args}
	st.outfit(&p)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command("setpriv", append([]string{"--reuid", stagedUser, "--regid", stagedUser, "--clear-groups", "--no-new-privs",
		"--bounding-set", "-all", "--inh-caps", "-all", "env"}, p.Args...)...) // env, for setpriv itself still has its capabilities
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = p.ExtraFiles, w, w
	cmd.Env = []string{"PATH=/bin:/usr/bin"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	st.started()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := &staging{stage: st, t: t, cmd: cmd, out: r}
	if s.listener, err = st.arrived(cmd.Process.Pid, args[0]); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *staging) letGo() {
	s.t.Helper()
	if _, err := s.gate.Write([]byte{1}); err != nil {
		s.t.Fatal(err)
	}
	said, err := io.ReadAll(s.fromExec)
	if err != nil || len(said) > 0 {
		s.t.Fatalf("%q, %v", said, err)
	}
}

func (s *staging) output() string {
	s.t.Helper()
	b, err := io.ReadAll(s.out)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// asPayload runs a command as another process of the same user.
func asPayload(args ...string) (string, error) {
	out, err := exec.Command("setpriv", append([]string{"--reuid", stagedUser, "--regid", stagedUser, "--clear-groups", "--no-new-privs"}, args...)...).CombinedOutput()
	return string(out), err
}

// TestStageIsNobodysToLookInto: a process that is started in a running
// container has no filter until the stage has installed it. Another process of
// the same user that could trace it by then would be without one for good.
func TestStageIsNobodysToLookInto(t *testing.T) {
	s := stageTo(t, "/bin/sleep", "100")
	pid := s.cmd.Process.Pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nSeccomp:\t2\n", "\nSeccomp_filters:\t1\n", "\nNoNewPrivs:\t1\n", "\nUid:\t65533\t65533\t65533\t65533\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	looks := []string{"maps", "environ", "auxv", "fd/0", "exe", "stack"}
	for _, name := range looks {
		if out, err := asPayload("cat", fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
			t.Errorf("%s of the stage can be read: %.40q", name, out)
		}
	}
	s.letGo()
	// The control: without that protection the same user can.
	if out, err := asPayload("cat", fmt.Sprintf("/proc/%d/maps", pid)); err != nil {
		t.Errorf("the payload's maps: %v %s", err, out)
	}
	for fd := stageFirst; fd <= stageLast; fd++ {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil {
			t.Errorf("the payload has descriptor %d: %s", fd, to)
		}
	}
}

// TestNobodyListens: without the monitor a refused call fails, and the payload
// does not wait for ever.
func TestNobodyListens(t *testing.T) {
	s := stageTo(t, "/bin/busybox", "unshare", "-m", "true")
	s.listener.Close()
	s.letGo()
	if out := s.output(); !strings.Contains(out, "Function not implemented") {
		t.Errorf("%q", out)
	}
}

// TestCallerDiesUnanswered: a process that is killed while its call waits
// neither stays nor disturbs the answers to others.
func TestCallerDiesUnanswered(t *testing.T) {
	s := stageTo(t, "/bin/sh", "-c", "busybox unshare -m true & sleep 0.3; kill -9 $!; wait $!; echo $?; exec busybox unshare -m true")
	s.letGo()
	time.Sleep(600 * time.Millisecond) // the first call is unanswered, and then its caller is gone
	d := newDenials(sandbox.DefaultSeccomp())
	fd, err := unix.Dup(int(s.listener.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
	if err := d.adopt(fd); err != nil {
		t.Fatal(err)
	}
	if out := s.output(); !strings.Contains(out, "137\n") || !strings.Contains(out, "Operation not permitted") {
		t.Errorf("%q", out)
	}
	if got := d.list(); len(got) != 1 || got[0].Name != "unshare" || got[0].Count != 1 {
		t.Errorf("%+v", got)
	}
}

// TestNoStageWithoutGate: whoever lets the gate go without a word ends it.
func TestNoStageWithoutGate(t *testing.T) {
	s := stageTo(t, "/bin/echo", "on")
	s.gate.Close()
	s.gate = nil
	if out := s.output(); out != "" {
		t.Errorf("%q", out)
	}
	if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != 127 {
		t.Errorf("%v", err)
	}
}

// TestManyDifferentCalls: the table is bounded, whatever the payload thinks up.
func TestManyDifferentCalls(t *testing.T) {
	d := newDenials(sandbox.DefaultSeccomp())
	now := time.Now()
	for i := range int32(1000) {
		d.count(100000+i, now)
	}
	list := d.list()
	if last := list[len(list)-1]; len(list) != maxDenied+1 || last.Name != "others" || last.Count != 1000-maxDenied {
		t.Errorf("%d entries, the last %+v", len(list), last)
	}
	if wait := d.count(1, now); wait > 0 {
		t.Errorf("call 1001 waits %v", wait)
	}
	for range maxBurst {
		d.count(1, now)
	}
	if wait := d.count(1, now); wait < 400*time.Millisecond || wait > 600*time.Millisecond {
		t.Errorf("call %d waits %v", maxBurst+1002, wait)
	}
}
