// Package report writes what a gate answered in the forms that pipelines read:
// text, JSON, JUnit, SARIF 2.1.0, GitHub's workflow commands and TAP 14.
//
// It promises that nothing an image or a file says ends up as markup, as a
// command to the pipeline, or as a control character; and that an answer that
// is not an allow never looks like one in any form.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// The outcomes, as in the audit log. Whatever else stands there is not an
// allow.
const (
	Allow         = "allow"
	Deny          = "deny"
	Invalid       = "invalid"
	Indeterminate = "indeterminate"
)

// Reason is one reason for an answer, or a warning beside it.
type Reason struct {
	Code string `json:"code"`
	Msg  string `json:"msg"`
	Fix  string `json:"fix,omitempty"`
	// Line is where in the file, if it is about a place of its own; else 0.
	Line int `json:"line,omitempty"`
}

// Result is the answer about one image.
type Result struct {
	// File and Line say where it stands, Resource what it belongs to; all are
	// empty for an image named on the command line.
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Resource string `json:"resource,omitempty"`
	// Image is the name as written, Reference the same in full.
	Image     string `json:"image"`
	Reference string `json:"reference,omitempty"`
	// Digest is the manifest's that was judged, Index that of the index it was
	// chosen from.
	Digest  string `json:"digest,omitempty"`
	Index   string `json:"index,omitempty"`
	Outcome string `json:"outcome"`
	// Stage is the verb that refused.
	Stage   string   `json:"stage,omitempty"`
	Reasons []Reason `json:"reasons,omitempty"`
	Warn    []Reason `json:"warn,omitempty"`
	// Unknown names the facts that only the host that runs it can know.
	Unknown []string `json:"unknown,omitempty"`
	// Equivalent is what it was judged as: the options of ward run.
	Equivalent []string `json:"equivalent,omitempty"`
	// Decision and Evidence are the records of both, as in the audit log.
	Decision json.RawMessage `json:"decision,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// Report is the answer about all that was asked.
type Report struct {
	// Version is ward's.
	Version string   `json:"version"`
	Outcome string   `json:"outcome"`
	Results []Result `json:"results"`
}

// order is from the one that decides over all others to the one that any other
// decides over. A no stays no whatever the rest turns out to be; a mistake in
// the question has to be mended, which trying again does not.
var order = []string{Deny, Invalid, Indeterminate, Allow}

// New puts results together. Nothing asked is not an allow.
func New(version string, rs []Result) Report {
	r := Report{Version: version, Outcome: Invalid, Results: rs}
	if len(rs) == 0 {
		return r
	}
	worst := len(order) - 1
	for _, res := range rs {
		at := slices.Index(order, res.Outcome)
		if at < 0 {
			at = 0
		}
		worst = min(worst, at)
	}
	r.Outcome = order[worst]
	return r
}

// Exit is the exit code of a report: 0 allow, 1 deny, 2 invalid, 3
// indeterminate.
func (r Report) Exit() int {
	switch r.Outcome {
	case Allow:
		return 0
	case Invalid:
		return 2
	case Indeterminate:
		return 3
	}
	return 1
}

// formats are the writers by name.
var formats = map[string]func(io.Writer, Report) error{"text": text, "json": encode, "junit": junit, "sarif": sarif, "github": github, "tap": tap}

// Formats are the names that Write knows, sorted.
func Formats() []string {
	var names []string
	for n := range formats {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Write writes a report in the form named.
func Write(w io.Writer, form string, r Report) error {
	f, ok := formats[form]
	if !ok {
		return fmt.Errorf("no report form %q", form)
	}
	return f(w, r)
}

// encode writes all there is, exactly. What a runner would take for a command in
// it is written with an escape, which is the same text to a reader of JSON.
func encode(w io.Writer, r Report) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	_, err := w.Write(Escaped(b.Bytes()))
	return err
}

// Escaped is JSON with nothing in its strings that drives a terminal or a
// pipeline's runner: encoding/json leaves some control characters as they are.
func Escaped(b []byte) []byte {
	text := string(b)
	for _, prefix := range runnerCommands {
		text = strings.ReplaceAll(text, prefix, prefix[:len(prefix)-1]+`\u005b`)
	}
	var out strings.Builder
	for _, c := range text {
		if c >= 0x7f && c <= 0x9f {
			fmt.Fprintf(&out, `\u%04x`, c)
			continue
		}
		out.WriteRune(c)
	}
	return []byte(out.String())
}

func text(w io.Writer, r Report) error {
	var b strings.Builder
	for _, res := range r.Results {
		fmt.Fprintf(&b, "%-13s %s\n", res.Outcome, line(res.title()))
		if res.Digest != "" {
			fmt.Fprintf(&b, "              %s\n", line(res.Reference+"@"+res.Digest))
		}
		for _, rs := range res.Reasons {
			fmt.Fprintf(&b, "  %s\n    %s\n", line(rs.Code), line(res.at(rs)+rs.Msg))
			if rs.Fix != "" {
				fmt.Fprintf(&b, "    fix: %s\n", line(rs.Fix))
			}
		}
		for _, rs := range res.Warn {
			fmt.Fprintf(&b, "  warning %s\n    %s\n", line(rs.Code), line(res.at(rs)+rs.Msg))
		}
		if len(res.Unknown) > 0 {
			fmt.Fprintf(&b, "  not known here: %s\n", line(strings.Join(res.Unknown, ", ")))
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", r.Outcome, r.counts())
	_, err := io.WriteString(w, b.String())
	return err
}

// title names a result for people: where it stands, and the image.
func (r Result) title() string {
	switch {
	case r.File == "":
		return r.Image
	case r.Line > 0:
		return fmt.Sprintf("%s:%d: %s: %s", r.File, r.Line, r.Resource, r.Image)
	}
	return fmt.Sprintf("%s: %s: %s", r.File, r.Resource, r.Image)
}

// at is the place of a reason that has one of its own.
func (r Result) at(rs Reason) string {
	if rs.Line == 0 || r.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", r.File, rs.Line)
}

// counts says how many images had which outcome.
func (r Report) counts() string {
	n := map[string]int{}
	for _, res := range r.Results {
		n[res.Outcome]++
	}
	var parts []string
	for _, o := range []string{Allow, Deny, Invalid, Indeterminate} {
		if n[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[o], o))
		}
	}
	return strings.Join(parts, ", ")
}

// runnerCommands begin what some runners obey wherever it stands in a line.
var runnerCommands = []string{"##[", "##vso[", "##teamcity["}

// line makes a text of others one line without control characters, and without
// what a pipeline's runner would take for a command: "::…" at its beginning, or
// "##[" anywhere.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '\uFFFD'
	}, s)
	if rest := strings.TrimLeft(s, " "); strings.HasPrefix(rest, "::") {
		s = ": " + rest[1:]
	}
	for _, prefix := range runnerCommands {
		s = strings.ReplaceAll(s, prefix, "# #"+prefix[2:])
	}
	return s
}
