package images_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
)

func importAs(t testing.TB, s *images.Store, ref string, more ...file) images.Image {
	t.Helper()
	return must(s.Import(bg, bytes.NewReader(rootfs(t, more...)), ref, images.ImportOptions{Created: time.Unix(1, 0)}))(t)
}

func names(t testing.TB, s *images.Store) (out []string) {
	t.Helper()
	for _, i := range must(s.List(bg))(t) {
		out = append(out, i.Reference)
	}
	return out
}

func TestNames(t *testing.T) {
	s, _ := newStore(t)
	one := importAs(t, s, "reg.example/app:1")
	if one.Reference != "reg.example/app:1" || one.Platform == "" {
		t.Fatalf("%+v", one)
	}
	if again := importAs(t, s, "reg.example/app:1"); again.Digest != one.Digest {
		t.Error("the same archive is another image")
	}
	must(s.Tag(bg, "reg.example/app:1", "busybox"))(t)
	for _, ref := range []string{"busybox", "docker.io/library/busybox:latest", "index.docker.io/library/busybox", hex(one.ID)[:12], one.ID, hex(one.ID), one.Digest} {
		if got := must(s.Resolve(bg, ref))(t); got.Digest != one.Digest {
			t.Errorf("%s: %s", ref, got.Digest)
		}
	}
	for ref, want := range map[string]struct {
		class fault.Class
		rule  string
	}{
		"reg.example/app:2": {fault.NotFound, "image.missing"},
		"reg.example/app":   {fault.NotFound, "image.missing"},
		hex(one.ID)[:11]:    {fault.NotFound, "image.missing"},
		"ffffffffffff":      {fault.NotFound, "image.missing"},
		// The same bytes under a name they never had.
		"other.example/app@" + one.Digest: {fault.NotFound, "image.missing"},
		"":                                {fault.Invalid, "image.reference"},
	} {
		_, err := s.Resolve(bg, ref)
		refused(t, err, want.class, want.rule)
	}
	// A moved tag leaves the old image to be found by digest.
	two := importAs(t, s, "reg.example/app:1", file{name: "two", body: "2"})
	want := []string{"index.docker.io/library/busybox:latest", "reg.example/app:1"}
	if got := names(t, s); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	must(s.Tag(bg, two.ID, "busybox"))(t)
	want = []string{"index.docker.io/library/busybox:latest", "index.docker.io/library/busybox@" + one.Digest, "reg.example/app:1"}
	if got := names(t, s); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	_, err := s.Tag(bg, "busybox", "busybox@"+one.Digest)
	refused(t, err, fault.Invalid, "image.reference")
	_, err = s.Tag(bg, "nothing", "x")
	refused(t, err, fault.NotFound, "image.missing")
}

func TestRemove(t *testing.T) {
	s, dir := newStore(t)
	a := importAs(t, s, "reg.example/a:1")
	must(s.Tag(bg, "reg.example/a:1", "reg.example/a:2"))(t)
	b := importAs(t, s, "reg.example/b:1", file{name: "b", body: "b"})
	for _, i := range []images.Image{a, b} {
		if err := s.Attach(bg, cosignAtt(i.Digest, "S")); err != nil {
			t.Fatal(err)
		}
	}
	used := func(d string) bool { return d == a.Digest }
	// The first name may go, the last may not.
	if got := must(s.Remove(bg, "reg.example/a:1", used))(t); !slices.Equal(got, []string{"untagged reg.example/a:1"}) {
		t.Errorf("%q", got)
	}
	_, err := s.Remove(bg, "reg.example/a:2", used)
	refused(t, err, fault.Invalid, "image.in-use")
	_, err = s.Remove(bg, a.ID, used)
	refused(t, err, fault.Invalid, "image.in-use")
	must(s.Resolve(bg, "reg.example/a:2"))(t)
	_, err = s.Remove(bg, "reg.example/nothing", nil)
	refused(t, err, fault.NotFound, "image.missing")

	must(s.Tag(bg, "reg.example/a:2", "reg.example/a:3"))(t)
	if got := must(s.Remove(bg, hex(a.ID)[:12], nil))(t); len(got) != 3 || got[2] != "deleted "+a.Digest {
		t.Errorf("%q", got)
	}
	if got := names(t, s); !slices.Equal(got, []string{"reg.example/b:1"}) {
		t.Errorf("%q", got)
	}
	// b is whole; nothing of a is left.
	must(s.Unpack(bg, must(s.Resolve(bg, "reg.example/b:1"))(t)))(t)
	have(t, s, b.Digest, "S")
	have(t, s, a.Digest)
	if n := len(must(os.ReadDir(filepath.Join(dir, "blobs/sha256")))(t)); n != 3 {
		t.Errorf("%d blobs", n)
	}
	must(s.Remove(bg, "reg.example/b:1", nil))(t)
	for _, d := range []string{"blobs/sha256", "layers", "attachments", "tmp"} {
		if es := must(os.ReadDir(filepath.Join(dir, d)))(t); len(es) != 0 {
			t.Errorf("%s/%s is left", d, es[0].Name())
		}
	}
}

// What is being pulled is in no index yet, and must survive a removal.
func TestRemoveWaitsForWork(t *testing.T) {
	s, dir := newStore(t)
	a := importAs(t, s, "reg.example/a:1")
	f := must(os.OpenFile(filepath.Join(dir, "locks/work"), os.O_RDWR, 0))(t)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	must(s.Remove(bg, "reg.example/a:1", nil))(t)
	if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", hex(a.Digest))); err != nil {
		t.Error("a blob went while somebody worked")
	}
	f.Close()
	importAs(t, s, "reg.example/b:1", file{name: "b", body: "b"})
	must(s.Remove(bg, "reg.example/b:1", nil))(t)
	if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", hex(a.Digest))); err == nil {
		t.Error("the next removal did not take what was left")
	}
}

func TestSeal(t *testing.T) {
	host, _ := serve(t)
	ref := host + "/x:1"
	for name, change := range map[string]func(t *testing.T, layer string){
		"entry added":    func(t *testing.T, l string) { check(t, os.WriteFile(l+"/fs/new", nil, 0o600)) },
		"entry removed":  func(t *testing.T, l string) { check(t, os.Remove(l+"/fs/sbin")) },
		"mode changed":   func(t *testing.T, l string) { check(t, os.Chmod(l+"/fs", 0o700)) },
		"mode and back":  func(t *testing.T, l string) { check(t, os.Chmod(l+"/fs", 0o700)); check(t, os.Chmod(l+"/fs", 0o755)) },
		"times set back": func(t *testing.T, l string) { check(t, os.Chtimes(l+"/fs", time.Unix(0, 0), time.Unix(0, 0))) },
		"another tree": func(t *testing.T, l string) {
			check(t, os.Rename(l+"/fs", l+"/old"))
			check(t, os.Mkdir(l+"/fs", 0o755))
		},
		"a symlink": func(t *testing.T, l string) {
			check(t, os.Rename(l+"/fs", l+"/old"))
			check(t, os.Symlink("old", l+"/fs"))
		},
		"seal removed": func(t *testing.T, l string) { check(t, os.Remove(l+"/seal.json")) },
		"seal emptied": func(t *testing.T, l string) { check(t, os.Truncate(l+"/seal.json", 0)) },
		"tree removed": func(t *testing.T, l string) { check(t, os.RemoveAll(l+"/fs")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newStore(t)
			img := importAs(t, s, ref)
			must(s.Push(bg, ref, images.PushOptions{}))(t)
			before := tree(t, must(s.Unpack(bg, img))(t)[0])
			change(t, filepath.Join(dir, "layers", hex(img.Layers[0].DiffID)))
			_, err := s.Unpack(bg, img)
			refused(t, err, fault.Invalid, "image.layer-changed")
			_, err = s.File(bg, img, "/etc/passwd", 100)
			refused(t, err, fault.Invalid, "image.layer-changed")
			// The remedy works, and the evidence is kept.
			must(s.Pull(bg, ref, images.PullOptions{}))(t)
			if tree(t, must(s.Unpack(bg, img))(t)[0]) != before {
				t.Error("the new layer is not the old one")
			}
			if len(must(os.ReadDir(filepath.Join(dir, "damaged")))(t)) != 1 {
				t.Error("the changed layer was not kept")
			}
		})
	}
	t.Run("import mends too", func(t *testing.T) {
		s, dir := newStore(t)
		img := importAs(t, s, ref)
		check(t, os.Remove(filepath.Join(dir, "layers", hex(img.Layers[0].DiffID), "fs/sbin")))
		importAs(t, s, ref)
		must(s.Unpack(bg, img))(t)
	})
	t.Run("the whole store moved", func(t *testing.T) {
		s, dir := newStore(t)
		img := importAs(t, s, ref)
		check(t, os.Rename(dir, dir+"2"))
		s = must(images.Open(images.Config{Dir: dir + "2"}))(t)
		must(s.Unpack(bg, img))(t)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Nobody but the owner gets at a layer: it may hold setuid programs.
func TestModes(t *testing.T) {
	s, dir := newStore(t)
	importAs(t, s, "reg.example/x", file{name: "su", body: "x", mode: 0o4755})
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		st, err := d.Info()
		if err != nil {
			return err
		}
		depth := strings.Count(rel, "/")
		switch {
		case rel == ".":
			if st.Mode().Perm() != 0o711 {
				t.Errorf("store: %v", st.Mode())
			}
		case depth == 0 && d.IsDir() && st.Mode().Perm() != 0o700:
			t.Errorf("%s: %v", rel, st.Mode())
		case !strings.HasPrefix(rel, "layers/") && st.Mode().IsRegular() && st.Mode().Perm() != 0o600:
			t.Errorf("%s: %v", rel, st.Mode())
		}
		return nil
	})
	check(t, err)
}

func TestOpen(t *testing.T) {
	for _, dir := range []string{"", "relative"} {
		_, err := images.Open(images.Config{Dir: dir})
		refused(t, err, fault.Invalid, "image.store")
	}
	s, dir := newStore(t)
	check(t, os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o600))
	_, err := s.Resolve(bg, "x")
	refused(t, err, fault.Invalid, "image.store")
}

// The whole package works for an ordinary user too.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else; the other tests run as a user already")
	}
	if os.Getenv("WARD_IMAGES_NESTED") != "" {
		return
	}
	bin := filepath.Join(t.TempDir(), "images.test")
	tmp := filepath.Join(filepath.Dir(filepath.Dir(bin)), "user")
	check(t, os.Mkdir(tmp, 0o777))
	check(t, os.Chown(tmp, 65534, 65534))
	for d := filepath.Dir(tmp); d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		check(t, os.Chmod(d, 0o755))
	}
	b := must(os.ReadFile(must(os.Executable())(t)))(t)
	check(t, os.WriteFile(filepath.Join(tmp, "images.test"), b, 0o755))
	cmd := exec.Command(filepath.Join(tmp, "images.test"), "-test.run", "Archive|Names|Remove|Seal|Unpacked|Merged|CheckRoot|Tampered|Many|Modes|Bounds", "-test.count=1")
	cmd.Env = []string{"WARD_IMAGES_NESTED=1", "TMPDIR=" + tmp, "HOME=" + tmp, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = tmp
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as uid 65534: %v\n%s", err, out)
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	// Two images whose IDs share 12 digits cannot be made by trying; the
	// index is what is asked, so two entries of one make the case.
	s, dir := newStore(t)
	a := importAs(t, s, "reg.example/a:1")
	importAs(t, s, "reg.example/b:1", file{name: "b", body: "b"})
	p := filepath.Join(dir, "index.json")
	text := string(must(os.ReadFile(p))(t))
	b := must(s.Resolve(bg, "reg.example/b:1"))(t)
	text = strings.ReplaceAll(text, b.ID, a.ID[:len(a.ID)-3]+"000")
	check(t, os.WriteFile(p, []byte(text), 0o600))
	_, err := s.Resolve(bg, hex(a.ID)[:12])
	refused(t, err, fault.Invalid, "image.ambiguous-id")
}

func BenchmarkWarm(b *testing.B) {
	s, _ := newStore(b)
	img := importAs(b, s, "reg.example/a:1")
	check(b, s.Attach(bg, cosignAtt(img.Digest, "S")))
	check(b, s.Attach(bg, bundleAtt(img.Digest, "B")))
	for i := range 20 {
		importAs(b, s, fmt.Sprintf("reg.example/other:%d", i), file{name: "n", body: fmt.Sprint(i)})
	}
	var ru0, ru1 unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &ru0))
	b.ReportAllocs()
	for b.Loop() {
		img, err := s.Resolve(bg, "reg.example/a:1")
		check(b, err)
		_, err = s.Unpack(bg, img)
		check(b, err)
		check(b, s.CheckRoot(bg, img))
		_, err = s.File(bg, img, "/etc/passwd", 1<<20)
		check(b, err)
		if n := len(must(s.Attachments(bg, img.Digest))(b)); n != 2 {
			b.Fatal(n)
		}
	}
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &ru1))
	cpu := ru1.Utime.Nano() + ru1.Stime.Nano() - ru0.Utime.Nano() - ru0.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N)/1e6, "cpu-ms/op")
}

func BenchmarkUnpack(b *testing.B) {
	var many []file
	for i := range 2000 {
		many = append(many, file{name: fmt.Sprintf("usr/lib/d%d/f%d", i%50, i), body: strings.Repeat("x", 2000), typ: tar.TypeReg})
	}
	tar := rootfs(b, many...)
	for b.Loop() {
		s, _ := newStore(b)
		must(s.Import(bg, bytes.NewReader(tar), "reg.example/a:1", images.ImportOptions{}))(b)
	}
}
