package sandbox_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// Attributes of the user's come along, with names and values of any bytes, of
// files and directories. What gives rights, or what overlayfs would heed, does
// not, whoever asks for it.
func TestAttributes(t *testing.T) {
	src := t.TempDir()
	file, dir := filepath.Join(src, "odd\xff"), filepath.Join(src, "d")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o644), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	set := func(at, name, value string) {
		if err := unix.Setxattr(at, name, []byte(value), 0); err != nil {
			t.Skipf("%s needs a file system with attributes: %v", name, err)
		}
	}
	set(file, "user.a\xff", "\x00\xff")
	set(dir, "user.b", strings.Repeat("v", 1000))
	set(dir, "user.overlay.opaque", "y")
	if os.Geteuid() == 0 {
		set(file, "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		set(file, "trusted.t", "1")
	}
	d, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var sent bytes.Buffer
	w := sandbox.NewFileWriter(&sent)
	if _, err := sandbox.SendFiles(w, d, "."); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr, dst, _ := tree(t)
	if err := sandbox.CopyTree(tr, sandbox.NewFileReader(&sent)); err != nil || tr.Unkept != 0 {
		t.Fatal(err, tr.Unkept)
	}
	names := func(at string) string {
		b := make([]byte, 4096)
		n, err := unix.Listxattr(at, b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := names(filepath.Join(dst, "odd\xff")); got != "user.a\xff\x00" {
		t.Errorf("the file has %q", got)
	}
	if got := names(filepath.Join(dst, "d")); got != "user.b\x00" {
		t.Errorf("the directory has %q", got)
	}
	b := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(dst, "odd\xff"), "user.a\xff", b); err != nil || string(b[:n]) != "\x00\xff" {
		t.Errorf("its value is %q, %v", b[:n], err)
	}

	// Whoever sends them anyway is refused, and so is more than there is room for.
	for _, bad := range [][]sandbox.FileAttr{
		{{Name: "security.capability", Value: []byte("x")}}, {{Name: "trusted.overlay.opaque"}}, {{Name: "user.overlay.opaque"}},
		{{Name: "system.posix_acl_access"}}, {{Name: "user.a\x00b"}}, {{Name: "user." + strings.Repeat("a", 251)}},
		{{Name: "user.a", Value: make([]byte, 64<<10)}}, make([]sandbox.FileAttr, 1000),
	} {
		tr, _, _ := tree(t)
		e := sandbox.FileEntry{Name: "f", Type: sandbox.FileRegular, Attrs: bad}
		if err := tr.Put(e, strings.NewReader("")); err == nil {
			t.Errorf("%.40q was taken", bad[0].Name)
		}
		if err := sandbox.NewFileWriter(io.Discard).Next(e); err == nil {
			t.Errorf("%.40q was sent", bad[0].Name)
		}
	}
	link := sandbox.FileEntry{Name: "l", Type: sandbox.FileSymlink, Link: "x", Attrs: []sandbox.FileAttr{{Name: "user.a"}}}
	if err := tr.Put(link, nil); err == nil {
		t.Error("a link with attributes was taken")
	}
}
