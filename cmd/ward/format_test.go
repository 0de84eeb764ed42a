package main

import (
	"strings"
	"testing"
)

// What an image or a container says comes out of a template too, and must not
// drive the terminal there either.
func TestTemplatesDoNotDriveTheTerminal(t *testing.T) {
	var out strings.Builder
	hostile := "a\x1b]0;owned\x07\rb\u009b2J\x7f"
	rows := []row{{"Command": hostile, "Labels": "one\ttwo\u200d"}}
	if err := listing(&out, `{{.Command}} {{json .Labels}}\n{{.Labels}}`, nil, rows); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\r\u009b\x7f") {
		t.Errorf("%q", out.String())
	}
	if !strings.HasSuffix(out.String(), "\"one\\ttwo\u200d\"\none\ttwo\u200d\n") {
		t.Errorf("it is not as it was: %q", out.String())
	}
}
