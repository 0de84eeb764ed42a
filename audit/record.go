package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// leafVersion is the version of the leaf's common fields.
const leafVersion = 1

// leaf is a record as stored: one JSON object on one line, never re-encoded.
type leaf struct {
	V     int    `json:"v"`
	Type  Type   `json:"type"`
	Time  string `json:"time"`
	Mono  int64  `json:"mono"`
	Boot  string `json:"boot"`
	Host  string `json:"host"`
	Run   string `json:"run,omitempty"`
	Actor Actor  `json:"actor"`
	Plan  string `json:"plan,omitempty"`
	Data  any    `json:"data,omitempty"`
}

// stamp is what the log itself says of where a record was written.
type stamp struct{ host, boot string }

// newRecord encodes r. The bytes contain no newline, so that a receipt can
// carry them on one line.
func newRecord(r Record, s stamp) ([]byte, error) {
	if r.Type == "" {
		return nil, fmt.Errorf("%w: no type", ErrInvalid)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, fmt.Errorf("boot clock: %w", err)
	}
	l := leaf{
		V: leafVersion, Type: r.Type, Time: time.Now().UTC().Format(time.RFC3339Nano), Mono: now.Nano(),
		Boot: s.boot, Host: s.host, Run: r.Run, Actor: r.Actor, Plan: r.Plan, Data: r.Data,
	}
	out, err := encode(l)
	if err != nil {
		return nil, err
	}
	if shorter, ok := fitted(r.Data); ok && len(out) > maxLeaf {
		l.Data = shorter
		if out, err = encode(l); err != nil {
			return nil, err
		}
	}
	if len(out) > maxLeaf {
		return nil, fmt.Errorf("%w: %s of %d bytes, at most %d", ErrTooLarge, r.Type, len(out), maxLeaf)
	}
	return out, nil
}

func encode(l leaf) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // image names and arguments stay greppable
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, l.Type, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// parseEntry reads a leaf back.
func parseEntry(index int64, b []byte) (Entry, error) {
	var l struct {
		leaf
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return Entry{}, err
	}
	if l.V != leafVersion || l.Type == "" {
		return Entry{}, fmt.Errorf("record of version %d, type %q", l.V, l.Type)
	}
	at, err := time.Parse(time.RFC3339Nano, l.Time)
	if err != nil {
		return Entry{}, err
	}
	return Entry{
		Index: index, Type: l.Type, Time: at, Mono: l.Mono, Boot: l.Boot, Host: l.Host,
		Run: l.Run, Actor: l.Actor, Plan: l.Plan, Data: l.Data, Leaf: b,
	}, nil
}

// bootID is the kernel's random id of this boot, empty if it will not say.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

// isDigest says whether s is "sha256:" and 64 lower-case hex digits.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
