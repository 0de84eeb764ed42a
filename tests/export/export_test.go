// Package export gives audit records to real receivers, with the real program,
// and kills both: what arrives has no gap, and what arrives twice has the same
// id and content. It starts receivers on loopback alone.
package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// tools builds the receivers that are Go programs, in a module of their own.
var toolsOnce struct {
	sync.Once
	dir string
	err error
}

func tools(t testing.TB) string {
	t.Helper()
	toolsOnce.Do(func() {
		dir, err := filepath.Abs("../../bin/tools")
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil {
			cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./otlp", "github.com/nats-io/nats-server/v2")
			cmd.Dir, cmd.Env = "../receivers", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
			var out []byte
			if out, err = cmd.CombinedOutput(); err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
		}
		toolsOnce.dir, toolsOnce.err = dir, err
	})
	if toolsOnce.err != nil {
		t.Fatal(toolsOnce.err)
	}
	return toolsOnce.dir
}

// host is a ward with a log and nothing else.
type host struct {
	root, dir string
	log       *audit.Log
}

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the programs are built for it alone")
	}
	h := &host{root: t.TempDir()}
	h.dir = filepath.Join(h.root, "lib", "audit")
	if err := audit.Create(audit.Config{Dir: h.dir, Host: "host-1.example"}); err != nil {
		t.Fatal(err)
	}
	vkey, err := audit.VKey(h.dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(h.root, "etc"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(h.root, "etc", "audit.vkey"), []byte(vkey+"\n"), 0o644)
	}
	if err == nil {
		h.log, err = audit.Open(h.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.log.Close() })
	return h
}

// record writes n records of some sizes.
func (h *host) record(t testing.TB, n int) {
	for i := range n {
		err := h.log.Post(context.Background(), audit.Record{Type: audit.RunDenied, Run: fmt.Sprintf("%064x", i), Actor: audit.Caller(), Data: audit.Denied{
			Stage: "decide", Class: "denied", Rule: "policy.caps", Cause: strings.Repeat("not allowed ", 1+i%90), Name: "web|=]\"\\",
			Image: audit.Image{Reference: "registry.example/app:1", Digest: "sha256:" + strings.Repeat("cd", 32)}, Args: []string{"a\nb", "\x1b[2J"},
		}})
		if err != nil {
			t.Error(err)
			return
		}
	}
}

func (h *host) ward(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(lab.Bin(), "ward"), append([]string{"--root", h.root, "audit", "export"}, args...)...)
	cmd.Stderr = &bytes.Buffer{}
	return cmd
}

// exporter starts one that follows.
func (h *host) exporter(t testing.TB, to []string) *exec.Cmd {
	t.Helper()
	cmd := h.ward(append([]string{"--follow", "--name", "x", "--batch", "40"}, to...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill9(cmd) })
	return cmd
}

type status struct {
	Lag   int64
	Error string
}

func (h *host) status(t testing.TB) status {
	t.Helper()
	out, err := h.ward("status", "--format", "json").Output()
	var list []status
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil || len(list) > 1 {
		t.Fatalf("%s %v", out, err)
	}
	if len(list) == 0 {
		return status{Lag: -1} // it has only just been started
	}
	return list[0]
}

// until waits for the destination to be in a state.
func (h *host) until(t testing.TB, what string, exporter *exec.Cmd, ok func(status) bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s := h.status(t)
		if ok(s) {
			return
		}
		if time.Now().After(end) {
			kill9(exporter)
			t.Fatalf("never %s: %+v\n%s", what, s, exporter.Stderr)
		}
	}
}

func done(s status) bool { return s.Lag == 0 && s.Error == "" }

// storm records, and kills receiver and exporter again and again meanwhile.
func storm(t *testing.T, r receiver) {
	h := newHost(t)
	h.record(t, 10)
	rc, ex := r.start(t), h.exporter(t, r.to)
	h.until(t, "done", ex, done)
	var writer sync.WaitGroup
	writer.Go(func() {
		for range 40 {
			h.record(t, 50)
			time.Sleep(60 * time.Millisecond)
		}
	})
	for i := range 4 {
		time.Sleep(400 * time.Millisecond)
		kill9(rc)
		if i%2 == 1 {
			kill9(ex)
			ex = h.exporter(t, r.to)
		}
		if i == 0 {
			h.until(t, "failing", ex, func(s status) bool { return s.Error != "" })
		}
		rc = r.start(t)
	}
	writer.Wait()
	h.until(t, "done", ex, done)
	kill9(ex)
	time.Sleep(100 * time.Millisecond)
	kill9(rc)
	origin, size, err := audit.Head(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	twice := whole(t, origin, size, r.events(t))
	t.Logf("%d records, %d of them more than once", size, twice)
}

// whole checks events of format jsonl: none missing, each with one content
// that has its hash, in order but for what is sent again.
func whole(t *testing.T, origin string, size int64, events [][]byte) (twice int) {
	t.Helper()
	seen, next := map[string]string{}, int64(0)
	for _, e := range events {
		var m struct {
			ID   string `json:"id"`
			Hash string `json:"leaf_hash"`
		}
		if err := json.Unmarshal(e, &m); err != nil {
			t.Fatalf("%v: %.300q", err, e)
		}
		_, leaf, ok := bytes.Cut(e[:len(e)-1], []byte(`"record":`))
		if sum := sha256.Sum256(append([]byte{0}, leaf...)); !ok || hex.EncodeToString(sum[:]) != m.Hash {
			t.Fatalf("not the record of %s: %.300q", m.Hash, e)
		}
		was, again := seen[m.ID]
		switch {
		case again && was != m.Hash:
			t.Fatalf("%s has two contents", m.ID)
		case again:
			twice++
		case m.ID != fmt.Sprintf("ward:%s/%d", origin, next):
			t.Fatalf("%s came when record %d was due", m.ID, next)
		default:
			next++
		}
		seen[m.ID] = m.Hash
	}
	if next != size {
		t.Fatalf("%d records came, the log has %d", next, size)
	}
	return twice
}

func TestSyslogTLS(t *testing.T)     { storm(t, rsyslog(t)) }
func TestOpenTelemetry(t *testing.T) { storm(t, collector(t)) }
