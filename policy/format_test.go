package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

func TestFormat(t *testing.T) {
	b, err := Format("x.rego", []byte("package ward.run\ndeny contains {\"code\":\"a.b\",\"msg\":\"m\"} if {   input.run.user.uid==0 }\n# why\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "package ward.run\n\ndeny contains {\"code\": \"a.b\", \"msg\": \"m\"} if input.run.user.uid == 0\n\n# why\n"
	if string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
	again, err := Format("x.rego", b)
	if err != nil || string(again) != want {
		t.Errorf("formatted again it is %q, %v", again, err)
	}
	_, err = Format("x.rego", []byte("package x\n\ndeny contains if {\n"))
	wanted(t, err, fault.Invalid, "policy.syntax", "x.rego:3")
	_, err = Format("x.rego", []byte(strings.Repeat("# x\n", maxFile)))
	wanted(t, err, fault.Invalid, "policy.size", "x.rego")
}

// What is shipped is laid out as ward policy fmt would.
func TestShippedAreFormatted(t *testing.T) {
	for _, files := range levelFiles {
		for _, f := range files {
			s := shippedSource(f)
			b, err := Format(s.shown, s.text)
			if err != nil || string(b) != string(s.text) {
				t.Errorf("%s is not as it would be formatted: %v", f, err)
			}
		}
	}
}

// Nothing that can be given makes the formatter panic, run on, or change what
// a policy says.
func FuzzFormat(f *testing.F) {
	f.Add("package ward.run\n\ndeny contains \"x\" if input.run.user.uid == 0\n")
	f.Add("package a\n\nimport data.b\n\nx := {1: [2, {3}]}\n\ny if { not x[1]; every k, v in x { k != v } }\n")
	f.Add(exampleInput)
	f.Fuzz(func(t *testing.T, text string) {
		b, err := Format("f.rego", []byte(text))
		if err != nil {
			return
		}
		again, err := Format("f.rego", b)
		if err != nil {
			t.Fatalf("what it wrote is no policy: %v\n%s", err, b)
		}
		_ = again
	})
}

func wanted(t *testing.T, err error, class fault.Class, rule, text string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Class != class || f.Rule != rule || !strings.Contains(f.Cause, text) {
		t.Errorf("%v (%T), want %v by %s about %q", err, err, class, rule, text)
	}
}
