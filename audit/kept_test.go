package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is kept beside the log comes back only as it was, whatever somebody did
// to the file meanwhile.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	want := bytes.Repeat([]byte("input "), 20_000)
	digest, err := Keep(dir, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Kept(dir, digest)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
	}
	if _, err := Kept(dir, "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was never kept: %v", err)
	}
	for _, name := range []string{"", "sha256:../journal/vkey", "sha256:" + strings.Repeat("../", 21) + "x", digest[:20]} {
		if _, err := Kept(dir, name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", name, err)
		}
	}

	file := filepath.Join(dir, keptDir, digest[len("sha256:"):])
	replace := func(do func() error) {
		t.Helper()
		if err := errors.Join(os.Remove(file), do()); err != nil {
			t.Fatal(err)
		}
	}
	for what, do := range map[string]func() error{
		"another content": func() error { return os.WriteFile(file, append([]byte("x"), want[1:]...), 0o400) },
		"a shorter one":   func() error { return os.WriteFile(file, want[:10], 0o400) },
		"a directory":     func() error { return os.Mkdir(file, 0o700) },
		"far too much": func() error {
			return errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<40))
		},
		"a link": func() error { return os.Symlink("/proc/self/status", file) },
	} {
		replace(do)
		if b, err := Kept(dir, digest); err == nil {
			t.Errorf("%s is read: %d bytes", what, len(b))
		}
	}
	replace(func() error { return os.WriteFile(file, want[:10], 0o400) })
	if _, err := Keep(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := Kept(dir, digest); err != nil || !bytes.Equal(got, want) {
		t.Errorf("kept again it is not good again: %v", err)
	}
	if _, err := Keep(dir, make([]byte, maxKept+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("without bound: %v", err)
	}
}
