package conformance

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/tests/lab"
)

// TestLogTools has Tessera read a published log, and torchwood a receipt. Both
// are made by the commands a user types.
func TestLogTools(t *testing.T) {
	w := lab.New(t)
	tools := filepath.Join(w.Dir, "logtools")
	build := exec.Command("go", "build", "-o", tools, ".")
	build.Dir = "../logtools"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	accepted := func(args ...string) error {
		out, err := exec.Command(tools, args...).CombinedOutput()
		t.Logf("%s: %v %s", args[0], err, out)
		return err
	}
	record := func() { w.Must("volume", "create", "vol"); w.Must("volume", "rm", "vol") }

	record()
	key := strings.TrimSpace(w.Must("audit", "key"))
	public := filepath.Join(w.Dir, "public")
	for range 3 {
		w.Must("audit", "publish", public)
		if err := accepted("fsck", key, public); err != nil {
			t.Fatal("Tessera's fsck does not accept the published log")
		}
		record()
	}
	damaged := 0
	err := filepath.WalkDir(public, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".lock" || strings.HasPrefix(p, filepath.Join(public, "tile")) && !newest(public, p) {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		bad := append([]byte{}, b...)
		bad[rand.IntN(len(bad))] ^= 1
		if err := os.WriteFile(p, bad, 0o644); err != nil {
			return err
		}
		if damaged++; accepted("fsck", key, public) == nil {
			t.Errorf("a flipped bit in %s was not seen: this test sees nothing", p)
		}
		return os.WriteFile(p, b, 0o644)
	})
	if err != nil || damaged < 3 { // entries, one tile, the checkpoint
		t.Fatal(damaged, err)
	}

	receipt := w.Must("audit", "prove", "1")
	_, rest, _ := strings.Cut(receipt, "\n")
	entry, proof, _ := strings.Cut(rest, "\n")
	e, p := filepath.Join(w.Dir, "entry"), filepath.Join(w.Dir, "proof")
	for name, text := range map[string]string{e: entry, p: proof} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := accepted("proof", key, e, p); err != nil {
		t.Error("torchwood does not accept a receipt")
	}
	if err := os.WriteFile(e, []byte(entry+" "), 0o644); err != nil {
		t.Fatal(err)
	}
	if accepted("proof", key, e, p) == nil {
		t.Error("torchwood accepts a receipt for another record: this test sees nothing")
	}
}

// newest says whether a partial tile is the one the newest checkpoint is about.
func newest(public, p string) bool {
	all, err := filepath.Glob(filepath.Join(filepath.Dir(p), "*"))
	return err == nil && len(all) > 0 && p == last(all)
}

// last is the name with the highest number.
func last(names []string) string {
	best := ""
	for _, n := range names {
		if len(n) > len(best) || len(n) == len(best) && n > best {
			best = n
		}
	}
	return best
}
