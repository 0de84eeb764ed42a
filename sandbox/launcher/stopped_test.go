package launcher_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// proveCopy records a copy from or to a container of exactly this plan.
func (r *rig) proveCopy(p sandbox.Plan, plan []byte) receipt.Receipt {
	r.t.Helper()
	permit, err := r.log.Prove(r.t.Context(), audit.Record{Type: audit.ContainerCopy, Run: p.Run, Plan: sandbox.Digest(plan),
		Actor: audit.Caller(), Data: audit.Copy{Container: p.Container}})
	if err != nil {
		r.t.Fatal(err)
	}
	return permit.Receipt()
}

// stopped looks into the container of p, which does not run.
func (r *rig) stopped(p sandbox.Plan, req sandbox.FilesRequest) (*sandbox.Files, error) {
	r.t.Helper()
	b := r.encode(p)
	lock, err := os.OpenFile(filepath.Join(r.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer lock.Close()
	f, err := r.launcher.StoppedFiles(r.t.Context(), b, r.proveCopy(p, b), lock, req)
	if err == nil {
		r.t.Cleanup(f.Close)
	}
	return f, err
}

// get is the content that comes out, of everything there is at path.
func (r *rig) get(p sandbox.Plan, path string, follow bool) (string, error) {
	r.t.Helper()
	f, err := r.stopped(p, sandbox.FilesRequest{Path: path, Follow: follow})
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := f.Receive()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(data)
	if err != nil {
		return "", err
	}
	_, err = f.Result()
	return string(b), err
}

// put copies text into path as name of a directory.
func (r *rig) put(p sandbox.Plan, path, dir, name, text string) error {
	r.t.Helper()
	f, err := r.stopped(p, sandbox.FilesRequest{In: true, Path: path})
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := f.Send(sandbox.FilesTarget{Dir: dir, Name: name})
	if err != nil {
		return err
	}
	fw := sandbox.NewFileWriter(w)
	err = fw.Next(sandbox.FileEntry{Name: ".", Type: sandbox.FileRegular, Size: int64(len(text)), Mode: 0o644})
	if err == nil {
		_, err = fw.Write([]byte(text))
	}
	if err == nil {
		err = fw.Close()
	}
	_, rerr := f.Result()
	return errors.Join(rerr, err)
}

// Whatever a container has left in its root and its volumes, and whatever its
// image links to, no copy reads or writes a file of the host's.
func TestStoppedFilesStayInside(t *testing.T) {
	r := newRig(t)
	decoys := t.TempDir()
	decoy := filepath.Join(decoys, "f")
	if err := os.WriteFile(decoy, []byte("decoy of the host"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(decoys, 0o777), os.Chmod(decoy, 0o666)); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 12) + strings.TrimPrefix(decoys, "/")
	links := map[string]string{"abs": decoys, "up": up, "magic": "/proc/1/root" + decoys, "self": "/proc/self/root" + decoys, "abs-file": decoy}
	p := sleeper(r)
	p.Root.Writable = true
	upper := filepath.Join(p.Host.ContainerDir, "upper")
	volume := filepath.Join(p.Host.VolumeDir, "v", "_data")
	for _, dir := range []string{upper, volume} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, to := range links {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Where the volume is to be mounted the image has a link out, too.
	if err := os.Symlink(up, filepath.Join(r.layer, "mnt")); err != nil {
		t.Fatal(err)
	}
	p.Mounts = []sandbox.Mount{
		{Type: sandbox.MountVolume, Name: "v", Source: volume, Target: "/v"},
		{Type: sandbox.MountVolume, Name: "v", Source: volume, Target: "/mnt/in"},
	}
	for _, top := range []string{"/", "/v/"} {
		for name := range links {
			for _, follow := range []bool{true, false} {
				for _, path := range []string{top + name, top + name + "/", top + name + "/f"} {
					if out, _ := r.get(p, path, follow); strings.Contains(out, "decoy of the host") {
						t.Errorf("the host's file came out of %s", path)
					}
				}
			}
			for _, in := range [][3]string{{top + name, top + name, "f"}, {top, top, name}, {top + name + "/f", top + name, "f"}} {
				_ = r.put(p, in[0], filepath.Clean(in[1]), in[2], "written")
			}
			if b, err := os.ReadFile(decoy); err != nil || string(b) != "decoy of the host" {
				t.Fatalf("%s%s: the host's file is %q, %v", top, name, b, err)
			}
		}
	}
	if es, err := os.ReadDir(decoys); err != nil || len(es) != 1 {
		t.Errorf("beside the host's file are %v, %v", es, err)
	}
	if err := r.put(p, "/v", "/v", "new", "into the volume"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(volume, "new")); string(b) != "into the volume" {
		t.Errorf("nothing gets in at all: %q, %v", b, err)
	}
	if out, err := r.get(p, "/v/new", true); !strings.Contains(out, "into the volume") {
		t.Errorf("nothing comes out at all: %q, %v", out, err)
	}
	if bytes, err := os.ReadFile(filepath.Join(r.layer, "etc/mine")); err == nil {
		t.Errorf("the layer has been written: %q", bytes)
	}
}

// What is renamed elsewhere on the machine, at whatever rate, makes no name that
// leads up unreadable: the kernel then cannot tell at once where it leads.
func TestFilesWhileOthersRename(t *testing.T) {
	r := newRig(t)
	p := sleeper(r)
	if err := os.Symlink(strings.Repeat("../", 64)+"etc/hostname", filepath.Join(r.layer, "up")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		a, b := filepath.Join(r.dir, "a"), filepath.Join(r.dir, "b")
		err := os.Mkdir(a, 0o700)
		for err == nil && ctx.Err() == nil {
			err = errors.Join(os.Rename(a, b), os.Rename(b, a))
		}
		done <- err
	}()
	for range 20 {
		if out, err := r.get(p, "/up", true); err != nil || !strings.Contains(out, p.Hostname) {
			t.Errorf("%q, %v", out, err)
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Attributes of the user's go both ways, whether the container runs or not; the
// capabilities of a program stay where they are.
func TestFilesAttributes(t *testing.T) {
	r := newRig(t)
	source := filepath.Join(r.dir, "with")
	if err := errors.Join(os.WriteFile(source, []byte("x"), 0o755), unix.Setxattr(source, "user.color", []byte("red"), 0),
		unix.Setxattr(source, "security.capability", append([]byte{1, 0, 0, 2, 0, 0x20}, make([]byte, 14)...), 0)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(r.layer, "bin/busybox"), "security.capability", append([]byte{1, 0, 0, 2, 0, 0x20}, make([]byte, 14)...), 0); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	p := sleeper(r)
	p.Root.Writable = true
	running := r.inhabit(p)
	still := sleeper(r)
	still.Root.Writable = true
	for name, open := range map[string]func(sandbox.FilesRequest) (*sandbox.Files, error){
		"running": func(req sandbox.FilesRequest) (*sandbox.Files, error) {
			return r.launcher.Files(t.Context(), running.plan.Host.RuntimeDir, req)
		},
		"stopped": func(req sandbox.FilesRequest) (*sandbox.Files, error) { return r.stopped(still, req) },
	} {
		in, err := open(sandbox.FilesRequest{In: true, Path: "/home"})
		if err != nil {
			t.Fatal(name, err)
		}
		to, err := in.Send(sandbox.FilesTarget{Dir: "/home", Name: "with"})
		if err != nil {
			t.Fatal(name, err)
		}
		w := sandbox.NewFileWriter(to)
		_, err = sandbox.SendFiles(w, from, "with")
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(name, err)
		}
		if res, err := in.Result(); err != nil || res.Unkept != 0 {
			t.Fatal(name, res, err)
		}
		in.Close()
		for path, want := range map[string]int{"/home/with": 1, "/bin/busybox": 0} {
			out, err := open(sandbox.FilesRequest{Path: path})
			if err != nil {
				t.Fatal(name, err)
			}
			data, err := out.Receive()
			if err != nil {
				t.Fatal(name, err)
			}
			e, err := sandbox.NewFileReader(data).Next()
			if err != nil || len(e.Attrs) != want || want > 0 && (e.Attrs[0].Name != "user.color" || string(e.Attrs[0].Value) != "red") {
				t.Errorf("%s: %s has %q, %v", name, path, e.Attrs, err)
			}
			out.Close()
		}
	}
}

// The process that copies has left the host: another root, no rights but about
// files, and those in the container's range of ids alone. Nothing of the
// container's runs, and a root that is read-only stays so.
func TestStoppedFilesPosture(t *testing.T) {
	r := newRig(t)
	p := sleeper(r)
	f, err := r.stopped(p, sandbox.FilesRequest{Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("/proc", strconv.Itoa(f.PID()))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Uid:\t100000\t100000\t100000\t100000\n", "Gid:\t100000\t100000\t100000\t100000\n", "Groups:\t \n",
		"CapInh:\t0000000000000000\n", "CapPrm:\t000000000000001f\n", "CapEff:\t000000000000001f\n", "CapBnd:\t000000000000001f\n",
		"CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	ids, err := os.ReadFile(filepath.Join(dir, "uid_map"))
	if err != nil || strings.Join(strings.Fields(string(ids)), " ") != "0 100000 65536" {
		t.Errorf("ids %q, %v", ids, err)
	}
	mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"/": "overlay", "/proc": "tmpfs", "/sys": "tmpfs", "/dev": "tmpfs", "/tmp": "tmpfs", "/run": "tmpfs",
		"/etc/hosts": "tmpfs", "/etc/hostname": "tmpfs", "/etc/resolv.conf": "tmpfs"}
	for line := range strings.Lines(string(mounts)) {
		front, back, _ := strings.Cut(line, " - ")
		fields := strings.Fields(front)
		at, kind := fields[4], strings.Fields(back)[0]
		if want[at] != kind || !strings.HasPrefix(fields[5], "ro,") {
			t.Errorf("an unexpected mount: %s", line)
		}
		delete(want, at)
	}
	if len(want) > 0 {
		t.Errorf("not mounted: %v", want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "environ"), &st); err != nil || st.Uid != 0 {
		t.Errorf("it is dumpable: %d, %v", st.Uid, err)
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		if to, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name())); strings.HasPrefix(to, "/") && to != "/dev/null" && to != filepath.Join(r.dir, "lock") && to != "/" {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
	if err != nil || len(fds) == 0 {
		t.Errorf("descriptors: %d, %v", len(fds), err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "task", strconv.Itoa(f.PID()), "children")); err == nil && len(bytes.TrimSpace(b)) > 0 {
		t.Errorf("it has children: %s", b)
	}
	f.Close()
	if err := r.put(p, "/etc", "/etc", "mine", "x"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("into a read-only root: %v", err)
	}
}

// It believes nobody: only the record of a copy of exactly this plan opens it.
func TestStoppedFilesChecksForItself(t *testing.T) {
	r := newRig(t)
	p, other := sleeper(r), sleeper(r)
	b, ob := r.encode(p), r.encode(other)
	for name, proof := range map[string]receipt.Receipt{
		"none": {}, "of a run": r.intend(p.Run, b), "of another plan": r.proveCopy(other, ob), "of another plan of that run": r.proveCopy(p, ob),
	} {
		f, err := r.launcher.StoppedFiles(t.Context(), b, proof, nil, sandbox.FilesRequest{Path: "/"})
		if !errors.Is(err, fault.Unrecorded) {
			t.Errorf("a receipt %s: %v", name, err)
		}
		if err == nil {
			f.Close()
		}
	}
	// And the record of a copy starts nothing.
	if proc, err := r.launcher.Launch(t.Context(), b, r.proveCopy(p, b), sandbox.Stdio{}, nil); !errors.Is(err, fault.Unrecorded) {
		t.Errorf("a container was started by it: %v", err)
		unix.Kill(proc.MonitorPID(), unix.SIGKILL)
	}
}
