package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// FuzzReports holds that what an image, a file or a policy says stays text in
// every form: the number of lines, elements and commands does not depend on it.
func FuzzReports(f *testing.F) {
	f.Add(hostile, hostile)
	f.Add("a\u0085b", "c\u2029\ufeff")
	f.Add("", "::set-output name=x::y")
	f.Add("- x", "'\"#:{}[]&*!|>%@`")
	f.Fuzz(func(t *testing.T, name, said string) {
		made := func(name, said string) Report {
			return New("v1", []Result{{Image: name, File: name, Line: 3, Resource: name, Reference: name, Digest: said, Outcome: Deny,
				Reasons: []Reason{{said, said, said, 1}}, Warn: []Reason{{said, said, said, 2}}}})
		}
		r, plain := made(name, said), made("x", "x")
		for _, form := range Formats() {
			var b, p bytes.Buffer
			if err := Write(&b, form, r); err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if err := Write(&p, form, plain); err != nil {
				t.Fatal(err)
			}
			for _, c := range b.String() {
				if c != '\n' && c != '\t' && unicode.IsControl(c) {
					t.Fatalf("%s: control character %q", form, c)
				}
			}
			switch form {
			case "json", "sarif":
				if !json.Valid(b.Bytes()) {
					t.Fatalf("%s: %q", form, b.Bytes())
				}
			case "junit":
				if got, want := elements(t, b.Bytes()), elements(t, p.Bytes()); got != want {
					t.Fatalf("%s: %d elements, not %d: %q", form, got, want, b.Bytes())
				}
			case "github":
				if got, want := strings.Count("\n"+b.String(), "\n::"), strings.Count("\n"+p.String(), "\n::"); got != want {
					t.Fatalf("%s: %d commands, not %d: %q", form, got, want, b.Bytes())
				}
			case "tap":
				if got, want := strings.Count(b.String(), "\n"), strings.Count(p.String(), "\n"); name != "" && said != "" && got != want {
					t.Fatalf("%s: %d lines, not %d: %q", form, got, want, b.Bytes())
				}
				_, doc, _ := strings.Cut(b.String(), "  ---\n")
				doc, _, _ = strings.Cut(doc, "\n  ...")
				var v any
				if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
					t.Fatalf("%s: %v: %q", form, err, doc)
				}
			}
		}
	})
}

func elements(t *testing.T, b []byte) (n int) {
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		tok, err := d.Token()
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatalf("%v: %q", err, b)
		}
		if _, ok := tok.(xml.StartElement); ok {
			n++
		}
	}
}
