package images_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/images"
)

// TestMain lets the test binary be another ward: the tests below start it many
// times over and kill it.
func TestMain(m *testing.M) {
	switch os.Getenv("WARD_IMAGES_CHILD") {
	case "":
		os.Exit(m.Run())
	case "pull":
		child(func(s *images.Store, ref string) error {
			img, err := s.Pull(bg, ref, images.PullOptions{})
			if err == nil {
				_, err = s.Unpack(bg, img)
			}
			return err
		})
	case "import":
		child(func(s *images.Store, ref string) error {
			f, err := os.Open(os.Getenv("WARD_IMAGES_TAR"))
			if err != nil {
				return err
			}
			_, err = s.Import(bg, f, ref, images.ImportOptions{Created: time.Unix(1, 0)})
			return err
		})
	case "tag":
		child(func(s *images.Store, ref string) error {
			for i := range 5 {
				if _, err := s.Tag(bg, "reg.example/x:1", fmt.Sprintf("%s-%d", ref, i)); err != nil {
					return err
				}
			}
			return nil
		})
	case "remove":
		child(func(s *images.Store, ref string) error {
			_, err := s.Remove(bg, ref, nil)
			return err
		})
	}
}

func child(do func(*images.Store, string) error) {
	s, err := images.Open(images.Config{Dir: os.Getenv("WARD_IMAGES_DIR")})
	if err == nil {
		err = do(s, os.Getenv("WARD_IMAGES_REF"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func start(t testing.TB, what, dir, ref string, more ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(append(os.Environ(), "WARD_IMAGES_CHILD="+what, "WARD_IMAGES_DIR="+dir, "WARD_IMAGES_REF="+ref), more...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

// wide is a layer that takes a while: many files, some megabytes, no pattern.
func wide(t testing.TB) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var fs []file
	for i := range 150 {
		b := make([]byte, 1+r.IntN(20000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		fs = append(fs, file{name: fmt.Sprintf("d%d/f%d", i%20, i), body: string(b)})
	}
	return rootfs(t, fs...)
}

// tree is a digest over all names, modes and contents beneath dir.
func tree(t testing.TB, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v %d\n", strings.TrimPrefix(p, dir), st.Mode(), st.ModTime().UnixNano())
		if d.Type().IsRegular() {
			b, err := os.ReadFile(p)
			h.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// checkStore fails if anything in a store that has its final name is not whole.
func checkStore(t *testing.T, dir, wantTree string) (layers int) {
	t.Helper()
	for _, e := range must(os.ReadDir(filepath.Join(dir, "blobs/sha256")))(t) {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			continue
		}
		b := must(os.ReadFile(filepath.Join(dir, "blobs/sha256", e.Name())))(t)
		if sha(b).Hex != e.Name() {
			t.Fatalf("blob %s holds something else", e.Name())
		}
	}
	for _, e := range must(os.ReadDir(filepath.Join(dir, "layers")))(t) {
		layers++
		if got := tree(t, filepath.Join(dir, "layers", e.Name(), "fs")); got != wantTree {
			t.Fatalf("layer %s is not whole", e.Name())
		}
	}
	return layers
}

// kills is how many moments of one run are tried.
const kills = 12

func TestKilledAnywhere(t *testing.T) {
	host, _ := serve(t)
	s, dir := newStore(t)
	ref := host + "/wide:1"
	tarFile := filepath.Join(t.TempDir(), "wide.tar")
	if err := os.WriteFile(tarFile, wide(t), 0o600); err != nil {
		t.Fatal(err)
	}
	img := must(s.Import(bg, bytes.NewReader(wide(t)), ref, images.ImportOptions{Created: time.Unix(1, 0)}))(t)
	if err := s.Attach(bg, cosignAtt(img.Digest, "AAAA")); err != nil {
		t.Fatal(err)
	}
	must(s.Push(bg, ref, images.PushOptions{}))(t)
	want := tree(t, must(s.Unpack(bg, img))(t)[0])
	checkStore(t, dir, want)

	for _, what := range []string{"pull", "import"} {
		t.Run(what, func(t *testing.T) {
			// How long one takes, to aim within it.
			begin := time.Now()
			cmd, out := start(t, what, filepath.Join(t.TempDir(), "images"), ref, "WARD_IMAGES_TAR="+tarFile)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err, out)
			}
			whole := time.Since(begin)
			killed, unfinished := 0, 0
			dir := filepath.Join(t.TempDir(), "images")
			for i := range kills {
				cmd, out := start(t, what, dir, ref, "WARD_IMAGES_TAR="+tarFile)
				time.Sleep(whole * time.Duration(i) / kills)
				cmd.Process.Signal(syscall.SIGKILL)
				if err := cmd.Wait(); err != nil && out.Len() > 0 {
					t.Fatalf("after a kill: %s", out)
				} else if err != nil {
					killed++
				}
				if _, err := os.Lstat(filepath.Join(dir, "oci-layout")); err != nil {
					continue
				}
				if checkStore(t, dir, want) == 0 {
					unfinished++
				} else if i < kills-3 { // start anew: a finished layer hides the window
					if err := os.RemoveAll(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			if killed < kills/4 {
				t.Errorf("only %d of %d were killed at work", killed, kills)
			}
			t.Logf("%d killed, %d left no layer", killed, unfinished)
			cmd, out = start(t, what, dir, ref, "WARD_IMAGES_TAR="+tarFile)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err, out)
			}
			after := must(images.Open(images.Config{Dir: dir}))(t)
			got := must(after.Resolve(bg, ref))(t)
			must(after.Unpack(bg, got))(t)
			if checkStore(t, dir, want) != 1 || got.Digest != img.Digest {
				t.Errorf("not whole in the end: %s", got.Digest)
			}
			if es := must(os.ReadDir(filepath.Join(dir, "tmp")))(t); len(es) != 0 {
				t.Errorf("tmp/%s was not swept", es[0].Name())
			}
		})
	}
}

func TestManyProcesses(t *testing.T) {
	host, _ := serve(t)
	s, _ := newStore(t)
	one, two := host+"/wide:1", host+"/wide:2"
	img := must(s.Import(bg, bytes.NewReader(wide(t)), one, images.ImportOptions{Created: time.Unix(1, 0)}))(t)
	must(s.Tag(bg, one, two))(t)
	for _, ref := range []string{one, two} {
		must(s.Push(bg, ref, images.PushOptions{}))(t)
	}
	want := tree(t, must(s.Unpack(bg, img))(t)[0])

	dir := filepath.Join(t.TempDir(), "images")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			cmd, out := start(t, "pull", dir, []string{one, two}[i%2])
			if err := cmd.Wait(); err != nil {
				t.Error(err, out)
			}
		})
	}
	wg.Wait()
	if n := checkStore(t, dir, want); n != 1 {
		t.Errorf("%d layers", n)
	}
	got := must(images.Open(images.Config{Dir: dir}))(t)
	if l := must(got.List(bg))(t); len(l) != 2 {
		t.Errorf("%d names, want both: %v", len(l), l)
	}

	// Removing one name over and over beside pulls of the other: the other
	// stays whole throughout.
	for range 6 {
		wg.Go(func() {
			cmd, _ := start(t, "remove", dir, one) // may find it gone
			cmd.Wait()
			cmd, out := start(t, "pull", dir, two)
			if err := cmd.Wait(); err != nil {
				t.Error(err, out)
			}
		})
	}
	wg.Wait()
	if must(got.Resolve(bg, two))(t).Digest != img.Digest || checkStore(t, dir, want) != 1 {
		t.Error("removal took what another name needs")
	}
}

// Names given by many processes at once are all there afterwards.
func TestIndexLock(t *testing.T) {
	s, dir := newStore(t)
	importAs(t, s, "reg.example/x:1")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			cmd, out := start(t, "tag", dir, fmt.Sprintf("reg.example/x:t%d", i))
			if err := cmd.Wait(); err != nil {
				t.Error(err, out)
			}
		})
	}
	wg.Wait()
	if n := len(must(s.List(bg))(t)); n != 41 {
		t.Errorf("%d names, want 41", n)
	}
}
