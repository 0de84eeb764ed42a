package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestInitIsOurs: what runs first in a container is not what anybody could have
// put there, nor of another build.
func TestInitIsOurs(t *testing.T) {
	good := "program ward-init:" + sandbox.Build + ": text"
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		rule          string
	}{
		{"good", good, 0o755, ""},
		{"not a program", good, 0o644, "init.missing"},
		{"anybody's", good, 0o757, "init.writable"},
		{"another build", "program ward-init:" + sandbox.Build + "x: text", 0o755, "init.build"},
		{"something else", "\x7fELF", 0o755, "init.build"},
	} {
		path := filepath.Join(t.TempDir(), "ward-init")
		if err := errors.Join(os.WriteFile(path, []byte(c.content), 0o700), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		content, err := readInit(path)
		if c.rule == "" {
			if err != nil || string(content) != good {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if err == nil || fault.As(err).Rule != c.rule {
			t.Errorf("%s: %v, want %s", c.name, err, c.rule)
		}
		link := path + "-link"
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if _, err := readInit(link); err == nil {
			t.Errorf("%s: a symbolic link is followed", c.name)
		}
	}
	dir := t.TempDir()
	if _, err := readInit(filepath.Join(dir, "none")); !errors.Is(err, fault.Unavailable) {
		t.Errorf("missing: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir} {
		if _, err := readInit(path); err == nil {
			t.Errorf("%s is taken for a program", path)
		}
	}
}
