//go:build vm

package vm

import (
	"bufio"
	"debug/elf"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/ward-project/ward/tests/lab"
)

//go:embed init.sh
var initScript []byte

// modules of the kernel that have to be loaded.
var modules = []string{"fs/overlayfs/overlay", "drivers/block/virtio_blk"}

// initramfs writes the guest's files into an archive under dir: the programs
// under test, the checks, busybox and the modules.
func initramfs(t *testing.T, dir string, k kernel) string {
	t.Helper()
	bin := os.Getenv("WARD_BIN")
	if bin == "" {
		bin = dir
		if err := lab.Build(dir, "vm", "ward", "ward-launch", "ward-oci"); err != nil {
			t.Fatal(err)
		}
	}
	checks := filepath.Join(dir, "checks")
	build := exec.Command("go", "test", "-c", "-trimpath", "-tags", "vmguest", "-ldflags", "-s -w", "-o", checks, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the checks: %v\n%s", err, out)
	}
	posture := filepath.Join(dir, "posture")
	build = exec.Command("go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", posture, "../posture")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the table: %v\n%s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: install busybox-static", err)
	}
	files := []file{{name: "init", mode: exe, body: initScript}}
	for _, d := range []string{"bin", "dev", "opt", "opt/modules"} {
		files = append(files, file{name: d, mode: directory})
	}
	for name, from := range map[string]string{
		"bin/busybox": busybox, "opt/ward": filepath.Join(bin, "ward"),
		"opt/ward-launch": filepath.Join(bin, "ward-launch"), "opt/ward-oci": filepath.Join(bin, "ward-oci"), "opt/checks": checks, "opt/posture": posture,
	} {
		b, err := staticProgram(from)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{name, exe, b})
	}
	for _, m := range modules {
		b, err := k.module(m)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{"opt/modules/" + path.Base(m) + ".ko", plain, b})
	}
	name := filepath.Join(dir, "initramfs")
	if err := archive(name, files); err != nil {
		t.Fatal(err)
	}
	return name
}

// staticProgram reads a program and makes sure that it needs no other file:
// there is no library in the guest.
func staticProgram(name string) ([]byte, error) {
	f, err := elf.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%s is not statically linked (libseccomp-dev and libc6-dev have the static libraries)", name)
		}
	}
	return os.ReadFile(name)
}

// Modes of the files in an archive.
const (
	directory = 0o040755
	exe       = 0o100755
	plain     = 0o100644
)

type file struct {
	name string
	mode int
	body []byte
}

// archive writes files, all root's, in the format initramfs must have: cpio
// "newc" (Documentation/driver-api/early-userspace/buffer-format.rst). A
// directory must come before what is in it.
func archive(name string, files []file) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := &padded{w: bufio.NewWriter(f)}
	for i, e := range append(files, file{name: "TRAILER!!!"}) {
		links := 1
		if e.mode == directory {
			links = 2
		}
		w.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i+1, e.mode, 0, 0, links, 0, len(e.body), 0, 0, 0, 0, len(e.name)+1, 0, e.name)
		w.pad()
		w.write(e.body)
		w.pad()
	}
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write %s: %w", name, w.err)
	}
	return f.Close()
}

// padded counts what goes through, to align it, and keeps the first error.
type padded struct {
	w   *bufio.Writer
	n   int
	err error
}

func (p *padded) write(b []byte) {
	if p.err != nil {
		return
	}
	n, err := p.w.Write(b)
	p.n += n
	p.err = err
}

func (p *padded) printf(format string, args ...any) { p.write(fmt.Appendf(nil, format, args...)) }

func (p *padded) pad() { p.write(make([]byte, -p.n&3)) }
