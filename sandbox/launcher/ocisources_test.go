package launcher

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// TestOCISourceReplaced: a path that leads to another file by the time the
// container's mount namespace is there mounts nothing.
func TestOCISourceReplaced(t *testing.T) {
	dir := t.TempDir()
	name := func(n string) string { return filepath.Join(dir, n) }
	for _, d := range []string{"data", "other"} {
		if err := os.Mkdir(name(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("other", name("link")); err != nil {
		t.Fatal(err)
	}
	fd, err := openSource(name("data"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := ociSource{name("data"), fd}
	if err := b.reopen(); err != nil {
		t.Fatal(err)
	}
	for _, with := range []string{"other", "link"} {
		exchange := func() {
			if err := unix.Renameat2(unix.AT_FDCWD, name("data"), unix.AT_FDCWD, name(with), unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
		}
		exchange()
		if err := b.reopen(); err == nil || fault.As(err).Rule != "oci.source" {
			t.Errorf("replaced by %s: %v", with, err)
		}
		exchange()
	}
	if _, err := openSource(filepath.Join(name("link"), "x")); err == nil || fault.As(err).Rule != "oci.source" {
		t.Errorf("below a link: %v", err)
	}
}

// TestOCIRootReplaced: so does a container whose root is another directory.
func TestOCIRootReplaced(t *testing.T) {
	for path, ok := range map[string]bool{"/": true, t.TempDir(): false} {
		f, err := os.OpenFile(path, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = (&ociSources{root: f}).checkRoot(os.Getpid())
		if ok != (err == nil) || !ok && fault.As(err).Rule != "oci.source" {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}
