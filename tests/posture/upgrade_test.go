package posture

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/tests/lab"
)

// install puts the programs under test, or those of another build, where a
// ward's are, as an installation does: by rename, over those that run.
func install(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"ward", "ward-launch"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name+".new"), b, 0o755)
		}
		if err == nil {
			err = os.Rename(filepath.Join(to, name+".new"), filepath.Join(to, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpgrade replaces ward under containers that run, by another build of it.
func TestUpgrade(t *testing.T) {
	w := lab.New(t)
	next := filepath.Join(w.Dir, "next")
	here := filepath.Join(w.Dir, "bin")
	for _, dir := range []string{next, here} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := lab.Build(next, "lab-next", "ward", "ward-launch"); err != nil {
		t.Fatal(err)
	}
	install(t, lab.Bin(), here)
	ward := func(args ...string) lab.Result {
		t.Helper()
		cmd := w.Command(args...)
		cmd.Path = filepath.Join(here, "ward")
		return w.Finish(cmd)
	}
	must := func(args ...string) string {
		t.Helper()
		r := ward(args...)
		if r.Code != 0 {
			t.Errorf("ward %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
		return strings.TrimSpace(r.Stdout)
	}
	w.Busybox(image)
	w.Vouch(image)
	must("run", "-d", "--name", "plain", image, "sh", "-c", "echo hello; exec sleep 2011")
	must("run", "-d", "--name", "old", image, "sleep", "2012")
	kept := must("run", "-d", "--name", "kept", "--restart", "on-failure:1", image, "sleep", "2013")

	install(t, next, here)
	build := func(name string) string {
		t.Helper()
		return must("inspect", "-f", "{{.State.Status}} {{.Plan.build}}", name)
	}
	before := build("plain")
	if !strings.HasPrefix(before, "running ") || strings.HasSuffix(before, " lab-next") {
		t.Fatalf("before: %q", before)
	}

	t.Run("keeper", func(t *testing.T) { // runs the old program, and must not start by it
		pid, err := strconv.Atoi(must("inspect", "-f", "{{.State.Pid}}", kept))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // "ward kill" would end the keeping
			t.Fatal(err)
		}
		if _, err := until(func() bool {
			return ward("inspect", "-f", "{{.State.Status}} {{.Plan.build}}", kept).Stdout == "running lab-next\n"
		}); err != nil {
			t.Errorf("the kept container is not started by the new ward: %s", build("kept"))
		}
		if n := must("inspect", "-f", "{{.RestartCount}}", kept); n != "1" {
			t.Errorf("%s restarts", n)
		}
	})
	t.Run("verbs", func(t *testing.T) {
		for _, c := range []struct{ args, says string }{
			{"ps --format {{.Names}}", "kept\nold\nplain"}, {"logs plain", "hello"}, {"exec plain id", "uid=0(root) gid=0(root)*"},
			{"top plain", "*sleep 2011"}, {"stats --no-stream --format {{.Name}} plain", "plain"}, {"pause plain", "plain"}, {"unpause plain", "plain"},
			{"update --pids-limit 77 plain", "plain"}, {"cp plain:/etc/hostname " + w.Dir + "/hostname", "*"}, {"kill -s USR1 old", "old"},
			{"rename old older", ""}, {"stop -t 0 older", "older"}, {"wait older", "137"}, {"start older", "older"}, {"restart -t 0 plain", "plain"},
			{"rm -f older", "older"},
		} {
			if out := must(strings.Fields(c.args)...); out != c.says && !like(c.says, last(out)) {
				t.Errorf("ward %s: %q", c.args, out)
			}
		}
		if got := build("plain"); got != "running lab-next" {
			t.Errorf("started again it is %q", got)
		}
		if out := must("events", "--since", "10m", "--until", "0s", "--filter", "container=plain", "--format", "{{.Action}}"); !strings.Contains(out, "restart") && !strings.Contains(out, "start") {
			t.Errorf("events: %q", out)
		}
	})
	t.Run("plan of another version", func(t *testing.T) { anotherPlan(t, w, ward, must) })
	t.Run("monitor of another version", func(t *testing.T) { olderMonitor(t, w, ward, must) })
	for _, name := range []string{"plain", "kept"} {
		must("rm", "-f", name)
	}
	w.Gone(t)
}

func last(out string) string { return out[strings.LastIndexByte(out, '\n')+1:] }

func until(holds func() bool) (int, error) {
	for i := range 100 {
		if holds() {
			return i, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0, os.ErrDeadlineExceeded
}

// anotherPlan gives a container that runs a plan that this version cannot
// read: what needs the plan says so, and all else works.
func anotherPlan(t *testing.T, w *lab.Ward, ward func(...string) lab.Result, must func(...string) string) {
	id := must("inspect", "-f", "{{.Id}}", "plain")
	file := filepath.Join(w.Root, "lib/containers", id, "plan.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	version := fmt.Sprintf(`"version":%d`, sandbox.PlanVersion)
	older := strings.Replace(string(b), version, `"version":1,"of_old":{}`, 1)
	if older == string(b) {
		t.Fatal("the plan has no version")
	}
	if err := os.WriteFile(file, []byte(older), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"exec plain true", "update --pids-limit 50 plain", "cp plain:/etc/hostname -"} {
		r := ward(strings.Fields(args)...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "container.version") || !strings.Contains(r.Stderr, "ward restart plain") {
			t.Errorf("ward %s: exit %d, %s", args, r.Code, r.Stderr)
		}
	}
	for _, args := range []string{"ps", "logs plain", "inspect plain", "top plain", "stats --no-stream plain", "pause plain", "unpause plain", "kill -s USR1 plain", "restart -t 0 plain", "exec plain true"} {
		must(strings.Fields(args)...)
	}
}

// olderMonitor stands between ward and a monitor as one that knows nothing but
// signals and waiting: what else is asked gets the answer every monitor gives.
func olderMonitor(t *testing.T, w *lab.Ward, ward func(...string) lab.Result, must func(...string) string) {
	id := must("inspect", "-f", "{{.Id}}", "plain")
	dir := filepath.Join(w.Root, "run/c", id[:12])
	sock := filepath.Join(dir, sandbox.MonitorSocket)
	dial := func(name string) *net.UnixConn {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ask := func(c *net.UnixConn, request string) string {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<20)
		n, err := c.Read(b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
	real := dial(sock)
	defer real.Close()
	unknown := ask(real, `{"op":"of-the-future"}`)
	for _, r := range []string{unknown, ask(real, `{"op":"signal","signal":10,"of_the_future":1}`)} {
		if !strings.Contains(r, "monitor.op") || !strings.Contains(r, "start the container again") {
			t.Errorf("to what it does not know a monitor answers %s", r)
		}
	}
	if r := ask(real, `{"op":"signal","signal":10}`); !strings.Contains(r, `"ok":true`) {
		t.Errorf("and then %s", r)
	}

	if err := os.Rename(sock, sock+".real"); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: sock, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go between(c, dial(sock+".real"), unknown)
		}
	}()
	for _, args := range []string{"ps", "logs plain", "inspect plain", "stats --no-stream plain", "top plain", "kill -s USR1 plain"} {
		must(strings.Fields(args)...)
	}
	for _, args := range []string{"pause plain", "update --pids-limit 50 plain"} {
		if r := ward(strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.Stderr, "monitor.op") {
			t.Errorf("ward %s: exit %d, %s", args, r.Code, r.Stderr)
		}
	}
	must("stop", "-t", "0", "plain")
}

func between(client, monitor *net.UnixConn, unknown string) {
	defer client.Close()
	defer monitor.Close()
	b := make([]byte, 1<<20)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		var req struct{ Op string }
		reply := []byte(unknown)
		if json.Unmarshal(b[:n], &req) == nil && (req.Op == "signal" || req.Op == "wait") {
			if _, err := monitor.Write(b[:n]); err != nil {
				return
			}
			if n, err = monitor.Read(b); err != nil {
				return
			}
			reply = b[:n]
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}
