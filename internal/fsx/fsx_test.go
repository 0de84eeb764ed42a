package fsx_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fsx"
)

func TestCreateNeverOverwrites(t *testing.T) {
	p := filepath.Join(t.TempDir(), "key")
	if err := fsx.CreateFile(p, []byte("first"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := fsx.CreateFile(p, []byte("second"), 0o400); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second create: %v", err)
	}
	b, _ := os.ReadFile(p)
	st, _ := os.Stat(p)
	if string(b) != "first" || st.Mode().Perm() != 0o400 {
		t.Fatalf("%q %v", b, st.Mode())
	}
	assertOnly(t, filepath.Dir(p), "key")
}

func TestWriteReplaces(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	for _, s := range []string{"old", "new"} {
		if err := fsx.WriteFile(p, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(p); string(b) != "new" {
		t.Fatalf("%q", b)
	}
	assertOnly(t, filepath.Dir(p), "f")
}

func TestLock(t *testing.T) {
	p := filepath.Join(t.TempDir(), "lock")
	l, err := fsx.TryLock(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsx.TryLock(p); !errors.Is(err, fsx.ErrLocked) {
		t.Fatalf("a held lock was given again: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := fsx.WaitLock(ctx, p); !errors.Is(err, fsx.ErrLocked) {
		t.Fatalf("waiting for a held lock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if l, err = fsx.WaitLock(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}

func assertOnly(t *testing.T, dir, name string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 || es[0].Name() != name {
		t.Fatalf("left behind in %s: %v (%v)", dir, es, err)
	}
}
