package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// journal starts systemd's journald with a /run and a /var/log of its own, in
// namespaces of its own, and without the right to touch the kernel's audit.
func journal(t testing.TB, dir string) *exec.Cmd {
	t.Helper()
	const bin = "/lib/systemd/systemd-journald"
	for _, need := range []string{bin, "/usr/bin/journalctl", "/usr/bin/unshare", "/usr/bin/setpriv"} {
		if _, err := os.Stat(need); err != nil {
			t.Fatalf("needs systemd and util-linux: %v", err)
		}
	}
	conf := filepath.Join(dir, "run", "systemd", "journald.conf.d")
	for _, d := range []string{conf, filepath.Join(dir, "run", "systemd", "journal"), filepath.Join(dir, "log", "journal")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := "[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=\nRateLimitIntervalSec=0\nRateLimitBurst=0\nForwardToSyslog=no\nForwardToWall=no\n"
	if err := os.WriteFile(filepath.Join(conf, "test.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Without this file it writes below /run until somebody asks for a flush.
	if err := os.WriteFile(filepath.Join(dir, "run", "systemd", "journal", "flushed"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "id"), []byte(strings.Repeat("a1", 16)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `mount --make-rprivate / && mount --bind "$1/run" /run && mount --bind "$1/log" /var/log &&
		{ [ ! -e /etc/machine-id ] || mount --bind "$1/id" /etc/machine-id; } &&
		exec setpriv --bounding-set -audit_control,-audit_read,-audit_write ` + bin
	cmd := exec.Command("unshare", "-m", "-p", "-n", "-f", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", dir)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill9(cmd) })
	socket := filepath.Join(dir, "run", "systemd", "journal", "socket")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := dialUnixgram(socket); err == nil {
			c.Close()
			return cmd
		}
		if time.Now().After(end) {
			t.Fatalf("journald does not listen: %s", out)
		}
	}
}

func dialUnixgram(path string) (net.Conn, error) { return net.Dial("unixgram", path) }

// tail is what a program says, for when it fails.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.b.Write(p) }
func (w *tail) String() string              { w.mu.Lock(); defer w.mu.Unlock(); return w.b.String() }

// TestJournald sends to systemd's own journald, and reads back with journalctl:
// every byte, and fields to search by. A journald that is not there is waited
// for. One that is killed may have taken what it did not write, and says
// nothing: that is documented, and not tested for.
func TestJournald(t *testing.T) {
	h := newHost(t)
	dir, err := os.MkdirTemp("", "ward-j-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.record(t, 100)
	to := []string{"--to", "journald://" + dir + "/run/systemd/journal/socket"}
	ex := h.exporter(t, to)
	h.until(t, "failing", ex, func(s status) bool { return s.Error != "" })
	said := ""
	events := func() (list [][]byte) {
		cmd := exec.Command("journalctl", "-D", filepath.Join(dir, "log", "journal"), "-o", "json", "--all", "SYSLOG_IDENTIFIER=ward", "--output-fields=MESSAGE,WARD_ID,WARD_TYPE,WARD_RULE,PRIORITY")
		cmd.Stderr = &tail{}
		out, err := cmd.Output()
		if err != nil {
			said = fmt.Sprint(err, cmd.Stderr)
			return nil
		}
		for l := range bytes.Lines(out) {
			var m map[string]any
			if err := json.Unmarshal(l, &m); err != nil {
				t.Fatal(err)
			}
			msg, ok := m["MESSAGE"].(string)
			if !ok {
				t.Fatalf("%.200q", l)
			}
			if !strings.Contains(msg, fmt.Sprintf(`"id":%q`, m["WARD_ID"])) || m["WARD_TYPE"] == audit.RunDenied && m["WARD_RULE"] != "policy.caps" {
				t.Fatalf("%.500q", l)
			}
			list = append(list, []byte(msg))
		}
		return list
	}
	for range 2 {
		j := journal(t, dir)
		h.record(t, 50)
		h.until(t, "done", ex, done)
		origin, size, err := audit.Head(h.dir)
		if err != nil {
			t.Fatal(err)
		}
		got := events()
		for end := time.Now().Add(20 * time.Second); int64(len(got)) < size && time.Now().Before(end); got = events() {
			time.Sleep(100 * time.Millisecond)
		}
		if len(got) == 0 {
			t.Log(said)
		}
		whole(t, origin, size, got)
		kill9(j)
		h.record(t, 1)
		h.until(t, "failing", ex, func(s status) bool { return s.Error != "" })
	}
}
