package launcher_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ociPlan is a plan for a container of ward-oci that sleeps; change may change
// its specification.
func (r *rig) ociPlan(change func(spec map[string]any)) sandbox.OCIPlan {
	r.t.Helper()
	run := r.plan("x").Run
	id := "ward-test-" + run[:12]
	type m = map[string]any
	var namespaces []m
	for _, n := range []string{"pid", "mount", "ipc", "uts", "network"} {
		namespaces = append(namespaces, m{"type": n})
	}
	spec := m{
		"ociVersion": "1.0.2", "root": m{"path": r.layer},
		"process": m{"args": []string{"/bin/sleep", "60"}, "cwd": "/", "env": []string{"PATH=/bin"}, "user": m{"uid": 0, "gid": 0}},
		"mounts":  []m{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":   m{"namespaces": namespaces, "cgroupsPath": "/" + id},
	}
	if change != nil {
		change(spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	p := sandbox.OCIPlan{
		Version: sandbox.OCIPlanVersion, Build: sandbox.Build, Op: sandbox.OCICreate, Run: run, ID: id,
		StateDir: filepath.Join(r.dir, "oci", id), Bundle: r.dir, Rootfs: r.layer, Sources: []string{""}, Spec: string(text),
		AuditDir: r.auditDir(), Keep: []string{r.auditDir()},
	}
	if err := os.MkdirAll(p.StateDir, 0o711); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// ociReceipt puts the intent of exactly this plan on record.
func (r *rig) ociReceipt(p sandbox.OCIPlan) ([]byte, receipt.Receipt) {
	r.t.Helper()
	b, err := p.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	permit, err := r.log.Intend(r.t.Context(), audit.Intent{Type: audit.OCIIntent, Run: p.Run, Exec: p.Exec, Plan: sandbox.Digest(b), Actor: audit.Caller()})
	if err != nil {
		r.t.Fatal(err)
	}
	return b, permit.Receipt()
}

// ociLaunch does what an encoded plan says, and has a container removed at the
// end of the test.
func (r *rig) ociLaunch(p sandbox.OCIPlan, plan []byte, proof receipt.Receipt) (int, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if p.Op == sandbox.OCICreate {
		r.t.Cleanup(func() {
			req := sandbox.OCIRequest{Op: sandbox.OCIDelete, Root: filepath.Dir(p.StateDir), ID: p.ID, Force: true}
			if err := r.launcher.Operate(context.Background(), req, sandbox.OCIFiles{}); err != nil && fault.As(err).Class != fault.NotFound {
				r.t.Error(err)
			}
		})
	}
	return r.launcher.LaunchOCI(ctx, plan, proof, sandbox.OCIFiles{}, nil)
}

// TestOCIReceiptServesOnce: the receipt of a process that was added to a
// container of ward-oci does not add another.
func TestOCIReceiptServesOnce(t *testing.T) {
	r := newRig(t)
	p := r.ociPlan(nil)
	plan, proof := r.ociReceipt(p)
	if _, err := r.ociLaunch(p, plan, proof); err != nil {
		t.Fatal(err)
	}
	added := p
	added.Op, added.Exec = sandbox.OCIExec, r.plan("x").Run
	added.Spec = `{"args": ["/bin/sleep", "60"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}`
	plan, proof = r.ociReceipt(added)
	pid, err := r.ociLaunch(added, plan, proof)
	if err != nil || !running(pid) {
		t.Fatal(pid, err)
	}
	if pid, err := r.ociLaunch(added, plan, proof); err == nil || fault.As(err).Rule != "launch.receipt" {
		t.Errorf("the receipt served again: process %d, %v", pid, err)
	}
	// Nor when what it started has ended.
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process ends", func() bool { return !running(pid) })
	if pid, err := r.ociLaunch(added, plan, proof); err == nil || fault.As(err).Rule != "launch.receipt" {
		t.Errorf("the receipt served again: process %d, %v", pid, err)
	}
	// Another one does.
	added.Exec = r.plan("x").Run
	plan, proof = r.ociReceipt(added)
	if _, err := r.ociLaunch(added, plan, proof); err != nil {
		t.Error(err)
	}
}

// TestOCISystemdCgroup: where systemd does not run it is said to be missing.
func TestOCISystemdCgroup(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("needs a host without systemd")
	}
	r := newRig(t)
	p := r.ociPlan(func(spec map[string]any) { spec["linux"].(map[string]any)["cgroupsPath"] = "system.slice:ward-test:x" })
	p.SystemdCgroup = true
	plan, proof := r.ociReceipt(p)
	_, err := r.ociLaunch(p, plan, proof)
	if f := fault.As(err); err == nil || f.Rule != "oci.systemd-cgroup" || f.Remedy == "" {
		t.Errorf("%v", err)
	}
}
