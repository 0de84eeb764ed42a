package oci

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestSeveralDeleteOne has several commands delete one container: a caller that
// gives up and cleans up does so beside the run that does the same.
func TestSeveralDeleteOne(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "box")
	for range 300 {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"lock", "a", "b"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := new(Cleaner).remove(t.Context(), root, "box", 10*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if _, err := os.Stat(dir); err == nil || t.Failed() {
			t.Fatal("it is there after its deletion", err)
		}
	}
}
