package conformance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// litewitness is torchwood's witness, running.
type litewitness struct {
	dir, vkey, url string
}

// vkeyLine is how litewitness says who it is.
var vkeyLine = regexp.MustCompile(`vkey="?([^" \n]+)`)

// witnessed starts a litewitness that knows the ward's log. Its key is in an
// ssh-agent of its own, as it asks for.
func witnessed(t *testing.T, w *lab.Ward, tools, name string) litewitness {
	t.Helper()
	dir := filepath.Join(w.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+filepath.Join(dir, "agent"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	start := func(log string, args ...string) {
		t.Helper()
		out, err := os.Create(filepath.Join(dir, log))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	agent, key := filepath.Join(dir, "agent"), filepath.Join(dir, "key")
	start("agent.log", "ssh-agent", "-D", "-a", agent)
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	await(t, "the agent", func() bool { _, err := os.Stat(agent); return err == nil })
	run("ssh-add", "-q", key)
	fingerprint := strings.Fields(run("ssh-keygen", "-l", "-f", key+".pub"))[1]
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	l := litewitness{dir: dir, url: "http://" + addr}
	start("witness.log", filepath.Join(tools, "litewitness"), "-db", filepath.Join(dir, "db"), "-name", name+".example/witness", "-ssh-agent", agent, "-key", fingerprint, "-listen", addr)
	await(t, "the witness", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "witness.log"))
		if m := vkeyLine.FindSubmatch(b); m != nil {
			l.vkey = string(m[1])
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil && l.vkey != ""
	})
	run(filepath.Join(tools, "logtools"), "known", strings.TrimSpace(w.Must("audit", "key")), filepath.Join(dir, "db"))
	return l
}

func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come up", what)
		}
	}
}

// TestWitness has real witnesses cosign the log, and tries to get a cut and a
// rewritten one past them, with the log's own key.
func TestWitness(t *testing.T) {
	w := lab.New(t)
	tools := filepath.Join(w.Dir, "tools")
	for _, what := range []string{".", "filippo.io/torchwood/cmd/litewitness"} {
		build := exec.Command("go", "build", "-o", tools+"/", what)
		build.Dir = "../logtools"
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", what, err, out)
		}
	}
	record := func(n string) { t.Helper(); w.Must("volume", "create", n) }
	record("vol1")
	one, two := witnessed(t, w, tools, "one"), witnessed(t, w, tools, "two")
	policy := fmt.Sprintf("witness one %s %s\nwitness two %s %s\nwitness three %s http://127.0.0.1:1\n", one.vkey, one.url, two.vkey, two.url, strangerKey)
	name := func(quorum string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.Root, "etc", "witness.policy"), []byte(policy+quorum), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	name("group g 2 one two three\nquorum g\n")

	saysTo := func(code int, text string, args ...string) {
		t.Helper()
		r := w.Do(args...)
		if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, text) {
			t.Fatalf("%v: exit %d, want %d and %q\n%s%s", args, r.Code, code, text, r.Stdout, r.Stderr)
		}
	}
	saysTo(1, "witness.quorum", "audit", "verify", "--require-witnesses")
	saysTo(0, "0 of 3 signed, which is not the quorum", "audit", "verify")
	saysTo(0, "two: 2 records", "audit", "witness", "update")
	saysTo(0, "their quorum vouches for the first 2 records", "audit", "verify", "--require-witnesses")
	record("vol2")
	record("vol3")
	saysTo(0, "2 records after them rest on the log's key alone", "audit", "verify")
	saysTo(0, "one: 4 records", "audit", "witness", "update")
	saysTo(0, "one  4 records", "audit", "witness", "list")
	saysTo(0, "two: 4 records", "audit", "witness", "update") // once more
	name("group g all one two three\nquorum g\n")
	saysTo(3, "witness three: ", "audit", "witness", "update")
	saysTo(1, "2 of 3 witnesses signed", "audit", "verify", "--require-witnesses")
	name("group g 2 one two three\nquorum g\n")

	// An old copy with its own key: cut, and then grown into another log.
	journal := filepath.Join(w.Root, "lib", "audit", "journal")
	keep := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	old := filepath.Join(w.Dir, "old")
	keep(journal, old)
	record("vol4")
	saysTo(0, "one: 5 records", "audit", "witness", "update")
	if err := os.Rename(journal, filepath.Join(w.Dir, "true")); err != nil {
		t.Fatal(err)
	}
	keep(old, journal)
	saysTo(5, "rollback damage", "audit", "verify")
	saysTo(1, "it has signed 5 records of this log, which has fewer", "audit", "witness", "update")
	if n := w.Count(audit.WitnessConflict, ""); n != 2 { // one of each witness
		t.Errorf("%d records of the conflict", n)
	}
	record("vol5")
	saysTo(5, "root damage", "audit", "verify")
	saysTo(1, "not those that it has seen", "audit", "witness", "update")
	// Without what is kept the log passes for whole, but not for witnessed.
	if err := os.RemoveAll(filepath.Join(w.Root, "lib", "audit", "witness")); err != nil {
		t.Fatal(err)
	}
	saysTo(0, "local-key", "audit", "verify")
	saysTo(1, "witness.quorum", "audit", "verify", "--require-witnesses")
	saysTo(1, "not those that it has seen", "audit", "witness", "update")
}

// strangerKey is a witness's that nobody runs: RFC 8032's first test vector's,
// under a name of its own.
const strangerKey = "nobody.example+13623053+BNdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
