package launcher_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func TestMounts(t *testing.T) {
	r := newRig(t)
	data := t.TempDir()
	os.Chmod(data, 0o777)
	if err := os.WriteFile(filepath.Join(data, "f"), []byte("hi\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := r.plan("/bin/sh", "-c", `cat /ro/f /file; (echo x >/ro/x) 2>/dev/null && echo "wrote /ro"; echo y >/rw/y && cat /rw/y
		echo z >/mem/z && cat /mem/z; cp /bin/busybox /mem/b 2>/dev/null || cat /bin/busybox >/mem/b; chmod 755 /mem/b; /mem/b true 2>/dev/null || echo noexec`)
	p.Mounts = []sandbox.Mount{
		{Type: sandbox.MountBind, Source: data, Target: "/ro", ReadOnly: true},
		{Type: sandbox.MountBind, Source: data, Target: "/rw"},
		{Type: sandbox.MountBind, Source: filepath.Join(data, "f"), Target: "/file", ReadOnly: true},
		{Type: sandbox.MountTmpfs, Target: "/mem", Size: 4 << 20, Mode: 0o1777},
	}
	if out := r.run(p).out; out != "hi\nhi\ny\nz\nnoexec\n" {
		t.Errorf("%q", out)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	p = r.plan("/bin/ls", "/x")
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountBind, Source: link, Target: "/x"}}
	if _, err := r.try(p, ""); err == nil {
		t.Error("a bind followed a symbolic link")
	}
}

func TestMissingLayer(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/true")
	p.Root.Layers[0].Path = filepath.Join(r.dir, "gone")
	if _, err := r.try(p, ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	p = r.plan("/bin/true")
	over := filepath.Join(r.dir, "over")
	os.MkdirAll(filepath.Join(over, "bin"), 0o755)
	os.WriteFile(filepath.Join(over, "bin/new"), []byte("#!/bin/sh\necho top\n"), 0o755)
	p.Process.Args = []string{"/bin/new"}
	p.Root.Layers = append(p.Root.Layers, sandbox.Layer{DiffID: p.Root.Layers[0].DiffID, Path: over})
	if out := r.run(p).out; out != "top\n" {
		t.Errorf("two layers gave %q", out)
	}
}
