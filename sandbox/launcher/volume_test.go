package launcher_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// volume makes an empty volume and returns its content's directory.
func (r *rig) volume(name string) string {
	r.t.Helper()
	data := filepath.Join(r.dir, "volumes", name, "_data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return data
}

// at mounts a volume in p.
func (r *rig) at(p sandbox.Plan, name, target string, change ...func(*sandbox.Mount)) sandbox.Plan {
	m := sandbox.Mount{Type: sandbox.MountVolume, Name: name, Source: sandbox.VolumeData(p.Host.VolumeDir, name), Target: target, Exec: true}
	for _, f := range change {
		f(&m)
	}
	p.Mounts = append(p.Mounts, m)
	return p
}

func copyUp(m *sandbox.Mount) { m.CopyUp = true }

func owner(t *testing.T, path string) (uid, gid, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid, st.Mode & 0o7777
}

// Two containers with different ranges of ids see the same owners, and those
// are what is on disk.
func TestVolumeOwners(t *testing.T) {
	r := newRig(t)
	data := r.volume("shared")
	if err := os.Chmod(data, 0o777); err != nil {
		t.Fatal(err)
	}
	a := r.at(r.plan("/bin/sh", "-c", "echo mine >/v/f; chmod 640 /v/f"), "shared", "/v")
	a.Process.UID, a.Process.GID = 1000, 1001
	r.run(a)
	r.run(r.at(r.plan("/bin/sh", "-c", "echo root >/v/r"), "shared", "/v"))
	b := r.at(r.plan("/bin/sh", "-c", "stat -c '%u:%g %n' /v/f /v/r; cat /v/f"), "shared", "/v")
	b.IDMap.Base += 5 * sandbox.IDRange
	b.Process.UID, b.Process.GID = 1000, 1001
	if out := r.run(b).out; out != "1000:1001 /v/f\n0:0 /v/r\nmine\n" {
		t.Errorf("the other container sees %q", out)
	}
	if uid, gid, _ := owner(t, filepath.Join(data, "f")); uid != 1000 || gid != 1001 {
		t.Errorf("on disk it belongs to %d:%d", uid, gid)
	}
	// Somebody else's file stays somebody else's.
	c := r.at(r.plan("/bin/cat", "/v/f"), "shared", "/v")
	c.IDMap.Base += 9 * sandbox.IDRange
	c.Process.UID, c.Process.GID = 1002, 1002
	if res := r.run(c); res.exit.Code == 0 {
		t.Errorf("another user read it: %q", res.out)
	}
}

// A mount point made in a volume belongs to the container's root there, and
// the launcher is itself again afterwards.
func TestMountInAVolume(t *testing.T) {
	r := newRig(t)
	data, inner := r.volume("outer"), r.volume("inner")
	for _, err := range []error{os.Chown(data, 1000, 1000), os.Chmod(data, 0o700), os.WriteFile(filepath.Join(inner, "f"), nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := r.at(r.plan("/bin/sh", "-c", "stat -c '%u:%g %a' /v/a /v/t; ls /v/a/b; id -u; grep ^CapPrm /proc/self/status"), "outer", "/v")
	p = r.at(p, "inner", "/v/a/b")
	p.Mounts = append(p.Mounts, sandbox.Mount{Type: sandbox.MountTmpfs, Target: "/v/t", Size: 1 << 20, Mode: 0o711})
	p.Process.UID, p.Process.GID = 1000, 1000
	if out := r.run(p).out; out != "0:0 755\n0:0 711\nf\n1000\nCapPrm:\t0000000000000000\n" {
		t.Errorf("%q", out)
	}
	for _, name := range []string{"a", "a/b", "t"} {
		if uid, gid, _ := owner(t, filepath.Join(data, name)); uid != 0 || gid != 0 {
			t.Errorf("%s belongs to %d:%d on disk", name, uid, gid)
		}
	}
}

func TestVolumeIsInert(t *testing.T) {
	r := newRig(t)
	data := r.volume("tools")
	b, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.WriteFile(filepath.Join(data, "id"), b, 0o755)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(data, "id"), 0o4755|os.ModeSetuid)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := r.at(r.plan("/bin/sh", "-c", "/v/id -u; /no/id -u 2>/dev/null || echo noexec; touch /ro/x 2>/dev/null || echo read-only; grep -c ' /[vn]o* .*nosuid,nodev' /proc/self/mountinfo"),
		"tools", "/v")
	p = r.at(p, "tools", "/no", func(m *sandbox.Mount) { m.Exec = false })
	p = r.at(p, "tools", "/ro", func(m *sandbox.Mount) { m.ReadOnly = true })
	p.Process.UID, p.Process.GID = 1000, 1000
	if out := r.run(p).out; out != "1000\nnoexec\nread-only\n2\n" {
		t.Errorf("%q", out)
	}
	if _, err := os.Stat(filepath.Join(data, "x")); err == nil {
		t.Error("a read-only volume was written")
	}
}

// An empty volume gets what the image has: files, owners, modes, links.
func TestCopyUp(t *testing.T) {
	r := newRig(t)
	data := r.volume("fresh")
	from := filepath.Join(r.layer, "data")
	secret := filepath.Join(t.TempDir(), "decoy")
	for _, err := range []error{
		os.WriteFile(secret, []byte("host"), 0o644),
		os.MkdirAll(filepath.Join(from, "sub/empty"), 0o755),
		os.WriteFile(filepath.Join(from, "sub/f"), []byte("image"), 0o600),
		os.Chown(filepath.Join(from, "sub/f"), 5, 6),
		unix.Chmod(filepath.Join(from, "sub/f"), 0o4711),
		os.Link(filepath.Join(from, "sub/f"), filepath.Join(from, "hard")),
		os.Symlink(secret, filepath.Join(from, "out")),
		unix.Mkfifo(filepath.Join(from, "fifo"), 0o600),
		unix.Setxattr(filepath.Join(from, "sub/f"), "user.k", []byte("v"), 0),
		os.Chown(from, 1000, 1000),
		unix.Chmod(from, 0o2750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := r.at(r.plan("/bin/true"), "fresh", "/data", copyUp)
	r.run(p)
	for path, want := range map[string][3]uint32{
		"": {1000, 1000, 0o2750}, "sub": {0, 0, 0o755}, "sub/f": {5, 6, 0o4711}, "sub/empty": {0, 0, 0o755}, "fifo": {0, 0, 0o600},
	} {
		uid, gid, mode := owner(t, filepath.Join(data, path))
		if got := [3]uint32{uid, gid, mode}; got != want {
			t.Errorf("/%s: %o, want %o", path, got, want)
		}
	}
	if to, err := os.Readlink(filepath.Join(data, "out")); err != nil || to != secret {
		t.Errorf("the link was not copied as a link: %q %v", to, err)
	}
	a, err1 := os.Stat(filepath.Join(data, "hard"))
	b, err2 := os.Stat(filepath.Join(data, "sub/f"))
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		t.Error("two names of one file became two files")
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(data, "sub/f"), "user.k", value); err != nil || string(value[:n]) != "v" {
		t.Errorf("the attribute: %q %v", value[:max(n, 0)], err)
	}
	if es, err := os.ReadDir(filepath.Dir(data)); err != nil || len(es) != 2 {
		t.Errorf("beside the content: %v %v", es, err)
	}
	// A volume that has something is left as it is.
	if err := os.Remove(filepath.Join(data, "fifo")); err != nil {
		t.Fatal(err)
	}
	r.run(r.at(r.plan("/bin/true"), "fresh", "/data", copyUp))
	if _, err := os.Lstat(filepath.Join(data, "fifo")); err == nil {
		t.Error("a volume in use was filled again")
	}
	// And one that is not to be filled stays empty.
	none := r.volume("none")
	r.run(r.at(r.plan("/bin/true"), "none", "/data"))
	if es, _ := os.ReadDir(none); len(es) != 0 {
		t.Errorf("filled unasked: %v", es)
	}
}

// What lies outside the image is not copied, whatever the image's links say
// (CVE-2022-23648), and the volume is mounted inside all the same.
func TestCopyUpStaysInTheImage(t *testing.T) {
	r := newRig(t)
	decoy := t.TempDir()
	if err := os.WriteFile(filepath.Join(decoy, "secret"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 40)
	for name, to := range map[string]string{"absolute": decoy, "dots": up + decoy[1:], "viaproc": "/proc/1/root" + decoy, "above": "/" + up + decoy[1:]} {
		if err := os.Symlink(to, filepath.Join(r.layer, name)); err != nil {
			t.Fatal(err)
		}
		data := r.volume(name)
		res, err := r.try(r.at(r.plan("/bin/sh", "-c", "ls /"+name+"; echo x >/"+name+"/made"), name, "/"+name, copyUp), "")
		if err != nil && name != "viaproc" {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(res.out, "secret") {
			t.Errorf("%s: the container sees the host's file", name)
		}
		if _, err := os.Stat(filepath.Join(data, "secret")); err == nil {
			t.Errorf("%s: the host's file was copied", name)
		}
		if es, _ := os.ReadDir(decoy); len(es) != 1 {
			t.Errorf("%s: the decoy was written: %v", name, es)
		}
	}
}

// A fill that a crash cut short is thrown away if it was not whole, and
// finished if it was; nothing that a container wrote meanwhile is replaced.
func TestCopyUpAfterACrash(t *testing.T) {
	r := newRig(t)
	from := filepath.Join(r.layer, "data")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(data string, want map[string]string) {
		t.Helper()
		for name, text := range want {
			if b, err := os.ReadFile(filepath.Join(data, name)); err != nil || string(b) != text {
				t.Errorf("%s: %q %v, want %q", name, b, err, text)
			}
		}
		if es, _ := os.ReadDir(filepath.Dir(data)); len(es) != 2 {
			t.Errorf("left beside the content: %v", es)
		}
	}
	write(filepath.Join(from, "a"), "image a")
	write(filepath.Join(from, "b"), "image b")

	half := r.volume("half")
	write(filepath.Join(half, "../_fill.new/a"), "ima")
	r.run(r.at(r.plan("/bin/true"), "half", "/data", copyUp))
	check(half, map[string]string{"a": "image a", "b": "image b"})

	whole := r.volume("whole")
	write(filepath.Join(whole, "../_fill/a"), "image a")
	write(filepath.Join(whole, "../_fill/b"), "image b")
	write(filepath.Join(whole, "b"), "a container's")
	r.run(r.at(r.plan("/bin/true"), "whole", "/data", copyUp))
	check(whole, map[string]string{"a": "image a", "b": "a container's"})
}

func TestVolumeSubpath(t *testing.T) {
	r := newRig(t)
	decoy := t.TempDir()
	data := r.volume("v")
	for _, err := range []error{
		os.WriteFile(filepath.Join(decoy, "secret"), nil, 0o644),
		os.MkdirAll(filepath.Join(data, "releases/1"), 0o755),
		os.WriteFile(filepath.Join(data, "releases/1/f"), nil, 0o644),
		os.Symlink("releases/1", filepath.Join(data, "current")),
		os.Symlink(decoy, filepath.Join(data, "out")),
		os.Symlink("../..", filepath.Join(data, "up")),
		unix.Mkfifo(filepath.Join(data, "fifo"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sub := func(path string) func(*sandbox.Mount) { return func(m *sandbox.Mount) { m.Subpath = path } }
	for path, want := range map[string]string{"releases/1": "f\n", "current": "f\n"} {
		if out := r.run(r.at(r.plan("/bin/ls", "/s"), "v", "/s", sub(path))).out; out != want {
			t.Errorf("%s: %q", path, out)
		}
	}
	if out := r.run(r.at(r.plan("/bin/stat", "-c", "%F", "/s"), "v", "/s", sub("releases/1/f"))).out; out != "regular empty file\n" {
		t.Errorf("a file: %q", out)
	}
	for _, path := range []string{"out", "up", "gone", "fifo", "releases/1/f/x"} {
		if _, err := r.try(r.at(r.plan("/bin/ls", "/s"), "v", "/s", sub(path)), ""); fault.As(err).Rule != "launch.subpath" {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Somebody with the volume swaps a directory for a link while another container
// starts on it: what is mounted is the directory, or the start is refused.
func TestVolumeSubpathIsSwapped(t *testing.T) {
	r := newRig(t)
	decoy := t.TempDir()
	data := r.volume("v")
	for _, err := range []error{
		os.WriteFile(filepath.Join(decoy, "secret"), nil, 0o644),
		os.Mkdir(filepath.Join(data, "a"), 0o755), os.WriteFile(filepath.Join(data, "a/f"), nil, 0o644),
		os.Symlink(decoy, filepath.Join(data, "b")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(data, "a"), unix.AT_FDCWD, filepath.Join(data, "b"), unix.RENAME_EXCHANGE)
			}
		}
	})
	mounted, refused := 0, 0
	for range 20 {
		res, err := r.try(r.at(r.plan("/bin/ls", "/s"), "v", "/s", func(m *sandbox.Mount) { m.Subpath = "a" }), "")
		switch {
		case err != nil && fault.As(err).Rule == "launch.subpath":
			refused++
		case err != nil:
			t.Error(err)
		case res.out == "f\n":
			mounted++
		default:
			t.Errorf("the container sees %q", res.out)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d mounted, %d refused", mounted, refused)
}

// Nothing but a volume's own directory is mounted as one.
func TestVolumeIsALink(t *testing.T) {
	r := newRig(t)
	decoy := t.TempDir()
	if err := os.Mkdir(filepath.Join(decoy, "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.volume("data")); err != nil {
		t.Fatal(err)
	}
	for at, to := range map[string]string{"data/_data": decoy, "whole": decoy, "beside": "data"} {
		if err := os.Symlink(to, filepath.Join(r.dir, "volumes", at)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data", "whole", "beside", "gone"} {
		if _, err := r.try(r.at(r.plan("/bin/true"), name, "/v", copyUp), ""); fault.As(err).Rule != "launch.volume" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if es, _ := os.ReadDir(filepath.Join(decoy, "_data")); len(es) != 0 {
		t.Errorf("the decoy was written: %v", es)
	}
}

func TestImageMount(t *testing.T) {
	r := newRig(t)
	over := filepath.Join(r.dir, "over")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(over, "etc"), 0o755),
		os.WriteFile(filepath.Join(over, "etc/new"), []byte("over\n"), 0o644),
		os.Chown(filepath.Join(over, "etc/new"), 7, 8),
		unix.Mknod(filepath.Join(over, "home"), unix.S_IFCHR, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	layer := func(n, path string) sandbox.Layer {
		return sandbox.Layer{DiffID: "sha256:" + strings.Repeat(n, 64), Path: path}
	}
	image := sandbox.Mount{Type: sandbox.MountImage, Name: "test.invalid/other:1", Digest: "sha256:" + strings.Repeat("2", 64), ReadOnly: true, Exec: true,
		Layers: []sandbox.Layer{layer("1", r.layer), layer("3", over)}, Target: "/img"}
	part := image
	part.Target, part.Subpath = "/part", "etc"
	one := image
	one.Target, one.Layers = "/one", image.Layers[:1]
	p := r.plan("/bin/sh", "-c", "stat -c %u:%g /img/etc/new; cat /part/new; ls -d /img/home 2>/dev/null; ls -d /one/home; touch /img/x /part/x /one/x 2>/dev/null || echo read-only; /one/bin/echo runs")
	p.Mounts = []sandbox.Mount{image, part, one}
	if out := r.run(p).out; out != "7:8\nover\n/one/home\nread-only\nruns\n" {
		t.Errorf("%q", out)
	}
	out := part
	out.Subpath = "gone"
	p = r.plan("/bin/true")
	p.Mounts = []sandbox.Mount{out}
	if _, err := r.try(p, ""); fault.As(err).Rule != "launch.subpath" {
		t.Error(err)
	}
}

func TestTmpfsOwner(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/stat", "-c", "%u:%g %a", "/mem")
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountTmpfs, Target: "/mem", Size: 1 << 20, Mode: 0o750, UID: 1000, GID: 1001}}
	if out := r.run(p).out; out != "1000:1001 750\n" {
		t.Errorf("%q", out)
	}
}
