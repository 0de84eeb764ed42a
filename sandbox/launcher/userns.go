package launcher

/*
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

// The process shares this program's memory and does nothing but wait to be
// killed: it needs a stack of its own for one system call, and no more.
static char idle_stack[4096] __attribute__((aligned(16)));

static int idle(void *unused) {
	for (;;)
		syscall(SYS_ppoll, 0, 0, 0, 0, 0);
}

static int idle_in_user_namespace(void) {
	return clone(idle, idle_stack + sizeof idle_stack, CLONE_NEWUSER | CLONE_VM | SIGCHLD, 0);
}
*/
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// oneIdle guards the one stack there is.
var oneIdle sync.Mutex

// userNamespace returns a handle on a user namespace with the container's id
// map, for mounting the layers through it. A namespace needs a process to be
// born in: this one runs nothing, its namespace is opened, and it is killed.
// (Stopping one by ptrace would do too, but not under strace, by which the
// order of record and start is shown.)
func userNamespace(m sandbox.IDMap) (*os.File, error) {
	oneIdle.Lock()
	defer oneIdle.Unlock()
	n, err := C.idle_in_user_namespace()
	if n < 0 {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	pid := int(n)
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid)
	}()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	ids := fmt.Appendf(nil, "0 %d %d\n", m.Base, m.Size)
	for _, name := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(filepath.Join(dir, name), ids, 0); err != nil {
			return nil, fmt.Errorf("make user namespace: %w", err)
		}
	}
	f, err := os.Open(filepath.Join(dir, "ns/user"))
	if err != nil {
		return nil, fmt.Errorf("open user namespace: %w", err)
	}
	return f, nil
}

// wait reaps one child, however often a signal interrupts.
func wait(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if err != unix.EINTR {
			return status, err
		}
	}
}
