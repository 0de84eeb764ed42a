package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is the program itself where a test starts it as that.
func TestMain(m *testing.M) {
	if os.Getenv("WARD_INIT_TEST") != "" {
		os.Unsetenv("WARD_INIT_TEST")
		// In a container it is the first process; here it asks for the orphans.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		main()
	}
	os.Exit(m.Run())
}

func initTo(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "WARD_INIT_TEST=1")
	return cmd
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"--", "true"}},
		{7, []string{"--", "sh", "-c", "exit 7"}},
		{137, []string{"--", "sh", "-c", "kill -KILL $$"}},
		{143, []string{"--", "sh", "-c", "kill -TERM $$"}},
		{127, []string{"--", "no-such-program"}},
		{127, []string{"--", "/no/such/program"}},
		{126, []string{"--", "/etc/passwd"}},
		{126, []string{"--", "/"}},
		{2, nil}, {2, []string{"true"}}, {2, []string{"--"}},
	} {
		cmd := initTo(c.args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.code {
			t.Errorf("%q: exit %d, want %d: %s", c.args, got, c.code, out)
		}
		if (c.code == 126 || c.code == 127) && !strings.Contains(string(out), "ward-init: exec ") {
			t.Errorf("%q says %q", c.args, out)
		}
	}
}

// TestOrphans: whose parent has died is waited for, and its end is not taken
// for the payload's.
func TestOrphans(t *testing.T) {
	script := `for i in 1 2 3 4 5; do sh -c '(sleep 0.05; exit 9) &' ; done; sleep 0.6; cat /proc/*/stat 2>/dev/null; echo; echo me $PPID; exit 3`
	cmd := initTo("--", "sh", "-c", script)
	out, _ := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != 3 {
		t.Fatalf("exit %d, want the payload's 3", got)
	}
	at := bytes.LastIndex(out, []byte("me "))
	var pid int
	if _, err := fmt.Sscanf(string(out[max(at, 0):]), "me %d", &pid); err != nil || pid != cmd.Process.Pid {
		t.Fatalf("its parent is %d (%v), want %d", pid, err, cmd.Process.Pid)
	}
	if dead := fmt.Sprintf(") Z %d ", pid); bytes.Contains(out, []byte(dead)) {
		t.Errorf("zombies are left: %s", out)
	}
}

// TestSignalsReachThePayload: every one that can be caught, real-time ones too.
func TestSignalsReachThePayload(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE,
		unix.SIGALRM, unix.SIGWINCH, unix.SIGTSTP, unix.SIGABRT, unix.SIGSEGV, 40} {
		cmd := initTo("--", "bash", "-c", fmt.Sprintf("trap 'exit 55' %d; echo ready; for i in {1..2000}; do sleep 0.02; done", int(s)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		stuck := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
		if got := cmd.ProcessState.ExitCode(); got != 55 {
			t.Errorf("%v: exit %d, want the payload's 55 (%v)", s, got, cmd.ProcessState)
		}
	}
}
