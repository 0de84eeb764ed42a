package sandbox_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

func tree(t *testing.T) (*sandbox.FileTree, string, string) {
	t.Helper()
	top := t.TempDir()
	decoy := filepath.Join(top, "decoy")
	if err := os.WriteFile(decoy, []byte("decoy"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, "dst")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &sandbox.FileTree{Dir: d, Name: ".", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, dir, decoy
}

// Whatever a container sends, nothing is written outside of the destination,
// and nothing through a link.
func TestFilesStayBelowTheirDestination(t *testing.T) {
	file := func(name string) sandbox.FileEntry {
		return sandbox.FileEntry{Name: name, Type: sandbox.FileRegular, Size: 1, Mode: 0o644}
	}
	link := func(name, to string) sandbox.FileEntry {
		return sandbox.FileEntry{Name: name, Type: sandbox.FileSymlink, Link: to}
	}
	for name, entries := range map[string][]sandbox.FileEntry{
		"up":                 {file("../decoy")},
		"up inside":          {file("a/../../decoy")},
		"absolute":           {file("/decoy")},
		"empty":              {file("")},
		"dot":                {file("a/./b")},
		"slashes":            {file("a//b")},
		"NUL":                {file("a\x00b")},
		"long":               {file(strings.Repeat("a", 256))},
		"through a link":     {link("l", ".."), file("l/decoy")},
		"through an in-link": {link("l", "."), file("l/x")},
		"directory link":     {link("l", ".."), {Name: "l", Type: sandbox.FileDir}, file("l/decoy")},
		"hard link out":      {{Name: "h", Type: sandbox.FileLink, Link: "../decoy"}},
		"hard link by link":  {link("l", ".."), {Name: "h", Type: sandbox.FileLink, Link: "l/decoy"}},
		"device":             {{Name: "d", Type: "device"}},
		"top is a file":      {file(".")},
		"content of a link":  {{Name: "l", Type: sandbox.FileSymlink, Link: "x", Size: 1}},
		"less than nothing":  {{Name: "f", Type: sandbox.FileRegular, Size: -1}},
	} {
		tr, dir, decoy := tree(t)
		var err error
		for _, e := range entries {
			if err = tr.Put(e, strings.NewReader("x")); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
		if b, rerr := os.ReadFile(decoy); rerr != nil || string(b) != "decoy" {
			t.Errorf("%s: the decoy is %q, %v", name, b, rerr)
		}
		if st, rerr := os.Stat(filepath.Join(dir, "..")); rerr != nil || st.Mode().Perm() != 0o755 && st.Mode().Perm() != 0o700 {
			t.Errorf("%s: the directory above is %v, %v", name, st.Mode(), rerr)
		}
	}
	// A link in the place of a file is replaced and not written through.
	tr, dir, decoy := tree(t)
	if err := errors.Join(tr.Put(link("f", "../decoy"), nil), tr.Put(file("f"), strings.NewReader("x"))); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(decoy)
	st, err := os.Lstat(filepath.Join(dir, "f"))
	if string(b) != "decoy" || err != nil || !st.Mode().IsRegular() {
		t.Errorf("%q, %v, %v", b, st, err)
	}
	// Set-id bits stay behind, and holes stay holes.
	big := sandbox.FileEntry{Name: "big", Type: sandbox.FileRegular, Mode: 0o6755, Size: 64 << 20}
	if err := tr.Put(big, io.LimitReader(zeroes{}, big.Size)); err != nil {
		t.Fatal(err)
	}
	st, err = os.Lstat(filepath.Join(dir, "big"))
	if err != nil || st.Mode() != 0o755 || st.Size() != big.Size || blocks(st) > 128 {
		t.Errorf("%v %d %d, %v", st.Mode(), st.Size(), blocks(st), err)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is sent is what arrives, and a stream that is cut, too long or not one
// is an error and never the end.
func TestFileStream(t *testing.T) {
	src := t.TempDir()
	for _, d := range []string{"a/b", "empty"} {
		if err := os.MkdirAll(filepath.Join(src, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(src, "a/b/f"), []byte("content"), 0o640), os.Symlink("b/f", filepath.Join(src, "a/l"))); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var sent bytes.Buffer
	w := sandbox.NewFileWriter(&sent)
	if left, err := sandbox.SendFiles(w, d, "."); err != nil || left != 0 {
		t.Fatal(left, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr, dir, _ := tree(t)
	if err := sandbox.CopyTree(tr, sandbox.NewFileReader(bytes.NewReader(sent.Bytes()))); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "a/l"))
	st, serr := os.Stat(filepath.Join(dir, "a/b"))
	if string(b) != "content" || err != nil || serr != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%q %v %v %v", b, err, st, serr)
	}
	for n := range sent.Len() {
		tr, _, _ := tree(t)
		if err := sandbox.CopyTree(tr, sandbox.NewFileReader(bytes.NewReader(sent.Bytes()[:n]))); err == nil {
			t.Fatalf("cut at %d of %d it was taken for whole", n, sent.Len())
		}
	}
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	if err := sandbox.CopyTree(tr, sandbox.NewFileReader(bytes.NewReader(huge))); err == nil {
		t.Error("a header of two gigabytes")
	}
}

// FuzzFileStream reads what a container could send into a directory with a
// decoy beside it.
func FuzzFileStream(f *testing.F) {
	var b bytes.Buffer
	w := sandbox.NewFileWriter(&b)
	w.Next(sandbox.FileEntry{Name: "a", Type: sandbox.FileRegular, Size: 2})
	w.Write([]byte("hi"))
	w.Next(sandbox.FileEntry{Name: "l", Type: sandbox.FileSymlink, Link: ".."})
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, dir, decoy := tree(t)
		sandbox.CopyTree(tr, sandbox.NewFileReader(bytes.NewReader(b)))
		if got, err := os.ReadFile(decoy); err != nil || string(got) != "decoy" {
			t.Errorf("%q %v", got, err)
		}
		if es, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(es) != 2 {
			t.Errorf("%v %v", es, err)
		}
	})
}
