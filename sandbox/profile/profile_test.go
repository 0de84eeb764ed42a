package profile_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// TestFloorNamesThisProfile holds the floor and the annotated data together:
// changing one alone is an error on purpose.
func TestFloorNamesThisProfile(t *testing.T) {
	if sandbox.SeccompProfile != profile.Name || sandbox.SeccompDigest != profile.Digest() {
		t.Errorf("sandbox.SeccompDigest = %q, the profile's is %q", sandbox.SeccompDigest, profile.Digest())
	}
	paths := func(ps []profile.Path) (out []string) {
		for _, p := range ps {
			out = append(out, p.Path)
		}
		return out
	}
	if got := paths(profile.MaskedPaths()); !slices.Equal(got, sandbox.MaskedPaths()) {
		t.Errorf("masked paths: floor %v, profile %v", sandbox.MaskedPaths(), got)
	}
	if got := paths(profile.ReadonlyPaths()); !slices.Equal(got, sandbox.ReadonlyPaths()) {
		t.Errorf("read-only paths: floor %v, profile %v", sandbox.ReadonlyPaths(), got)
	}
}

func TestEveryEntryHasAReason(t *testing.T) {
	for _, r := range profile.Default().Rules {
		if r.Why == "" || len(r.Names) == 0 {
			t.Errorf("%v: no reason or no calls", r)
		}
		if (r.Action == profile.Refuse) != (r.Errno != 0) {
			t.Errorf("%v: a refusal needs an error number, and only a refusal", r.Names)
		}
	}
	for _, p := range append(profile.MaskedPaths(), profile.ReadonlyPaths()...) {
		if p.Why == "" {
			t.Errorf("%s: no reason", p.Path)
		}
	}
}

// TestNoCallTwice keeps one call from being allowed and refused without
// conditions, where the filter's answer would depend on the order.
func TestNoCallTwice(t *testing.T) {
	bare := map[string]string{}
	for _, r := range profile.Default().Rules {
		for _, n := range r.Names {
			// A refusal with a condition wins over an allowance, in any order.
			if was, ok := bare[n]; ok && (r.Action == profile.Allow || len(r.Args) == 0) {
				t.Errorf("%s: in %q and in %q", n, was, r.Why)
			}
			if len(r.Args) == 0 {
				bare[n] = r.Why
			}
		}
	}
}

// TestNeverAllowed names the calls whose presence in an allow rule would be a
// hole; see docs of each rule for the reasons.
func TestNeverAllowed(t *testing.T) {
	never := strings.Fields(`io_uring_setup io_uring_enter io_uring_register unshare setns clone3 mount umount2 pivot_root
		chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr keyctl add_key request_key bpf
		perf_event_open userfaultfd open_by_handle_at init_module finit_module delete_module kexec_load kexec_file_load
		reboot swapon swapoff settimeofday clock_settime iopl ioperm syslog acct quotactl lookup_dcookie nfsservctl
		uselib ustat sysfs _sysctl get_kernel_syms create_module query_module socketcall ipc`)
	for _, r := range profile.Default().Rules {
		for _, n := range r.Names {
			if r.Action == profile.Allow && slices.Contains(never, n) {
				t.Errorf("%s is allowed: %s", n, r.Why)
			}
			if r.Action == profile.Allow && slices.Contains([]string{"clone", "socket", "personality"}, n) && len(r.Args) == 0 {
				t.Errorf("%s is allowed without conditions", n)
			}
		}
	}
	if runtime.GOARCH == "amd64" && len(profile.Default().Rules) < 40 {
		t.Error("the profile is nearly empty")
	}
}
