package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// readNative reads lines of format jsonl and checks each against its own hash.
func readNative(t testing.TB, b []byte) []sent {
	t.Helper()
	var out []sent
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("}\n")) {
			t.Fatalf("not a whole line: %.200q", line)
		}
		var m struct {
			ID   string `json:"id"`
			Hash string `json:"leaf_hash"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v: %.200q", err, line)
		}
		_, leaf, ok := bytes.Cut(line[:len(line)-2], []byte(`"record":`))
		if sum := sha256.Sum256(append([]byte{0}, leaf...)); !ok || hex.EncodeToString(sum[:]) != m.Hash {
			t.Fatalf("the record does not have its hash: %.200q", line)
		}
		out = append(out, sent{m.ID, m.Hash})
	}
	return out
}

func logSize(t testing.TB, dir string) (string, int64) {
	t.Helper()
	origin, n, err := audit.Head(dir)
	if err != nil {
		t.Fatal(err)
	}
	return origin, n
}

// Once, and again with more: each record is in the file exactly once, and can
// be checked there.
func TestExportToFile(t *testing.T) {
	l, dir := newLog(t, 100)
	out := filepath.Join(t.TempDir(), "audit.jsonl")
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "f", To: out, Format: "jsonl", Batch: 13}
	for range 3 {
		if err := once(t, j); err != nil {
			t.Fatal(err)
		}
		origin, size := logSize(t, dir)
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if d := whole(t, origin, size, readNative(t, b)); d != 0 {
			t.Fatalf("%d duplicates", d)
		}
		record(t, l, 100, 50)
	}
	if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
}

// The exporter is killed at random moments while records come in: the file has
// each record once, and no half line.
func TestExporterKilled(t *testing.T) {
	for _, to := range []string{"audit.jsonl", "sealed/"} {
		t.Run(to, func(t *testing.T) {
			l, dir := newLog(t, 10)
			out := filepath.Join(t.TempDir(), to)
			if strings.HasSuffix(to, "/") {
				out += "/"
			}
			j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "f", To: out, Format: "jsonl", Batch: 11, Follow: true}
			for i := range 12 {
				cmd := j.process(t)
				for range 1 + rand.IntN(6) {
					record(t, l, 10+i*40, 40)
					time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
				}
				kill9(cmd)
			}
			cmd := j.process(t)
			reached(t, dir, "f", cmd)
			kill9(cmd)
			origin, size := logSize(t, dir)
			if d := whole(t, origin, size, readNative(t, readAll(t, out))); d != 0 {
				t.Fatalf("%d duplicates", d)
			}
		})
	}
}

// readAll is a file, or the files of a directory in order.
func readAll(t testing.TB, path string) []byte {
	t.Helper()
	names := []string{path}
	if strings.HasSuffix(path, "/") {
		var err error
		if names, err = filepath.Glob(path + "audit-*.jsonl"); err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
	}
	var all []byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// What a crash left in the file without an acknowledgement is cut off, also if
// it is half a line; what is written again follows whole.
func TestFileCutsOffWhatWasNotAcknowledged(t *testing.T) {
	l, dir := newLog(t, 20)
	out := filepath.Join(t.TempDir(), "a")
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "f", To: out, Format: "jsonl"}
	for i, left := range []string{`{"id":"half`, "{\"id\":\"a whole line\"}\n", ""} {
		if err := once(t, j); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, append(readAll(t, out), left...), 0o600); err != nil {
			t.Fatal(err)
		}
		record(t, l, i, 20)
	}
	if err := once(t, j); err != nil {
		t.Fatal(err)
	}
	origin, size := logSize(t, dir)
	if d := whole(t, origin, size, readNative(t, readAll(t, out))); d != 0 {
		t.Fatal(d)
	}
}

// A file that is large is put aside, one that somebody moved is begun anew;
// nothing is lost, nothing overwritten.
func TestFileRotates(t *testing.T) {
	l, dir := newLog(t, 60)
	out := filepath.Join(t.TempDir(), "a")
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "f", To: out, Format: "jsonl", Batch: 5, Options: Options{RotateBytes: 16 << 10}}
	if err := once(t, j); err != nil {
		t.Fatal(err)
	}
	before, err := filepath.Glob(out + ".0*")
	if err != nil || len(before) < 2 {
		t.Fatal(before, err)
	}
	if err := os.Rename(out, out+".moved"); err != nil {
		t.Fatal(err)
	}
	record(t, l, 60, 20)
	if err := once(t, j); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob(out + ".0*")
	if err != nil {
		t.Fatal(err)
	}
	parts = slices.Insert(parts, len(before), out+".moved")
	var all []byte
	for _, p := range append(parts, out) {
		b := readAll(t, p)
		if len(b) > 16<<10 {
			t.Errorf("%s has %d bytes", p, len(b))
		}
		all = append(all, b...)
	}
	origin, size := logSize(t, dir)
	whole(t, origin, size, readNative(t, all))
}

// What cannot be right is refused before anything is sent.
func TestExportRefuses(t *testing.T) {
	_, dir := newLog(t, 3)
	_, other := newLog(t, 3)
	tmp := t.TempDir()
	half := filepath.Join(tmp, "half")
	if err := os.WriteFile(half, []byte("no line"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "n", To: filepath.Join(tmp, "out"), Format: "jsonl"}
	for name, tt := range map[string]struct {
		change func(*job)
		want   error
	}{
		"no key":             {func(j *job) { j.VKey = "" }, audit.ErrInvalid},
		"key of another log": {func(j *job) { j.VKey = vkeyOf(t, other) }, audit.ErrDamaged},
		"no log":             {func(j *job) { j.Dir = tmp }, audit.ErrNoLog},
		"name":               {func(j *job) { j.Name = "../x" }, ErrConfig},
		"format":             {func(j *job) { j.Format = "xml" }, ErrConfig},
		"scheme":             {func(j *job) { j.To = "gopher://x" }, ErrConfig},
		"half a line":        {func(j *job) { j.To = half }, ErrConfig},
		"a directory":        {func(j *job) { j.To = tmp }, ErrConfig},
		"batch":              {func(j *job) { j.Batch = -1 }, ErrConfig},
	} {
		j := good
		tt.change(&j)
		if err := once(t, j); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(good.To); err == nil {
		t.Error("something was written")
	}
	if err := once(t, good); err != nil {
		t.Fatal(err)
	}
	moved := good
	moved.To += "2"
	if err := once(t, moved); !errors.Is(err, ErrCursor) {
		t.Errorf("another destination under the same name: %v", err)
	}
	cursor := filepath.Join(dir, "export", "n.cursor")
	if err := os.WriteFile(cursor, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := once(t, good); !errors.Is(err, ErrCursor) {
		t.Errorf("an empty cursor: %v", err)
	}
	if err := Forget(dir, "n"); err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir, "n"); !errors.Is(err, ErrCursor) {
		t.Errorf("forgotten twice: %v", err)
	}
}

// One exporter for one cursor.
func TestOneExporterPerCursor(t *testing.T) {
	_, dir := newLog(t, 3)
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "n", To: filepath.Join(t.TempDir(), "out"), Format: "jsonl", Follow: true}
	cmd := j.process(t)
	reached(t, dir, "n", cmd)
	j.Follow = false
	if err := once(t, j); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if err := Forget(dir, "n"); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if l, err := List(dir); err != nil || len(l) != 1 || !l[0].Running || l[0].Lag != 0 {
		t.Fatal(l, err)
	}
	kill9(cmd)
	if err := once(t, j); err != nil {
		t.Fatal(err)
	}
	if l, err := List(dir); err != nil || len(l) != 1 || l[0].Running {
		t.Fatal(l, err)
	}
}

// A damaged log ends the export with the damage; what is before it was sent,
// nothing of it or behind it is.
func TestExportStopsAtDamage(t *testing.T) {
	_, dir := newLog(t, 200)
	seg := filepath.Join(dir, "journal", "log", "00000000.seg")
	b, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, fmt.Appendf(nil, `"run":"%064x"`, 101))
	b[at+10] ^= 1
	if err := os.WriteFile(seg, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "n", To: out, Format: "jsonl", Batch: 10}
	for range 2 {
		if err := once(t, j); !errors.Is(err, audit.ErrDamaged) || !strings.Contains(err.Error(), "crc damage") {
			t.Fatal(err)
		}
		got := readNative(t, readAll(t, out))
		origin, _ := logSize(t, dir)
		if n := int64(len(got)); n < 90 || n > 102 {
			t.Fatalf("%d records", n)
		} else {
			whole(t, origin, n, got)
		}
	}
	if l, err := List(dir); err != nil || !strings.Contains(l[0].Error, "crc damage") {
		t.Fatal(l, err)
	}
}

// From an index on, and from now on.
func TestFrom(t *testing.T) {
	l, dir := newLog(t, 30)
	out := filepath.Join(t.TempDir(), "out")
	cfg, err := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "n", To: out, Format: "jsonl"}.config()
	if err != nil {
		t.Fatal(err)
	}
	cfg.From = 10
	if err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	origin, _ := logSize(t, dir)
	if got := readNative(t, readAll(t, out)); len(got) != 21 || got[0].id != fmt.Sprintf("ward:%s/10", origin) {
		t.Fatal(len(got))
	}
	if err := Run(t.Context(), cfg); !errors.Is(err, ErrCursor) {
		t.Fatal(err) // a cursor is not moved by hand
	}
	cfg.Name, cfg.From, cfg.Now = "m", 0, true
	for _, want := range []int{21, 24} {
		if err := Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if got := readNative(t, readAll(t, out)); len(got) != want {
			t.Fatal(len(got))
		}
		record(t, l, 0, 3)
		cfg.Now = false
	}
}

// Without a cursor, without the record, and with a bound on an event's size.
func TestShortForms(t *testing.T) {
	_, dir := newLog(t, 20)
	for _, f := range Formats() {
		out := filepath.Join(t.TempDir(), "out")
		cfg, err := job{Dir: dir, VKey: vkeyOf(t, dir), To: out, Format: f}.config()
		if err != nil {
			t.Fatal(err)
		}
		cfg.NoRecord = true
		if err := Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		short := readAll(t, out)
		if bytes.Contains(short, []byte("a=b|c")) || bytes.Contains(short, []byte(`a\=b|c`)) || bytes.Contains(short, []byte("mono")) {
			t.Errorf("%s: arguments went out", f)
		}
		if n := bytes.Count(short, []byte("\n")); n != 21 {
			t.Errorf("%s: %d lines", f, n)
		}
		cfg.NoRecord, cfg.MaxBytes = false, 10
		if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readAll(t, out), short) {
			t.Errorf("%s: a bound on size gives another short form", f)
		}
	}
	if _, err := os.Stat(stateDir(dir)); err == nil {
		t.Error("an export without a name left state")
	}
}
