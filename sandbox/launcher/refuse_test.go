package launcher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// raw starts ward-launch as the client does but with any bytes and
// descriptors, and returns its messages.
type raw struct {
	plan, receipt []byte
	seals         int
	flags         uintptr
	notMemfd      bool
}

func (r *rig) raw(x raw) (messages string) {
	r.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer null.Close()
	plan, proof := r.memory(x, x.plan), r.memory(x, x.receipt)
	defer plan.Close()
	defer proof.Close()
	proc, err := os.StartProcess(program, []string{"ward-launch"}, &os.ProcAttr{
		Env: []string{}, Files: []*os.File{null, null, os.Stderr, plan, proof, theirs, null, null, null, null},
		Sys: &syscall.SysProcAttr{Cloneflags: x.flags, Setsid: true},
	})
	theirs.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { proc.Kill() })
	defer timer.Stop()
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, err := ours.Read(buf)
		if n == 0 || err != nil {
			break
		}
		all.Write(buf[:n])
		all.WriteByte('\n')
		if bytes.Contains(buf[:n], []byte(`"started"`)) {
			proc.Kill()
		}
	}
	proc.Wait()
	return all.String()
}

func (r *rig) memory(x raw, content []byte) *os.File {
	r.t.Helper()
	if x.notMemfd {
		name := filepath.Join(r.t.TempDir(), "plain")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			r.t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			r.t.Fatal(err)
		}
		return f
	}
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		r.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	if _, err := f.WriteAt(content, 0); err != nil {
		r.t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, x.seals); err != nil {
		r.t.Fatal(err)
	}
	return f
}

const both = unix.CLONE_NEWPID | unix.CLONE_NEWNS

// TestLauncherChecksForItself hands ward-launch what a broken or hostile gate
// could, and sees every one refused before anything exists.
func TestLauncherChecksForItself(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/true")
	plan := r.encode(p)
	proof := r.intend(p.Run, plan).Bytes()
	ok := raw{plan: plan, receipt: proof, seals: sandbox.Seals, flags: both}
	// The same way of starting does start: the refusals below mean something.
	if got := r.raw(ok); !strings.Contains(got, `"ready"`) || !strings.Contains(got, `"started"`) {
		t.Fatalf("an untouched start said %s", got)
	}
	r.removeCgroups(p)
	os.RemoveAll(p.Host.RuntimeDir)
	os.Remove(filepath.Join(p.Host.ContainerDir, sandbox.OutputFile(1)))

	with := func(do func(x *raw)) raw { x := ok; do(&x); return x }
	change := func(do func(p *sandbox.Plan)) raw {
		q := p
		do(&q)
		b := r.encode(q)
		return with(func(x *raw) { x.plan = b })
	}
	// reproved also has a valid receipt for the changed plan: only the
	// launcher's own checks are left.
	reproved := func(do func(p *sandbox.Plan)) raw {
		x := change(do)
		x.receipt = r.intend(p.Run, x.plan).Bytes()
		return x
	}
	other := r.plan("/bin/true")
	otherPlan := r.encode(other)
	for _, c := range []struct {
		name, rule string
		x          raw
	}{
		{"other arguments", "launch.receipt", change(func(p *sandbox.Plan) { p.Process.Args = []string{"/bin/false"} })},
		{"other layer", "launch.receipt", change(func(p *sandbox.Plan) { p.Root.Layers[0].Path = r.busybox("evil") })},
		{"other run", "launch.receipt", change(func(p *sandbox.Plan) { p.Run = other.Run })},
		{"other plan's receipt", "launch.receipt", with(func(x *raw) { x.receipt = r.intend(other.Run, otherPlan).Bytes() })},
		{"same plan, other run in the record", "launch.receipt", with(func(x *raw) { x.receipt = r.intend(other.Run, plan).Bytes() })},
		{"receipt of another log", "launch.receipt", with(func(x *raw) { x.receipt = foreignReceipt(t, p.Run, plan) })},
		{"receipt of another record", "launch.receipt", with(func(x *raw) { x.receipt = otherRecord(t, r) })},
		{"garbage receipt", "launch.receipt", with(func(x *raw) { x.receipt = []byte("x") })},
		{"other build", "launcher.build", reproved(func(p *sandbox.Plan) { p.Build = "other" })},
		{"below the floor: ids", "floor.user-namespace", reproved(func(p *sandbox.Plan) { p.IDMap.Base = 0 })},
		{"below the floor: nnp", "floor.no-new-privs", reproved(func(p *sandbox.Plan) { p.Process.NoNewPrivs = false })},
		{"below the floor: seccomp", "floor.seccomp", reproved(func(p *sandbox.Plan) { p.Seccomp.Profile = "unconfined" })},
		{"below the floor: memory", "floor.memory", reproved(func(p *sandbox.Plan) { p.Limits.Memory = 0 })},
		{"below the floor: masks", "floor.masked-paths", reproved(func(p *sandbox.Plan) { p.MaskedPaths = nil })},
		{"not canonical", "plan.encoding", with(func(x *raw) { x.plan = append(bytes.Clone(plan), ' ') })},
		{"empty plan", "launch.seal", with(func(x *raw) { x.plan = nil })},
		{"empty receipt", "launch.seal", with(func(x *raw) { x.receipt = nil })},
		{"not sealed", "launch.seal", with(func(x *raw) { x.seals = 0 })},
		{"not sealed against writing", "launch.seal", with(func(x *raw) { x.seals = sandbox.Seals &^ unix.F_SEAL_WRITE })},
		{"not sealed against growing", "launch.seal", with(func(x *raw) { x.seals = sandbox.Seals &^ unix.F_SEAL_GROW })},
		{"not sealed against more seals", "launch.seal", with(func(x *raw) { x.seals = sandbox.Seals &^ unix.F_SEAL_SEAL })},
		{"plain files", "launch.seal", with(func(x *raw) { x.notMemfd = true })},
		{"no PID namespace", "launch.namespace", with(func(x *raw) { x.flags = unix.CLONE_NEWNS })},
		{"no mount namespace", "launch.namespace", with(func(x *raw) { x.flags = unix.CLONE_NEWPID })},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := r.raw(c.x)
			if strings.Contains(got, `"ready"`) || strings.Contains(got, `"started"`) || !strings.Contains(got, `"rule":"`+c.rule+`"`) {
				t.Errorf("instead of refusing by %s it said %s", c.rule, got)
			}
			r.clean(p)
		})
	}
}

// TestAlteredBytes changes single bytes of plan and receipt all over.
func TestAlteredBytes(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/true")
	plan := r.encode(p)
	proof := r.intend(p.Run, plan).Bytes()
	step := max(len(plan)/12, 1)
	for i := 0; i < len(plan); i += step {
		b := bytes.Clone(plan)
		b[i] ^= 1
		if got := r.raw(raw{plan: b, receipt: proof, seals: sandbox.Seals, flags: both}); strings.Contains(got, `"ready"`) {
			t.Errorf("plan with byte %d changed: %s", i, got)
		}
	}
	// The signature is at the end, and in its last letter a changed bit does
	// not change the signature.
	offsets := []int{len(proof) - 2, len(proof) - 3, len(proof) - 4}
	for i := 0; i < len(proof); i += max(len(proof)/12, 1) {
		offsets = append(offsets, i)
	}
	for _, i := range offsets {
		b := bytes.Clone(proof)
		b[i] ^= 1
		if got := r.raw(raw{plan: plan, receipt: b, seals: sandbox.Seals, flags: both}); strings.Contains(got, `"ready"`) {
			t.Errorf("receipt with byte %d of %d changed: %s", i, len(proof), got)
		}
	}
	for _, b := range [][]byte{append(bytes.Clone(proof), '\n'), append(bytes.Clone(proof), ' '), proof[:len(proof)-1]} {
		if got := r.raw(raw{plan: plan, receipt: b, seals: sandbox.Seals, flags: both}); strings.Contains(got, `"ready"`) {
			t.Errorf("receipt with another end: %s", got)
		}
	}
	r.clean(p)
}

func foreignReceipt(t *testing.T, run string, plan []byte) []byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	// The same origin, but of course another key.
	if err := audit.Create(audit.Config{Dir: dir, Host: "test.invalid"}); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	permit, err := log.Intend(context.Background(), audit.Intent{Run: run, Plan: sandbox.Digest(plan), Actor: audit.Caller()})
	if err != nil {
		t.Fatal(err)
	}
	return permit.Receipt().Bytes()
}

// otherRecord proves a record that is in the right log and no intent.
func otherRecord(t *testing.T, r *rig) []byte {
	t.Helper()
	proof, err := audit.Prove(r.auditDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return proof.Bytes()
}

func (r *rig) removeCgroups(p sandbox.Plan) {
	r.t.Helper()
	eventually(r.t, "cgroups removed", func() bool {
		for _, dir := range cgroupDirs(p.Run) {
			os.Remove(dir)
		}
		return len(cgroupDirs(p.Run)) == 0
	})
}

func TestZeroNeverLaunches(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/true")
	plan := r.encode(p)
	if _, err := r.launcher.Launch(t.Context(), plan, receipt.Receipt{}, sandbox.Stdio{}, nil); !errors.Is(err, fault.Unrecorded) {
		t.Errorf("the zero receipt: %v", err)
	}
	zero, err := sandbox.Plan{}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.launcher.Launch(t.Context(), zero, r.intend(p.Run, zero), sandbox.Stdio{}, nil); err == nil {
		t.Error("the zero plan was launched")
	}
}

func TestNotExecutable(t *testing.T) {
	r := newRig(t)
	for name, content := range map[string]string{"script": "#!/nowhere\n", "garbage": "\x00\x01", "text": "hello"} {
		if err := os.WriteFile(filepath.Join(r.layer, "bin", name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.layer, "bin", "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for arg, code := range map[string]int{
		"nothing": 127, "/bin/nothing": 127, "/bin/script": 127, "/bin": 126, "/bin/plain": 126, "/bin/garbage": 126, "/bin/text": 126,
	} {
		p := r.plan(arg)
		_, err := r.try(p, "")
		var se *sandbox.StartError
		if !errors.As(err, &se) || se.Code != code {
			t.Errorf("%s: %v (%+v), want code %d", arg, err, se, code)
			continue
		}
		if fault.As(err).Remedy == "" || !strings.Contains(err.Error(), fmt.Sprintf("%q", arg)) {
			t.Errorf("%s: %v", arg, fault.As(err).Report())
		}
	}
}

// TestImageLinks has the directories ward mounts over as links to a decoy.
func TestImageLinks(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		t.Run(name, func(t *testing.T) {
			p := r.plan("/bin/true")
			layer := r.busybox("link-" + name)
			decoy := filepath.Join(layer, "decoy")
			if err := os.Mkdir(decoy, 0o755); err != nil {
				t.Fatal(err)
			}
			os.RemoveAll(filepath.Join(layer, name))
			if err := os.Symlink("/decoy", filepath.Join(layer, name)); err != nil {
				t.Fatal(err)
			}
			p.Root.Layers[0].Path = layer
			p.Root.Writable = true
			_, err := r.try(p, "")
			if err == nil || fault.As(err).Rule != "launch.root-symlink" {
				t.Errorf("%v", err)
			}
			for _, dir := range []string{decoy, filepath.Join(p.Host.ContainerDir, "upper", "decoy")} {
				if es, _ := os.ReadDir(dir); len(es) > 0 {
					t.Errorf("the decoy now holds %v", es)
				}
			}
		})
	}
	t.Run("null", func(t *testing.T) {
		// CVE-2025-31133: the image's /dev/null is a link to a decoy.
		layer := r.busybox("link-null")
		os.Mkdir(filepath.Join(layer, "dev"), 0o755)
		decoy := filepath.Join(layer, "decoy")
		if err := os.WriteFile(decoy, []byte("decoy"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/decoy", filepath.Join(layer, "dev/null")); err != nil {
			t.Fatal(err)
		}
		p := r.plan("/bin/sh", "-c", "cat /proc/keys; echo written >/dev/null; cat /decoy")
		p.Root.Layers[0].Path = layer
		if out := r.run(p).out; out != "decoy" {
			t.Errorf("%q", out)
		}
		if b, _ := os.ReadFile(decoy); string(b) != "decoy" {
			t.Errorf("the decoy now holds %q", b)
		}
	})
}

func TestLayersAreNeverWritten(t *testing.T) {
	r := newRig(t)
	secret := filepath.Join(r.layer, "bin/secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := r.plan("/bin/sh", "-c", "echo changed >/bin/secret; chmod 777 /bin/busybox; cat /bin/secret")
	p.Root.Writable = true
	if out := r.run(p).out; out != "changed\n" {
		t.Errorf("%q", out)
	}
	b, err := os.ReadFile(secret)
	if err != nil || string(b) != "x" {
		t.Errorf("the layer's file is now %q (%v)", b, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(secret, &st); err != nil || st.Uid != 0 || st.Mode&0o777 != 0o600 {
		t.Errorf("the layer's file belongs to %d with mode %o", st.Uid, st.Mode)
	}
	up := filepath.Join(p.Host.ContainerDir, "upper/bin/secret")
	if err := unix.Stat(up, &st); err != nil || st.Uid != 100000 {
		t.Errorf("the container's copy belongs to %d (%v)", st.Uid, err)
	}
}
