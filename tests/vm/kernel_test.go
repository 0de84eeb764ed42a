//go:build vm

package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// kernelSeries is Debian's name for the newest cloud kernel of a series in
// which all that ward needs works (overlay layers by name need 6.8).
const kernelSeries = "linux-image-6.12-cloud-amd64"

// kernel is an unpacked kernel package.
type kernel struct {
	image   string // an ELF file
	modules string // directory
}

// findKernel unpacks Debian's kernel package, once for each version, into the
// user's cache directory. It installs nothing. Without the package it skips.
func findKernel(t *testing.T) kernel {
	t.Helper()
	pkg := kernelPackage(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "ward", "vm", pkg)
	k := kernel{filepath.Join(dir, "vmlinux"), filepath.Join(dir, "lib/modules")}
	if _, err := os.Stat(k.image); err == nil {
		return k
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	// Renamed into place when whole: runs at the same time, and runs that were
	// interrupted, do no harm.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if out, err := command(tmp, "apt-get", "download", "-q", pkg); err != nil {
		t.Skipf("the kernel package %s cannot be fetched: %v\n%s", pkg, err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		t.Fatalf("apt-get download left these packages: %v", debs)
	}
	if out, err := command(tmp, "dpkg-deb", "-x", debs[0], "."); err != nil {
		t.Fatalf("unpack %s: %v\n%s", debs[0], err, out)
	}
	if err := os.Remove(debs[0]); err != nil {
		t.Fatal(err)
	}
	if err := extractImage(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return k
}

// kernelPackage asks apt what the newest package of the series is.
func kernelPackage(t *testing.T) string {
	t.Helper()
	out, err := command("", "apt-cache", "depends", kernelSeries)
	if err != nil {
		t.Skipf("the kernel package %s cannot be had: %v\n%s", kernelSeries, err, out)
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name
		}
	}
	t.Skipf("the kernel package %s cannot be had: apt does not know it (apt-get update?)", kernelSeries)
	return ""
}

// extractImage takes the ELF image out of the compressed one under dir: QEMU
// starts it directly, which saves the guest its own, slow, decompression.
func extractImage(dir string) error {
	boot, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(boot) != 1 {
		return fmt.Errorf("the kernel package has these images: %v (%v)", boot, err)
	}
	b, err := os.ReadFile(boot[0])
	if err != nil {
		return err
	}
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for at := bytes.Index(b, magic); at >= 0; {
		if image, ok := decompress(b[at:]); ok {
			return os.WriteFile(filepath.Join(dir, "vmlinux"), image, 0o644)
		}
		next := bytes.Index(b[at+1:], magic)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return fmt.Errorf("%s has no zstd-compressed ELF image in it", boot[0])
}

// decompress reads the first frame of b; what follows it is the boot program's.
func decompress(b []byte) ([]byte, bool) {
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, false
	}
	defer d.Close()
	var image bytes.Buffer
	// Ends in an error at what is no frame any more; debug/elf is the judge.
	_, _ = image.ReadFrom(d)
	_, err = elf.NewFile(bytes.NewReader(image.Bytes()))
	return image.Bytes(), err == nil
}

// module returns a module of the kernel, decompressed; name is its path among
// the modules. One that needs others is an error: then this has to learn to order them.
func (k kernel) module(name string) ([]byte, error) {
	found, err := filepath.Glob(filepath.Join(k.modules, "*/kernel", filepath.FromSlash(name)+".ko.xz"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("module %s: found %v (%v)", name, found, err)
	}
	b, err := exec.Command("xz", "-dc", found[0]).Output()
	if err != nil {
		return nil, fmt.Errorf("module %s: xz: %w", name, err)
	}
	if !bytes.Contains(b, []byte("\x00depends=\x00")) {
		return nil, fmt.Errorf("module %s depends on others", name)
	}
	return b, nil
}

// command runs a program in dir and returns all it printed.
func command(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
