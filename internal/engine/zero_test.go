package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// The zero value of everything that carries a proof must mean no. Each test
// replaces one part of an engine that would otherwise let the run in by one
// that answers with the zero value and no error, as a forgotten return would.

const testImage = "registry.example/team/app:1"

// rig is an engine over real parts; only the launcher counts instead of
// launching.
type rig struct {
	cfg      Config
	log      *audit.Log
	launches int
}

func (r *rig) Launch(_ context.Context, plan []byte, rc receipt.Receipt, _ sandbox.Stdio, _ *os.File) (*sandbox.Running, error) {
	// What the real launcher's client checks first; it needs no privilege.
	s, err := rc.Verify(r.log.VKey())
	if err != nil || s.Plan != sandbox.Digest(plan) {
		return nil, fault.New(fault.Unrecorded, "launch.no-receipt", "no receipt for this plan", "")
	}
	r.launches++
	return &sandbox.Running{}, nil
}

func (r *rig) Exec(_ context.Context, _, _ []byte, _ receipt.Receipt, _ sandbox.Stdio) (*sandbox.Running, error) {
	return nil, fault.New(fault.Internal, "test", "nothing runs in here", "")
}

func (r *rig) Files(_ context.Context, _ string, _ sandbox.FilesRequest) (*sandbox.Files, error) {
	return nil, fault.New(fault.Internal, "test", "nothing runs in here", "")
}

func (r *rig) StoppedFiles(context.Context, []byte, receipt.Receipt, *os.File, sandbox.FilesRequest) (*sandbox.Files, error) {
	return nil, fault.New(fault.Internal, "test", "nothing runs in here", "")
}

func newRig(t *testing.T) *rig {
	t.Helper()
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.Lib, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := audit.Create(audit.Config{Dir: l.Audit(), Host: "test"}); err != nil {
		t.Fatal(err)
	}
	r := &rig{}
	if r.log, err = audit.Open(l.Audit()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.log.Close() })
	store, err := images.Open(images.Config{Dir: l.Images()})
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Import(t.Context(), rootfs(t), testImage, images.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key, pem := keyPair(t)
	if _, err := verify.TrustAdd(l.Trust(), verify.TrustRule{Glob: "registry.example/**", KeyPEM: pem}); err != nil {
		t.Fatal(err)
	}
	m, err := verify.Sign(t.Context(), verify.SignRequest{KeyPath: key, Reference: img.Reference, Digest: img.Digest, Format: verify.KindCosign})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Attach(t.Context(), images.Attachment(m)); err != nil {
		t.Fatal(err)
	}
	r.cfg = Config{Layout: l, Resolver: store, Rootfs: store, Verifier: TrustDir(l.Trust()), Decider: PolicyDir(l.Policy()),
		Log: r.log, Launcher: r, Floor: sandbox.DefaultFloor()}
	return r
}

// Deriving the key that encrypts a private key takes a second, on purpose:
// one pair serves all tests.
var pair = sync.OnceValues(func() ([2][]byte, error) {
	var out [2][]byte
	dir, err := os.MkdirTemp("", "ward-engine-test-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(dir)
	key, pub, err := verify.GenerateKey(dir, nil)
	if err != nil {
		return out, err
	}
	if out[0], err = os.ReadFile(key); err == nil {
		out[1], err = os.ReadFile(pub)
	}
	return out, err
})

func keyPair(t *testing.T) (key string, pub []byte) {
	t.Helper()
	p, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	key = filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(key, p[0], 0o600); err != nil {
		t.Fatal(err)
	}
	return key, p[1]
}

func rootfs(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/app", Typeflag: tar.TypeReg, Mode: 0o755},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func (r *rig) run(t *testing.T) error {
	t.Helper()
	e, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Run(t.Context(), Request{Actor: audit.Caller(), Image: testImage, Args: []string{"/bin/app"}}, Stdio{})
	return err
}

// refused runs and wants exactly one refusal of this class: nothing launched,
// no container left, one denial on record.
func (r *rig) refused(t *testing.T, want fault.Class) {
	t.Helper()
	err := r.run(t)
	if r.launches != 0 {
		t.Fatal("it was launched")
	}
	if !errors.Is(err, want) {
		t.Fatalf("got %v (%v), want %v", err, fault.ClassOf(err), want)
	}
	left, err := filepath.Glob(r.cfg.Layout.container("*"))
	if err != nil || len(left) != 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
	denials := 0
	err = audit.Read(r.cfg.Layout.Audit(), 0, func(e audit.Entry) error {
		if e.Type == audit.RunDenied {
			denials++
		}
		return nil
	})
	if err != nil || denials != 1 {
		t.Fatalf("%d denials on record (%v), want 1", denials, err)
	}
}

// Without this one the others could pass for the wrong reason.
func TestTheRigLaunches(t *testing.T) {
	r := newRig(t)
	if err := r.run(t); err != nil || r.launches != 1 {
		t.Fatalf("launches %d, %v", r.launches, err)
	}
}

type noEvidence struct{}

func (noEvidence) Verify(context.Context, verify.Subject, []verify.Material) (verify.Evidence, error) {
	return verify.Evidence{}, nil
}

func TestZeroEvidenceNeverLaunches(t *testing.T) {
	r := newRig(t)
	r.cfg.Verifier = noEvidence{}
	r.refused(t, fault.Unverified)
}

type noDecision struct{}

func (noDecision) Decide(context.Context, policy.Input) (policy.Decision, error) {
	return policy.Decision{}, nil
}

func TestZeroDecisionNeverLaunches(t *testing.T) {
	r := newRig(t)
	r.cfg.Decider = noDecision{}
	r.refused(t, fault.Denied)
}

// noPermit records like the log but hands out the zero Permit.
type noPermit struct{ *audit.Log }

func (noPermit) Intend(context.Context, audit.Intent) (audit.Permit, error) {
	return audit.Permit{}, nil
}

func TestZeroReceiptNeverLaunches(t *testing.T) {
	r := newRig(t)
	r.cfg.Log = noPermit{r.log}
	r.refused(t, fault.Unrecorded)
}

func TestZeroFloorNeverLaunches(t *testing.T) {
	r := newRig(t)
	r.cfg.Floor = sandbox.Floor{}
	r.refused(t, fault.Denied)
}

func TestZeroPlanNeverLaunches(t *testing.T) {
	var p sandbox.Plan
	if err := sandbox.DefaultFloor().Check(p); !errors.Is(err, fault.Denied) {
		t.Fatalf("the zero plan is above the floor: %v", err)
	}
	if b, err := p.Encode(); err == nil {
		if _, err = sandbox.DecodePlan(b); err == nil && sandbox.DefaultFloor().Check(p) == nil {
			t.Fatal("the zero plan goes through")
		}
	}
}

// deadLog cannot record anything any more.
type deadLog struct{}

func (deadLog) Intend(context.Context, audit.Intent) (audit.Permit, error) {
	return audit.Permit{}, audit.ErrFull
}
func (deadLog) Prove(context.Context, audit.Record) (audit.Permit, error) {
	return audit.Permit{}, audit.ErrFull
}
func (deadLog) Append(context.Context, ...audit.Record) error { return audit.ErrFull }

func TestNothingRunsUnrecorded(t *testing.T) {
	r := newRig(t)
	r.cfg.Log = deadLog{}
	if err := r.run(t); !errors.Is(err, fault.Unrecorded) || r.launches != 0 {
		t.Fatalf("launches %d, %v", r.launches, err)
	}
}

func TestAMissingPartIsNoEngine(t *testing.T) {
	r := newRig(t)
	for name, drop := range map[string]func(*Config){
		"layout": func(c *Config) { c.Layout = Layout{} }, "resolver": func(c *Config) { c.Resolver = nil },
		"rootfs": func(c *Config) { c.Rootfs = nil }, "verifier": func(c *Config) { c.Verifier = nil },
		"decider": func(c *Config) { c.Decider = nil }, "log": func(c *Config) { c.Log = nil }, "launcher": func(c *Config) { c.Launcher = nil },
	} {
		c := r.cfg
		drop(&c)
		if _, err := New(c); err == nil {
			t.Errorf("an engine without %s was made", name)
		}
	}
}
