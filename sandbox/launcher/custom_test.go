package launcher_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// custom is the default profile's rules with changes, as a plan carries them.
func custom(change ...sandbox.SeccompRule) sandbox.Seccomp {
	p := profile.Default()
	s := sandbox.Seccomp{Profile: sandbox.SeccompCustom, Errno: p.DefaultErrno}
	for _, r := range p.Rules {
		rule := sandbox.SeccompRule{Names: r.Names, Action: string(r.Action), Errno: r.Errno}
		for _, a := range r.Args {
			rule.Args = append(rule.Args, sandbox.SeccompArg{Index: a.Index, Op: string(a.Op), Value: a.Value, Mask: a.Mask})
		}
		s.Rules = append(s.Rules, rule)
	}
	s.Rules = append(s.Rules, change...)
	s.Digest = s.CustomDigest()
	return s
}

// TestCustomFilter: a narrower filter is in force, with its own error numbers
// and conditions, and is reported like the default one.
func TestCustomFilter(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "mkdir /tmp/a 2>&1; chmod 700 /etc/hostname 2>&1; chmod 111 /tmp 2>&1; echo on")
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountTmpfs, Target: "/tmp", Size: 1 << 20, Mode: 0o1777}}
	p.Seccomp = custom(
		sandbox.SeccompRule{Names: []string{"mkdir", "mkdirat"}, Action: "errno", Errno: 28},
		sandbox.SeccompRule{Names: []string{"chmod"}, Action: "errno", Errno: 4, Args: []sandbox.SeccompArg{{Index: 1, Op: "==", Value: 0o111}}},
	)
	res := r.run(p)
	want := []string{"No space left on device", "Read-only file system", "Interrupted system call", "on"}
	lines := strings.Split(strings.TrimSpace(res.out), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%q", res.out)
	}
	for i, w := range want {
		if !strings.HasSuffix(lines[i], w) {
			t.Errorf("%q, want %q", lines[i], w)
		}
	}
	reported(t, res.exit, map[string]uint64{"mkdir": 1, "chmod": 1})
}

// TestBeyondWithPolicy: what the plan says policy let through is allowed.
func TestBeyondWithPolicy(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "exit 3")
	p.Seccomp = custom(sandbox.SeccompRule{Names: []string{"io_uring_setup"}, Action: "allow"})
	p.Seccomp.Beyond = []string{"io_uring_setup"}
	if res := r.run(p); res.exit.Code != 3 {
		t.Errorf("%+v", res.exit)
	}
}

// TestCustomFilterIsProvedAnew: the launcher takes nobody's word for it.
func TestCustomFilterIsProvedAnew(t *testing.T) {
	r := newRig(t)
	one := func(name string) sandbox.SeccompRule {
		return sandbox.SeccompRule{Names: []string{name}, Action: "allow"}
	}
	without := func(name string) sandbox.Seccomp {
		s := custom()
		for i := range s.Rules {
			s.Rules[i].Names = slices.DeleteFunc(slices.Clone(s.Rules[i].Names), func(n string) bool { return n == name })
		}
		s.Digest = s.CustomDigest()
		return s
	}
	beyond := func(s sandbox.Seccomp, names ...string) sandbox.Seccomp { s.Beyond = names; return s }
	for name, s := range map[string]sandbox.Seccomp{
		"unlisted call":        custom(one("io_uring_setup")),
		"unlisted, other said": beyond(custom(one("io_uring_setup")), "bpf"),
		"socket of any family": custom(one("socket")),
		"never":                beyond(custom(one("open_tree_attr")), "open_tree_attr"),
		"no write":             without("write"),
		"no execve":            without("execve"),
		"unknown action":       custom(sandbox.SeccompRule{Names: []string{"read"}, Action: "log"}),
		"seventh argument":     custom(sandbox.SeccompRule{Names: []string{"read"}, Action: "allow", Args: []sandbox.SeccompArg{{Index: 6, Op: "=="}}}),
		"no error number":      func() sandbox.Seccomp { s := custom(); s.Errno = 0; s.Digest = s.CustomDigest(); return s }(),
		"other digest":         func() sandbox.Seccomp { s := custom(); s.Digest = sandbox.SeccompDigest; return s }(),
		"unsorted":             beyond(custom(), "b", "a"),
	} {
		p := r.plan("/bin/true")
		p.Seccomp = s
		_, err := r.launch(p, sandbox.Stdio{})
		if !errors.Is(err, fault.Denied) || fault.As(err).Rule != "floor.seccomp" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
