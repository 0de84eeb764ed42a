package launcher_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// taker asks at a socket for a descriptor of a directory, which it was not
// meant to have, and tries to get somewhere from there.
const taker = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
static void tell(const char *what, int err) { if (err < 0) printf("%s: %m\n", what); else printf("%s: done\n", what); }
int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strcpy(a.sun_path, argv[1]);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(s, (void *)&a, sizeof a))
		return perror("connect"), 2;
	char c, control[64], name[64];
	struct iovec v = { &c, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (recvmsg(s, &m, 0) < 1 || !CMSG_FIRSTHDR(&m))
		return perror("recvmsg"), 2;
	int fd = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
	struct stat st;
	tell("see", fstatat(fd, "etc/shadow", &st, 0));
	tell("read", openat(fd, "etc/shadow", O_RDONLY));
	tell("write", openat(fd, "etc/shadow", O_WRONLY));
	snprintf(name, sizeof name, "/proc/self/fd/%d/../host/etc/shadow", fd);
	tell("by name", open(name, O_RDONLY));
	tell("list", openat(fd, ".", O_RDONLY | O_DIRECTORY));
	tell("make", mkdirat(fd, "made", 0700));
	tell("remove", unlinkat(fd, "etc/remove", 0));
	snprintf(name, sizeof name, "/proc/self/fd/%d/bin/true", fd);
	fflush(stdout);
	execl(name, "true", NULL);
	tell("execute", -1);
}
`

// compile puts a program into the layer.
func (r *rig) compile(name, source string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name+".c")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-static", "-o", filepath.Join(r.layer, "bin", name), file).CombinedOutput(); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
}

func needsLandlock(t *testing.T, least int) {
	t.Helper()
	if abi := sandbox.LandlockABI(); abi < least {
		t.Skipf("needs Landlock's ABI %d, and has %d", least, abi)
	}
}

// giveAway listens at a socket and gives every caller a descriptor of dir.
func giveAway(t *testing.T, socket, dir string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.WriteMsgUnix([]byte{0}, unix.UnixRights(int(d.Fd())), nil)
			c.Close()
		}
	}()
}

// TestLeakedDirectory: a descriptor of a directory of the host's is worth
// nothing to the first process nor to later ones (the class of CVE-2024-21626).
// The control is the same container without Landlock, where nothing but the
// host's permissions is in the way.
func TestLeakedDirectory(t *testing.T) {
	needsLandlock(t, 2)
	r := newRig(t)
	r.compile("taker", taker)
	host, door := filepath.Join(r.dir, "host"), filepath.Join(r.dir, "door")
	for _, dir := range []string{"etc", "bin"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(door, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"etc/shadow": "decoy", "etc/remove": "decoy", "bin/true": string(b)} {
		if err := os.WriteFile(filepath.Join(host, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// All that can be in the way of it is Landlock.
	for _, name := range []string{"", "etc", "etc/shadow"} {
		if err := os.Chmod(filepath.Join(host, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	giveAway(t, filepath.Join(door, "s"), host)
	plan := func(off bool, args ...string) sandbox.Plan {
		p := r.plan(args...)
		p.Mounts = []sandbox.Mount{{Type: sandbox.MountBind, Source: door, Target: "/door"}}
		return p.Landlocked(sandbox.LandlockABI(), off)
	}
	const want = "see: done\nread: Permission denied\nwrite: Permission denied\nby name: Permission denied\nlist: Permission denied\n" +
		"make: Permission denied\nremove: Permission denied\nexecute: Permission denied\n"
	if got := r.run(plan(false, "/bin/taker", "/door/s")); got.out != want {
		t.Errorf("the first process:\n%s%s", got.out, got.errOut)
	}
	c := r.inhabit(plan(false, "/bin/sleep", "100"))
	if got := c.sh("taker /door/s; exit 0"); got != want {
		t.Errorf("a later process:\n%s", got)
	}
	if got, err := os.ReadFile(filepath.Join(host, "etc/remove")); err != nil || string(got) != "decoy" {
		t.Errorf("%q, %v", got, err)
	}
	free := strings.NewReplacer("Permission denied", "done", "execute: Permission denied\n", "").Replace(want)
	if got := r.run(plan(true, "/bin/taker", "/door/s")); got.out != free {
		t.Errorf("the control, without Landlock:\n%s%s", got.out, got.errOut)
	}
}

// TestPathsOfTheContainersOwn: what is mounted in the container is beneath its
// root for Landlock too, and what has no path is not its business.
func TestPathsOfTheContainersOwn(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-ec", `
		mkdir /tmp/a /tmp/b; echo moved >/tmp/a/f; busybox mv /tmp/a/f /tmp/b/f; cat /tmp/b/f
		busybox ln /tmp/b/f /tmp/a/g; echo x >>/tmp/a/g; : >/tmp/a/g
		echo out >/dev/stdout; echo fd >/proc/self/fd/1; cat </dev/stdin
		echo x >/dev/null; echo x >/dev/shm/x; cat /proc/self/comm; echo 500 >/proc/self/oom_score_adj
		busybox mkfifo /tmp/p; (echo fifo >/tmp/p &); cat /tmp/p
		ls /proc/self/fd >/dev/null; ls /sys/class >/dev/null; cat /etc/hostname >/dev/null`)
	if got := r.run(p); got.out != "moved\nout\nfd\ncat\nfifo\n" || got.exit.Code != 0 {
		t.Errorf("exit %d: %q %q", got.exit.Code, got.out, got.errOut)
	}
}

// TestLookingIntoOthers: each start has a domain of its own, and looks into no
// process of another. What it takes to look after a container works, and with
// CAP_SYS_PTRACE, which there is to look into processes, there is no domain.
func TestLookingIntoOthers(t *testing.T) {
	needsLandlock(t, 2)
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100 & wait")
	c := r.inhabit(p)
	for script, want := range map[string]string{
		"cat /proc/1/comm":                                 "sh\n",
		"tr '\\0' ' ' </proc/1/cmdline | head -c 7":        "/bin/sh",
		"grep -c State /proc/1/status":                     "1\n",
		"kill -0 1 && echo signalled":                      "signalled\n",
		"busybox ps | grep -c 'sleep 10[0]'":               "2\n", // the shell's own command line has it too
		"busybox top -bn1 | grep -c 'sleep 10[0]'":         "2\n",
		"busybox pidof sleep | wc -w":                      "1\n",
		"kill -0 $(busybox pidof sleep) && echo signalled": "signalled\n",
	} {
		if got := c.sh(script + "; exit 0"); got != want {
			t.Errorf("%s: %q", script, got)
		}
	}
	// Another user's are hidden, but from the group of the first process.
	for _, o := range []struct {
		gid  uint32
		want string
	}{{5, "0\n"}, {0, "2\n"}} {
		e := c.execPlan("/bin/sh", "-c", "busybox ps | grep -c 'sleep 10[0]'")
		e.Process.UID, e.Process.GID = 5, o.gid
		if _, got, err := c.try(e); err != nil || got != o.want {
			t.Errorf("user 5 of group %d sees %q, %v", o.gid, got, err)
		}
	}
	if got := c.sh("for f in exe cwd root fd/0; do readlink /proc/1/$f; done; cat /proc/1/environ /proc/1/maps 2>/dev/null; exit 0"); got != "" {
		t.Errorf("without CAP_SYS_PTRACE: %q", got)
	}
	// Within one start nothing has changed.
	if got := c.sh("sleep 9 & readlink /proc/$!/cwd; kill $!"); got != "/\n" {
		t.Errorf("a child of its own: %q", got)
	}
	p = r.plan("/bin/sleep", "100")
	p.Process.Capabilities = []string{"CAP_SYS_PTRACE"}
	c = r.inhabit(p)
	if l := c.plan.Landlock; l.Paths || l.Missing != sandbox.LandlockPtrace {
		t.Errorf("%+v", l)
	}
	if got := c.sh("readlink /proc/1/exe; readlink /proc/1/cwd"); got != "/bin/busybox\n/\n" {
		t.Errorf("with CAP_SYS_PTRACE: %q", got)
	}
}

// TestAnotherKernel: a plan that says less of Landlock than this kernel has
// (or more) starts nothing.
func TestAnotherKernel(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/true").Landlocked(sandbox.LandlockABI()+1, false)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b := r.encode(p)
	proc, err := r.launcher.Launch(ctx, b, r.intend(p.Run, b), sandbox.Stdio{}, nil)
	r.clean(p)
	if err == nil {
		proc.Wait(ctx)
	}
	if err == nil || !strings.Contains(err.Error(), "version of Landlock") && !strings.Contains(err.Error(), "of Landlock, and the plan was made for") {
		t.Errorf("%v", err)
	}
}
