package launcher_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestSeccomp runs a prober in a container and compares every answer.
func TestSeccomp(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the prober knows the numbers of amd64")
	}
	r := newRig(t)
	build := exec.Command("go", "build", "-o", filepath.Join(r.layer, "bin/prober"), "./testdata/prober")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build prober: %v\n%s", err, out)
	}
	const (
		ok, eperm, ebadf, enosys, eafnosupport = "0", "1", "9", "38", "97"
	)
	want := map[string]string{
		"unshare(NEWUSER)": eperm, "clone(NEWUSER)": eperm, "clone(NEWNS)": enosys, "clone3": enosys, "setns": eperm,
		"mount": eperm, "umount2": eperm, "pivot_root": eperm, "chroot": eperm, "fsopen": eperm, "open_tree": eperm,
		"move_mount": eperm, "mount_setattr": eperm,
		"socket(AF_ALG)": eafnosupport, "socket(AF_VSOCK)": eafnosupport, "socket(AF_PACKET)": eafnosupport,
		"socket(AF_KEY)": enosys, "socket(AF_UNIX)": ok, "socket(AF_INET)": ok, "socket(AF_INET,RAW)": eperm,
		"keyctl": eperm, "add_key": eperm, "bpf": eperm, "io_uring_setup": enosys, "userfaultfd": eperm,
		"perf_event_open": eperm, "open_by_handle_at": eperm, "fanotify_init": eperm, "init_module": eperm,
		"kexec_load": eperm, "reboot": eperm, "syslog": eperm, "settimeofday": eperm, "sethostname": eperm, "iopl": eperm,
		"quotactl": eperm, "personality(ADDR_NO_RANDOMIZE)": enosys, "personality(query)": ok, "vmsplice of 1023": ebadf,
		"uselib": enosys, "no such call": enosys, "getpid": ok,
	}
	res := r.run(r.plan("/bin/prober"))
	for line := range strings.Lines(res.out) {
		name, got, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if want[name] != got {
			t.Errorf("%s returned %s, not %s", name, got, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not tried: %v (exit %+v)", want, res.exit)
	}
}
