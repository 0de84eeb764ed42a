package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestCreateNeverReplaces(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"whole":  func(*testing.T, string) {},
		"no key": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, journalDir, keyFile)) },
		"no log": func(t *testing.T, dir string) { remove(t, segPath(dir, 0)) },
		"empty": func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, journalDir))
			if err := os.Mkdir(filepath.Join(dir, journalDir), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := newLog(t)
			spoil(t, dir)
			before := listing(t, dir)
			if err := Create(Config{Dir: dir, Host: "h"}); !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			if after := listing(t, dir); after != before {
				t.Fatalf("changed:\n%s\n%s", before, after)
			}
		})
	}
	for _, c := range []Config{{}, {Dir: t.TempDir()}, {Dir: t.TempDir(), Host: "a b"}, {Dir: t.TempDir(), Host: "a/b"}, {Host: "h"}} {
		if err := Create(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What a killed Create left is cleared away by the next one, which makes the
// log: a key without a log must never stay.
func TestCreateAfterInterruptedCreate(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, newPrefix+"1", "key"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNoLog) {
		t.Fatal(err)
	}
	if err := Create(Config{Dir: dir, Host: "h"}); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 || es[0].Name() != journalDir {
		t.Fatal(es, err)
	}
	openLog(t, dir)
}

// A log deleted or replaced under a writer is noticed by the next record, not
// written to where nobody will look.
func TestLogDeletedInUse(t *testing.T) {
	for name, spoil := range map[string]func(dir string){
		"deleted":  func(dir string) { remove(t, dir) },
		"replaced": func(dir string) { replace(t, segPath(dir, 0), string(readSegment(t, dir, 0))) },
	} {
		l, dir := newLog(t)
		intend(t, l, "r")
		spoil(dir)
		_, err := l.Intend(t.Context(), testIntent("r2"))
		if d := damaged(t, err, ClassMissing); d.Index != 2 {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// A log put back to an older state under a writer is not continued: that would
// sign a second history over the same places.
func TestLogPutBackInUse(t *testing.T) {
	for name, end := range map[string]int{"at a commit": 0, "inside a write": 50} {
		l, dir := newLog(t)
		old := readSegment(t, dir, 0)
		intend(t, l, "r")
		now := readSegment(t, dir, 0)
		writeSegment(t, dir, 0, now[:len(old)+end])
		_, err := l.Intend(t.Context(), testIntent("r2"))
		damaged(t, err, ClassRollback)
		if b := readSegment(t, dir, 0); len(b) != len(old)+end {
			t.Errorf("%s: the file was changed", name)
		}
	}
	// Replaced by a newer-looking one: a segment that continues too little.
	l, dir := newLog(t)
	for range 3 {
		intend(t, l, "r")
	}
	_, _, err := createSegment(filepath.Join(dir, journalDir), 1, tree{}, 0, testSigner(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time too
		_, err = l.Intend(t.Context(), testIntent("r2"))
		damaged(t, err, ClassRollback)
	}
}

func TestConcurrentCreateMakesOne(t *testing.T) {
	dir := t.TempDir()
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = Create(Config{Dir: dir, Host: "h"}) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Fatalf("%d logs made", made)
	}
	openLog(t, dir)
}

func TestOpenRefuses(t *testing.T) {
	inner := func(dir, name string) string { return filepath.Join(dir, journalDir, name) }
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  error
		class Class
	}{
		"missing":       {func(t *testing.T, dir string) { remove(t, dir) }, ErrNoLog, ""},
		"empty":         {func(t *testing.T, dir string) { remove(t, inner(dir, "")) }, ErrNoLog, ""},
		"no key":        {func(t *testing.T, dir string) { remove(t, inner(dir, keyFile)) }, ErrKey, ""},
		"open key":      {func(t *testing.T, dir string) { chmod(t, inner(dir, keyFile), 0o440) }, ErrKey, ""},
		"empty key":     {func(t *testing.T, dir string) { replace(t, inner(dir, keyFile), "") }, ErrKey, ""},
		"no vkey":       {func(t *testing.T, dir string) { remove(t, inner(dir, vkeyFile)) }, ErrKey, ""},
		"other vkey":    {func(t *testing.T, dir string) { replace(t, inner(dir, vkeyFile), vkeyOf(t)) }, ErrKey, ""},
		"forged vkey":   {func(t *testing.T, dir string) { replace(t, inner(dir, vkeyFile), forgedVKey(t, dir)) }, ErrKey, ""},
		"key is a link": {func(t *testing.T, dir string) { link(t, inner(dir, keyFile)) }, ErrKey, ""},
		"other key": {func(t *testing.T, dir string) {
			_, from := newLog(t)
			for _, f := range []string{keyFile, vkeyFile} {
				b, err := os.ReadFile(inner(from, f))
				if err != nil {
					t.Fatal(err)
				}
				replace(t, inner(dir, f), string(b))
			}
		}, ErrDamaged, ClassOrigin},
		"no lock":       {func(t *testing.T, dir string) { remove(t, inner(dir, lockFile)) }, ErrDamaged, ClassMissing},
		"no segment":    {func(t *testing.T, dir string) { remove(t, segPath(dir, 0)) }, ErrDamaged, ClassMissing},
		"no segments":   {func(t *testing.T, dir string) { remove(t, inner(dir, logDir)) }, ErrDamaged, ClassMissing},
		"empty segment": {func(t *testing.T, dir string) { writeSegment(t, dir, 0, nil) }, ErrDamaged, ClassFrame},
	} {
		t.Run(name, func(t *testing.T) {
			l, dir := newLog(t)
			intend(t, l, "r")
			l.Close()
			tt.spoil(t, dir)
			before := listing(t, dir)
			l, err := Open(dir)
			if err == nil {
				l.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if tt.class != "" {
				damaged(t, err, tt.class)
			}
			if strings.Contains(fmt.Sprint(err), "PRIVATE") {
				t.Fatal("the error quotes the key")
			}
			if after := listing(t, dir); after != before {
				t.Fatalf("open changed the directory:\n%s\n%s", before, after)
			}
		})
	}
}

func vkeyOf(t *testing.T) string {
	l, _ := newLog(t)
	return l.VKey()
}

// forgedVKey is another key under the name of the log in dir.
func forgedVKey(t *testing.T, dir string) string {
	_, vkey := forger(t, testSigner(t, dir).Name())
	return vkey
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, m os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, s string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, path)
	if err := os.WriteFile(path, []byte(s), st.Mode()); err != nil {
		t.Fatal(err)
	}
}

// link moves the file aside and puts a symbolic link to it in its place.
func link(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path, path+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".real", path); err != nil {
		t.Fatal(err)
	}
}

// listing is every name, mode and content below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == dir {
			return nil
		}
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", p, st.Mode())
		if d.Type().IsRegular() {
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", c)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
