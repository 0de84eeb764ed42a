package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// childEnv turns the test binary into a writer of its own process: its value
// is "verb dir [argument]".
const childEnv = "WARD_AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if c := os.Getenv(childEnv); c != "" {
		if err := child(strings.Fields(c)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childCommand runs this binary as a child with the given words, under prefix
// (strace and its options) if there is one.
func childCommand(t testing.TB, prefix []string, words ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(append([]string(nil), prefix...), exe)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(words, " "))
	cmd.Stderr = os.Stderr
	return cmd
}

func testPlan() string { return "sha256:" + strings.Repeat("ab", 32) }

func testIntent(run string) Intent {
	return Intent{
		Run: run, Plan: testPlan(), Actor: Caller(), Point: "run", Name: "web",
		Image:    Image{"registry.example/app:1", "sha256:" + strings.Repeat("cd", 32)},
		Evidence: json.RawMessage(`{"signers":[{"kind":"key"}]}`),
		Decision: json.RawMessage(`{"allow":true,"revision":"r1"}`),
		Args:     []string{"/bin/sh", "-c", "echo <&>"}, EnvNames: []string{"PATH"},
	}
}

// newLog is a fresh log, open, and its directory.
func newLog(t testing.TB) (*Log, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	if err := Create(Config{Dir: dir, Host: "host-1.example"}); err != nil {
		t.Fatal(err)
	}
	return openLog(t, dir), dir
}

func openLog(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func intend(t testing.TB, l *Log, run string) Permit {
	t.Helper()
	p, err := l.Intend(t.Context(), testIntent(run))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func appendExit(t testing.TB, l *Log, run string, code int) {
	t.Helper()
	if err := l.Append(t.Context(), Record{Type: RunExit, Run: run, Actor: Caller(), Data: Exit{Code: code}}); err != nil {
		t.Fatal(err)
	}
}

// verified verifies the log and returns its size.
func verified(t testing.TB, dir, vkey string) Report {
	t.Helper()
	r, err := Verify(dir, Expect{VKey: vkey, EverySignature: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func entries(t testing.TB, dir string) []Entry {
	t.Helper()
	var out []Entry
	if err := Read(dir, 0, func(e Entry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func segPath(dir string, n uint32) string { return filepath.Join(dir, journalDir, segmentName(n)) }

func readSegment(t testing.TB, dir string, n uint32) []byte {
	t.Helper()
	b, err := os.ReadFile(segPath(dir, n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeSegment(t testing.TB, dir string, n uint32, b []byte) {
	t.Helper()
	if err := os.WriteFile(segPath(dir, n), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// testSigner reads the log's own key, as an attacker with root would.
func testSigner(t testing.TB, dir string) note.Signer {
	t.Helper()
	s, err := loadKey(filepath.Join(dir, journalDir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
