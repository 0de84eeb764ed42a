package verify

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// sealedMain runs in a process that the kernel kills at the first socket it
// asks for, so that nothing can be tried and forgotten.
func sealedMain(mode string) int {
	if err := forbidSockets(); err != nil {
		return fail(err)
	}
	if mode == "dial" {
		_, err := net.Dial("tcp", "127.0.0.1:9")
		return fail(fmt.Errorf("still alive after a dial: %w", err))
	}
	dir, err := os.MkdirTemp("", "sealed-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := signAndVerify(dir); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// signAndVerify goes through everything that could want to ask somebody:
// both formats, and each refusal.
func signAndVerify(dir string) error {
	ctx := context.Background()
	key, pub, err := GenerateKey(dir, nil)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(pub)
	if err != nil {
		return err
	}
	if _, err := TrustAdd(dir+"/trust", TrustRule{Glob: "**", KeyPEM: pem}); err != nil {
		return err
	}
	v, err := Open(dir + "/trust")
	if err != nil {
		return err
	}
	const other = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	s := Subject{Reference: "ghcr.io/team/app:1", Digests: []string{testDigest}}
	for _, format := range []string{KindCosign, KindBundle} {
		r := SignRequest{KeyPath: key, Reference: s.Reference, Digest: testDigest, Format: format}
		m, err := Sign(ctx, r)
		if err != nil {
			return err
		}
		e, err := v.Verify(ctx, s, []Material{m})
		if err != nil || !e.Verified() {
			return fmt.Errorf("%s: %w", format, err)
		}
		r.Digest = other
		wrong, err := Sign(ctx, r)
		if err != nil {
			return err
		}
		bad := m
		bad.Payload = []byte("{}")
		for _, m := range []Material{wrong, bad, {}} {
			if e, err := v.Verify(ctx, s, []Material{m}); e.Verified() || fault.ClassOf(err) != fault.Unverified {
				return fmt.Errorf("%s: %+v %w", format, e, err)
			}
		}
	}
	return nil
}

// forbidSockets installs a filter on every thread: socket, socketpair and
// connect kill the process, all else is allowed.
func forbidSockets() error {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	jump := func(nr uint32, toKill uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: toKill}
	}
	ret := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	prog := []unix.SockFilter{
		load(0), // the system call's number; the test process has one ABI
		jump(unix.SYS_SOCKET, 3), jump(unix.SYS_SOCKETPAIR, 2), jump(unix.SYS_CONNECT, 1),
		ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_KILL_PROCESS),
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&p))); errno != 0 {
		return errno
	}
	return nil
}

func TestVerifyOpensNoSocket(t *testing.T) {
	run := func(mode string) (*os.ProcessState, string) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "WARD_TEST_SEALED="+mode)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState, string(out)
	}
	// The control: the same process dies of a dial.
	st, out := run("dial")
	if ws, ok := st.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGSYS {
		t.Fatalf("a dial was not stopped: %v %s", st, out)
	}
	if st, out := run("verify"); !st.Success() {
		t.Fatalf("%v: %s", st, strings.TrimSpace(out))
	}
}
