package launcher_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// connector connects to the abstract socket it is given the name of; with
// "own" it first listens there itself.
const connector = `
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path + 1, argv[1], 90);
	socklen_t n = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[1]);
	int l = socket(AF_UNIX, SOCK_STREAM, 0), s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (argc > 2 && (bind(l, (void *)&a, n) || listen(l, 1)))
		return perror("listen"), 2;
	if (connect(s, (void *)&a, n))
		return printf("%m\n"), 1;
	return puts("connected"), 0;
}
`

// TestAbstractSockets: on the host's network the abstract sockets of its
// daemons are out of reach, for the first process and for later ones; the
// container's own work.
func TestAbstractSockets(t *testing.T) {
	r := newRig(t)
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1); errno != 0 || abi < 6 {
		t.Skipf("needs Landlock's ABI 6: %d, %v", abi, errno)
	}
	source := filepath.Join(r.dir, "connector.c")
	if err := os.WriteFile(source, []byte(connector), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(r.layer, "bin/connector")
	if out, err := exec.Command("gcc", "-static", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	name := fmt.Sprintf("ward-test-%d", os.Getpid())
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if out, err := exec.Command(program, name).CombinedOutput(); err != nil || string(out) != "connected\n" {
		t.Fatalf("the control: %q, %v", out, err)
	}
	p := r.plan("/bin/sh", "-c", "connector "+name+"; connector "+name+"-own own")
	p.Network = sandbox.NetworkHost
	const want = "Operation not permitted\nconnected\n"
	if out := r.run(p).out; out != want {
		t.Errorf("the first process: %q", out)
	}
	p = r.plan("/bin/sleep", "100")
	p.Network = sandbox.NetworkHost
	c := r.inhabit(p)
	if out := c.sh("connector " + name + "; connector " + name + "-own own"); !strings.HasPrefix(out, want) {
		t.Errorf("a later process: %q", out)
	}
}
