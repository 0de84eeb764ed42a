package volume_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/volume"
)

// TestMain also is the process that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WARD_VOLUME_CHURN"); dir != "" {
		churn(dir)
	}
	os.Exit(m.Run())
}

func open(t testing.TB) *volume.Store {
	t.Helper()
	s, err := volume.Open(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func recorded([]volume.Volume) error { return nil }

func ensure(t testing.TB, s *volume.Store, names ...string) {
	t.Helper()
	var want []volume.Volume
	for _, n := range names {
		want = append(want, volume.Volume{Name: n})
	}
	if _, err := s.Ensure(context.Background(), want, recorded); err != nil {
		t.Fatal(err)
	}
}

func nobody() (map[string][]string, error) { return nil, nil }

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"data": true, "a1": true, "A_b.c-d": true, volume.NewName(): true, strings.Repeat("x", 255): true,
		"": false, "a": false, ".": false, "..": false, ".lock": false, "-x": false, "_x": false, "a/b": false, "../x": false,
		"a b": false, "a\n": false, "a\x00": false, "ä1": false, strings.Repeat("x", 256): false, "a:b": false,
	} {
		if err := volume.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := open(t).Ensure(context.Background(), []volume.Volume{{Name: name}}, recorded); (err == nil) != ok {
			t.Errorf("%q was made: %v", name, err)
		}
	}
	if err := volume.CheckDriver("nfs"); fault.As(err).Rule != "volume.driver" {
		t.Error(err)
	}
	if err := errors.Join(volume.CheckDriver("local"), volume.CheckDriver("")); err != nil {
		t.Error(err)
	}
}

func TestLife(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	var told []string
	note := func(vs []volume.Volume) error {
		for _, v := range vs {
			told = append(told, v.Name)
			if _, err := os.Stat(s.Data(v.Name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is there before it is recorded: %v", v.Name, err)
			}
		}
		return nil
	}
	vs, err := s.Ensure(ctx, []volume.Volume{{Name: "one", Labels: map[string]string{"k": "v"}}, {Name: "two"}, {Name: "two"}}, note)
	if err != nil || len(vs) != 3 || fmt.Sprint(told) != "[one two]" {
		t.Fatal(vs, told, err)
	}
	// The second time nothing is made, and the labels are the first's.
	vs, err = s.Ensure(ctx, []volume.Volume{{Name: "one", Labels: map[string]string{"k": "w"}}}, func([]volume.Volume) error {
		return errors.New("recorded again")
	})
	if err != nil || vs[0].Labels["k"] != "v" || vs[0].Mountpoint != s.Data("one") {
		t.Fatal(vs, err)
	}
	for path, mode := range map[string]os.FileMode{s.Dir(): 0o700, filepath.Dir(s.Data("one")): 0o700, s.Data("one"): 0o755} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %o", path, st.Mode(), err, mode)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != "one" {
		t.Fatal(all, err)
	}
	used := func() (map[string][]string, error) { return map[string][]string{"one": {"abc"}}, nil }
	gone, err := s.Remove(ctx, volume.Removal{Names: []string{"one", "two", "three"}, Users: used, Record: recorded})
	if len(gone) != 1 || gone[0].Name != "two" || !strings.Contains(err.Error(), "volume is in use - [abc]") || !strings.Contains(err.Error(), "get three: no such volume") {
		t.Fatal(gone, err)
	}
	if gone, err = s.Remove(ctx, volume.Removal{Names: []string{"one", "two"}, Users: used, Record: recorded, Unused: true}); len(gone) != 0 || err != nil {
		t.Fatal(gone, err)
	}
	// Who cannot say what is in use, or cannot record, removes nothing.
	broken := errors.New("broken")
	for _, r := range []volume.Removal{
		{Names: []string{"one"}, Users: func() (map[string][]string, error) { return nil, broken }, Record: recorded},
		{Names: []string{"one"}, Users: nobody, Record: func([]volume.Volume) error { return broken }},
	} {
		if gone, err := s.Remove(ctx, r); !errors.Is(err, broken) || len(gone) != 0 {
			t.Fatal(gone, err)
		}
	}
	if _, err := s.Ensure(ctx, []volume.Volume{{Name: "four"}}, func([]volume.Volume) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := s.Find("four"); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	if _, err := s.Find("one"); err != nil {
		t.Fatal(err)
	}
}

// Something else in the directory is said, and hides no volume.
func TestSpoiled(t *testing.T) {
	s := open(t)
	ensure(t, s, "good", "bad")
	if err := os.WriteFile(filepath.Join(s.Dir(), "bad", "volume.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.Dir(), "stranger"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if len(all) != 1 || all[0].Name != "good" || err == nil {
		t.Fatal(all, err)
	}
	if gone, err := s.Remove(context.Background(), volume.Removal{Names: []string{"bad", "stranger"}, Users: nobody, Record: recorded, Unused: true}); err != nil || len(gone) != 0 {
		t.Fatal(gone, err)
	}
	if _, err := s.Ensure(context.Background(), []volume.Volume{{Name: "stranger"}}, recorded); fault.As(err).Rule != "volume.record" {
		t.Fatal(err)
	}
}

// A user who has put itself on record before Ensure keeps the volume, or makes
// it anew; it never holds one that is being removed.
func TestRemoveRacesWithUse(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	var mu sync.Mutex
	inUse := map[string][]string{}
	users := func() (map[string][]string, error) {
		mu.Lock()
		defer mu.Unlock()
		copied := map[string][]string{}
		for k, v := range inUse {
			copied[k] = v
		}
		return copied, nil
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = s.Remove(ctx, volume.Removal{Names: []string{"shared"}, Users: users, Record: recorded, Unused: true})
			}
		}
	}()
	for i := range 100 {
		mu.Lock()
		inUse["shared"] = []string{"me"}
		mu.Unlock()
		ensure(t, s, "shared")
		mine := filepath.Join(s.Data("shared"), fmt.Sprint(i))
		if err := os.WriteFile(mine, nil, 0o600); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		time.Sleep(time.Millisecond)
		if _, err := os.Stat(mine); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		mu.Lock()
		delete(inUse, "shared")
		mu.Unlock()
	}
	close(stop)
	<-done
}

// churn makes and removes volumes until it is killed.
func churn(dir string) {
	s, err := volume.Open(dir)
	for i := 0; err == nil; i++ {
		name := fmt.Sprintf("v%d", i%3)
		if _, err = s.Ensure(context.Background(), []volume.Volume{{Name: name}}, recorded); err == nil {
			err = os.WriteFile(filepath.Join(s.Data(name), "f"), nil, 0o600)
		}
		if err == nil {
			_, err = s.Remove(context.Background(), volume.Removal{Names: []string{name}, Users: nobody, Record: recorded})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Killed at any moment, what is left is whole volumes, and what is not is gone
// after the next command.
func TestKilled(t *testing.T) {
	s := open(t)
	for i := range 30 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WARD_VOLUME_CHURN="+s.Dir())
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(8+rand.IntN(20)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); said.Len() > 0 {
			t.Fatalf("round %d: %v %s", i, err, said.String())
		}
		all, err := s.List()
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		for _, v := range all {
			if st, err := os.Stat(v.Mountpoint); err != nil || !st.IsDir() {
				t.Fatalf("round %d: %v", i, err)
			}
		}
	}
	ensure(t, s, "last")
	if _, err := s.Remove(context.Background(), volume.Removal{Names: []string{"last", "v0", "v1", "v2"}, Users: nobody, Record: recorded, Unused: true}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.Dir()); err != nil || len(left) != 1 {
		t.Fatalf("left: %v %v", left, err)
	}
}
