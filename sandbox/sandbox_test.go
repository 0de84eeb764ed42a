package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// good is a plan at the floor; tests spoil one thing at a time.
func good() sandbox.Plan {
	return sandbox.Plan{
		Version:   sandbox.PlanVersion,
		Build:     sandbox.Build,
		Container: strings.Repeat("ab", 32), Run: strings.Repeat("ab", 32), Start: 1,
		Name:     "quiet_otter",
		Hostname: "quiet",
		Image:    sandbox.Image{Reference: "example.test/a:1", Digest: "sha256:" + strings.Repeat("0", 64)},
		Process: sandbox.Process{
			Args: []string{"/bin/true"}, Env: []string{"PATH=/bin", "EMPTY="}, Cwd: "/",
			NoNewPrivs: true, Rlimits: sandbox.DefaultRlimits(),
		},
		Root: sandbox.Root{Layers: []sandbox.Layer{{
			DiffID: "sha256:" + strings.Repeat("1", 64), Path: "/var/lib/ward/images/layers/1"}}},
		IDMap:         sandbox.IDMap{Base: 100000, Size: sandbox.IDRange},
		Network:       sandbox.NetworkNone,
		Limits:        sandbox.DefaultLimits(),
		Seccomp:       sandbox.DefaultSeccomp(),
		MaskedPaths:   sandbox.MaskedPaths(),
		ReadonlyPaths: sandbox.ReadonlyPaths(),
		Host: sandbox.Host{ContainerDir: "/var/lib/ward/containers/x", RuntimeDir: "/run/ward/c/x",
			AuditDir: "/var/lib/ward/audit", VolumeDir: "/var/lib/ward/volumes", Keep: []string{"/etc/ward", "/run/ward", "/var/lib/ward"}},
	}.Landlocked(7, false)
}

func TestPlanHasOneEncoding(t *testing.T) {
	b, err := good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	p, err := sandbox.DecodePlan(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Encode()
	if err != nil || !bytes.Equal(b, again) {
		t.Fatalf("decoding and encoding again changed the bytes: %v\n%s\n%s", err, b, again)
	}
	empty := good()
	empty.Mounts = []sandbox.Mount{}
	if b2, _ := empty.Encode(); !bytes.Equal(b, b2) {
		t.Error("nil and empty lists are encoded differently")
	}
	s := string(b)
	for name, bad := range map[string]string{
		"unknown field":   strings.Replace(s, `{"version"`, `{"extra":1,"version"`, 1),
		"repeated field":  strings.Replace(s, `"no_new_privs":true`, `"no_new_privs":false,"no_new_privs":true`, 1),
		"other case":      strings.Replace(s, `"no_new_privs"`, `"No_New_Privs"`, 1),
		"missing field":   strings.Replace(s, `,"stdin":false`, ``, 1),
		"white space":     strings.Replace(s, `,"name"`, `, "name"`, 1),
		"trailing bytes":  s + " ",
		"second document": s + s,
		"null list":       strings.Replace(s, `"mounts":[]`, `"mounts":null`, 1),
		"escaped letter":  strings.Replace(s, `quiet_otter`, `\u0071uiet_otter`, 1),
		"other version":   strings.Replace(s, fmt.Sprintf(`"version":%d`, sandbox.PlanVersion), `"version":99`, 1),
		"empty":           "",
		"too long":        s[:len(s)-1] + strings.Repeat(" ", sandbox.MaxPlan) + "}",
	} {
		if bad == s {
			t.Fatalf("%s: the test changed nothing", name)
		}
		if _, err := sandbox.DecodePlan([]byte(bad)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncodeNeverChangesText(t *testing.T) {
	p := good()
	p.Process.Args = []string{"/bin/echo", "a\xffb"}
	if b, err := p.Encode(); !errors.Is(err, fault.Invalid) {
		t.Fatalf("an argument that is not UTF-8 became %s (%v)", b, err)
	}
	p.Process.Args = []string{"/bin/echo", "<&>\u2028é\x01"}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := sandbox.DecodePlan(b)
	if err != nil || back.Process.Args[1] != p.Process.Args[1] {
		t.Fatalf("%q %v", back.Process.Args, err)
	}
	p.Process.Env = []string{"A=" + strings.Repeat("x", sandbox.MaxPlan)}
	if _, err := p.Encode(); !errors.Is(err, fault.Invalid) {
		t.Fatalf("an over-long plan was encoded: %v", err)
	}
}

func FuzzDecodePlan(f *testing.F) {
	b, err := good().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Add(bytes.Replace(b, []byte("quiet"), []byte("\xff"), 1))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := sandbox.DecodePlan(in)
		if err != nil {
			return
		}
		out, err := p.Encode()
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("accepted %q, which encodes as %q (%v)", in, out, err)
		}
		_ = sandbox.DefaultFloor().Check(p)
	})
}
