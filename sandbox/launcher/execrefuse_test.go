package launcher_test

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// The launcher that enters a container believes nobody either.
func TestExecChecksForItself(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	good := func() (sandbox.ExecPlan, []byte) { e := c.execPlan("/bin/true"); return e, c.encode(e) }
	e, b := good()
	proof := c.intend(e.Run, b)
	if exit, out, err := c.launch(b, proof); err != nil || exit.Code != 0 {
		t.Fatalf("%+v %v\n%s", exit, err, out)
	}
	refused := func(name, rule string, plan, proof []byte, monitor ...*os.File) {
		t.Helper()
		if said := c.enter(plan, proof, sandbox.Seals, monitor...); !strings.Contains(said, `"rule":"`+rule+`"`) || strings.Contains(said, `"started"`) {
			t.Errorf("%s: %s, want %s", name, said, rule)
		}
	}
	// The same way of starting does start: the refusals below mean something.
	e1, b1 := good()
	if said := c.enter(b1, c.intend(e1.Run, b1).Bytes(), sandbox.Seals); !strings.Contains(said, `"started"`) || !strings.Contains(said, `"exit"`) {
		t.Fatal(said)
	}
	refused("a receipt that has served", "launch.receipt", b, proof.Bytes())
	e2, b2 := good()
	refused("another's receipt", "launch.receipt", b2, proof.Bytes())
	refused("a container's receipt", "launch.receipt", b2, r.intend(e2.Run, b2).Bytes())
	refused("another run's", "launch.receipt", b2, c.intend(strings.Repeat("0", 64), b2).Bytes())
	for name, change := range map[string]func(*sandbox.ExecPlan){
		"floor.capabilities": func(e *sandbox.ExecPlan) { e.Process.Capabilities = []string{"CAP_CHOWN"} },
		"floor.no-new-privs": func(e *sandbox.ExecPlan) { e.Process.NoNewPrivs = false },
		"floor.seccomp":      func(e *sandbox.ExecPlan) { e.Seccomp.Profile = "none" },
		"floor.rlimits":      func(e *sandbox.ExecPlan) { e.Process.Rlimits = e.Process.Rlimits[:1] },
		"floor.cwd":          func(e *sandbox.ExecPlan) { e.Process.Cwd = "/proc/self/fd/7" },
		"floor.user":         func(e *sandbox.ExecPlan) { e.Process.UID = sandbox.IDRange },
		"floor.args":         func(e *sandbox.ExecPlan) { e.Process.Args = nil },
		"floor.exec":         func(e *sandbox.ExecPlan) { e.Run = strings.Repeat("0", 64) },
		"launcher.build":     func(e *sandbox.ExecPlan) { e.Build = "another" },
		"plan.version":       func(e *sandbox.ExecPlan) { e.Version++ },
		"launch.container-plan": func(e *sandbox.ExecPlan) {
			e.ContainerPlan = "sha256:" + strings.Repeat("0", 64)
		},
	} {
		e, _ := good()
		change(&e)
		b := c.encode(e)
		refused(name, name, b, c.intend(e.Run, b).Bytes())
	}
	// Into its own caller's namespaces, which are not the monitor's.
	e3, b3 := good()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	self := os.NewFile(uintptr(fd), "self")
	defer self.Close()
	refused("another namespace", "launch.namespace", b3, c.intend(e3.Run, b3).Bytes(), self)
	// And bytes that could still change.
	e4, b4 := good()
	if said := c.enter(b4, c.intend(e4.Run, b4).Bytes(), 0); !strings.Contains(said, `"rule":"launch.seal"`) {
		t.Error(said)
	}
	c.alone()
}

// enter starts ward-launch's exec with what a client would give it, or with
// another process in the monitor's place, and returns all it says.
func (c *inhabited) enter(plan, proof []byte, seals int, monitor ...*os.File) string {
	t := c.r.t
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	if len(monitor) == 0 {
		fd, err := unix.PidfdOpen(c.proc.MonitorPID(), 0)
		if err != nil {
			t.Fatal(err)
		}
		monitor = []*os.File{os.NewFile(uintptr(fd), "monitor")}
		defer monitor[0].Close()
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	x := raw{seals: seals}
	planFile, proofFile := c.r.memory(x, plan), c.r.memory(x, proof)
	defer planFile.Close()
	defer proofFile.Close()
	cmd := exec.Command(program, sandbox.CommandExec, strconv.Itoa(sandbox.FDMonitor))
	cmd.ExtraFiles = []*os.File{planFile, proofFile, theirs, monitor[0], null, null, null}
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, err := ours.Read(buf)
		if n == 0 || err != nil {
			break
		}
		all.Write(buf[:n])
	}
	cmd.Wait()
	return all.String() + said.String()
}

// What a launcher leaves behind that the monitor was never told of is ended:
// here a process of the host's, put below the monitor by other means.
func TestExecStrangersEnd(t *testing.T) {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Skip("needs nsenter")
	}
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	out, err := exec.Command(nsenter, "-p", "-t", strconv.Itoa(c.proc.MonitorPID()), "sh", "-c", "sleep 1000 >/dev/null 2>&1 & ").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(c.below()) != 1 {
		t.Fatalf("%v", c.below())
	}
	e := c.execPlan("/bin/true")
	e.Process.Cwd = "/not/there"
	if _, _, err := c.try(e); err == nil {
		t.Fatal("it was started in a directory that is not there")
	}
	c.alone()
}
