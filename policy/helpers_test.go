package policy_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

const checksum = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// good is an input that every shipped level allows.
func good() policy.Input {
	return policy.Input{
		Point: "run", Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Image:    policy.Image{Ref: "registry.example/team/app:1", Host: "registry.example", Repo: "team/app", Tag: "1", Checksum: checksum},
		Evidence: json.RawMessage(`{"verified":true,"digest":"` + checksum + `","signers":[{"kind":"key"}]}`),
		Run: policy.Run{
			Args: []string{"/bin/app"}, Cwd: "/", NoNewPrivs: true, ReadOnly: true, Network: "none",
			Limits:      policy.Limits{Memory: 1 << 29, PIDs: 100, CPUs: 1},
			Seccomp:     policy.Seccomp{Profile: "default", Narrows: true},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
		},
		Host: policy.Host{Memory: 1 << 33, CPUs: 2},
	}
}

func with(change func(*policy.Input)) policy.Input {
	in := good()
	change(&in)
	return in
}

// dir makes a policy directory of name, content pairs.
func dir(t testing.TB, files ...string) string {
	t.Helper()
	d := t.TempDir()
	if err := os.Chmod(d, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func open(t testing.TB, files ...string) *policy.Engine {
	t.Helper()
	e, err := policy.Open(policy.Config{Dir: dir(t, files...)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func decide(t testing.TB, e *policy.Engine, in policy.Input) policy.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func codes(rs []policy.Reason) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Code)
	}
	return out
}

// denied checks that d denies for exactly these codes.
func denied(t testing.TB, d policy.Decision, want ...string) {
	t.Helper()
	if d.Allowed() {
		t.Fatalf("allowed; want denied for %v", want)
	}
	if got := codes(d.Reasons()); !slices.Equal(got, want) {
		t.Fatalf("denied for %v (%v), want %v", got, d.Reasons(), want)
	}
}

// refused checks class and rule of err, and that it names every word.
func refused(t testing.TB, err error, class fault.Class, rule string, words ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Class != class || f.Rule != rule {
		t.Fatalf("got %v (%+v), want %v %s", err, f, class, rule)
	}
	if f.Remedy == "" {
		t.Errorf("%s has no remedy", rule)
	}
	for _, w := range words {
		if !strings.Contains(f.Cause+" "+f.Remedy, w) {
			t.Errorf("%q does not name %q", f.Report(), w)
		}
	}
}
