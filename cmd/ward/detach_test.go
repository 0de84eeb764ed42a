package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"strings"
)

func TestDetachKeys(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	for flag, want := range map[string]string{"": "\x10\x11", "a": "a", "ctrl-a,d": "\x01d", "ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-\\": "\x1c",
		"ctrl-_": "\x1f", "DEL": "\x7f", "CTRL-Z": "\x1a"} {
		if got, err := detachKeys(flag); err != nil || string(got) != want {
			t.Errorf("%q is %q (%v), want %q", flag, got, err, want)
		}
	}
	for _, flag := range []string{"ctrl-", "ctrl-1", "aa", "a,,b", ",", "ctrl-ab", "f1", "ctrl-é"} {
		if got, err := detachKeys(flag); err == nil {
			t.Errorf("%q is taken as %q", flag, got)
		}
	}
	for content, want := range map[string]string{`{"detachKeys": "ctrl-e,e"}`: "\x05e", `{"auths": {}}`: "\x10\x11", `{"detachKeys": "nonsense"}`: "", `{`: ""} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := detachKeys(""); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("with %s: %q (%v), want %q", content, got, err, want)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for typed, want := range map[string]struct {
		out  string
		left bool
	}{
		"text": {"text", false}, "": {"", false}, "a\x10\x11b": {"a", true}, "\x10": {"\x10", false}, "\x10\x10\x11": {"\x10", true},
		"\x10x\x11": {"\x10x\x11", false}, "\x11\x10": {"\x11\x10", false}, "\x10\x10": {"\x10\x10", false},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(typed), "by bytes": iotest.OneByteReader(strings.NewReader(typed)),
			"with the end": iotest.DataErrReader(strings.NewReader(typed))} {
			out, err := io.ReadAll(&keyReader{from: r, keys: []byte("\x10\x11")})
			if string(out) != want.out || (err == errDetached) != want.left {
				t.Errorf("%q %s: %q %v", typed, name, out, err)
			}
		}
	}
	// Keys that begin like themselves again.
	out, err := io.ReadAll(&keyReader{from: strings.NewReader("aaab!"), keys: []byte("aab")})
	if string(out) != "a" || err != errDetached {
		t.Errorf("%q %v", out, err)
	}
}
