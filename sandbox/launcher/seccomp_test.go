package launcher_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/sandbox"
)

// TestSeccomp runs a prober in a container and compares every answer.
func TestSeccomp(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the prober knows the numbers of amd64")
	}
	r := newRig(t)
	r.prober()
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
		"ioctl(TIOCSTI)": eperm, "ioctl(TIOCSTI), high bits": eperm, "ioctl(TIOCLINUX)": eperm, "ioctl(TIOCSETD)": eperm,
		"ioctl(TCGETS)": ebadf, "uselib": enosys, "no such call": enosys, "getpid": ok,
	}
	// What the report must say: exactly what was refused, but for clone3, which
	// every program tries.
	denials := map[string]uint64{
		"unshare": 1, "clone": 2, "setns": 1, "mount": 1, "umount2": 1, "pivot_root": 1, "chroot": 1, "fsopen": 1, "open_tree": 1,
		"move_mount": 1, "mount_setattr": 1, "socket": 4, "keyctl": 1, "add_key": 1, "bpf": 1, "io_uring_setup": 1,
		"userfaultfd": 1, "perf_event_open": 1, "open_by_handle_at": 1, "fanotify_init": 1, "init_module": 1, "kexec_load": 1,
		"reboot": 1, "syslog": 1, "settimeofday": 1, "sethostname": 1, "iopl": 1, "quotactl": 1, "personality": 1, "uselib": 1,
		"ioctl": 4, "syscall_4000": 1,
	}
	p := r.plan("/bin/prober")
	began := time.Now()
	res := r.run(p)
	for _, s := range res.exit.DeniedSyscalls {
		if s.First.Before(began.Add(-time.Second)) || s.Last.Before(s.First) || s.Last.After(time.Now()) {
			t.Errorf("%s: from %v to %v", s.Name, s.First, s.Last)
		}
	}
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
	reported(t, res.exit, denials)
	r.recorded(t, p.Run, denials)
}

func (r *rig) prober() {
	r.t.Helper()
	build := exec.Command("go", "build", "-o", filepath.Join(r.layer, "bin/prober"), "./testdata/prober")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatalf("build prober: %v\n%s", err, out)
	}
}

// TestStormIsCountedExactly: signals neither make a call count twice nor
// change its answer, and a payload that asks too often waits.
func TestStormIsCountedExactly(t *testing.T) {
	r := newRig(t)
	r.prober()
	const calls = 6000
	p := r.plan("/bin/prober", "storm", fmt.Sprint(calls))
	res := r.run(p)
	answers, took, _ := strings.Cut(strings.TrimSpace(res.out), "] ")
	if want := fmt.Sprintf("map[operation not permitted:%d", calls); answers != want {
		t.Errorf("answers %q, not %q", answers, want)
	}
	// Of these, 4000 are answered at once and the rest at 2000 a second.
	if ms, err := strconv.Atoi(took); err != nil || ms < 900 {
		t.Errorf("it took %q ms: nothing slows it down", took)
	}
	reported(t, res.exit, map[string]uint64{"pivot_root": calls})
}

func reported(t *testing.T, exit sandbox.Exit, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	for _, s := range exit.DeniedSyscalls {
		got[s.Name] = s.Count
	}
	if !maps.Equal(got, want) {
		t.Errorf("reported as denied: %v, not %v", got, want)
	}
}

// recorded compares the denied calls of a run's record in the audit log.
func (r *rig) recorded(t *testing.T, run string, want map[string]uint64) {
	t.Helper()
	var all []audit.DeniedSyscalls
	err := audit.Read(r.auditDir(), 0, func(e audit.Entry) error {
		if e.Run != run || e.Type != audit.RunDeniedSyscalls {
			return nil
		}
		var d audit.DeniedSyscalls
		err := json.Unmarshal(e.Data, &d)
		all = append(all, d)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, d := range all {
		for _, s := range d.Syscalls {
			got[s.Name] = s.Count
		}
	}
	if !maps.Equal(got, want) || len(all) > 1 {
		t.Errorf("on record: %v, not %v", got, want)
	}
}
