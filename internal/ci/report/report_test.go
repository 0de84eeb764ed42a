package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// hostile is what somebody may have called an image or written in a file.
var hostile = "x\n::error::y\r\x1b[31m</testcase>\x00]]>&\"'%0A,a=b # TODO\n1..0\nok 1\u2028\xff##[error]z\n  ...\nBail out!"

// reports has every outcome, alone and together, plain and hostile.
func reports() map[string]Report {
	allow := Result{Image: "r.example/a:1", Reference: "r.example/a:1", Digest: digest, Outcome: Allow, Unknown: []string{"run.network"}}
	deny := Result{File: "dir/compose.yaml", Line: 3, Resource: "services.web", Image: "r.example/b:1", Outcome: Deny, Stage: "decide",
		Reasons: []Reason{{"ci.ports", "services.web.ports: no", "take it out", 7}, {"baseline.capabilities", "SYS_ADMIN", "", 0}},
		Warn:    []Reason{{"ci.network", "a network", "", 8}}}
	bad := Result{Image: hostile, File: hostile, Line: 1, Resource: hostile, Reference: hostile, Digest: hostile, Outcome: Deny,
		Reasons: []Reason{{hostile, hostile, hostile, 1}}, Warn: []Reason{{hostile, hostile, hostile, 2}}}
	silent := Result{Image: "r.example/c", Outcome: Deny}
	odd := Result{Image: "r.example/d", Outcome: "perhaps", Reasons: []Reason{{"x.y", "z", "", 0}}}
	unknown := Result{Image: "r.example/e", Outcome: Indeterminate, Reasons: []Reason{{"registry.unavailable", "down", "try again", 0}}}
	invalid := Result{File: "/abs/pod yaml", Image: "r.example/f", Outcome: Invalid, Reasons: []Reason{{"image.missing", "no", "", 0}}}
	out := map[string]Report{}
	for name, rs := range map[string][]Result{
		"allow": {allow}, "deny": {deny}, "hostile": {bad}, "silent": {silent}, "odd": {odd}, "unknown": {unknown}, "invalid": {invalid},
		"all": {allow, deny, bad, silent, odd, unknown, invalid}, "two": {allow, allow},
	} {
		out[name] = New("v1", rs)
	}
	return out
}

func write(t *testing.T, form string, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, form, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWorstDecides(t *testing.T) {
	for _, c := range []struct {
		outcomes string
		exit     int
	}{
		{"", 2}, {"allow", 0}, {"allow allow", 0}, {"allow indeterminate", 3}, {"indeterminate invalid", 2}, {"invalid deny indeterminate allow", 1},
		{"allow perhaps", 1}, {"deny", 1}, {"invalid", 2},
	} {
		var rs []Result
		for _, o := range strings.Fields(c.outcomes) {
			rs = append(rs, Result{Outcome: o})
		}
		if got := New("", rs).Exit(); got != c.exit {
			t.Errorf("%q: exit %d, want %d", c.outcomes, got, c.exit)
		}
	}
	if (Report{}).Exit() != 1 {
		t.Error("the zero report is an allow")
	}
}

// No form writes a control character, a line of somebody else's making, or a
// command to a pipeline's runner that is not ours.
func TestNothingHostileGetsThrough(t *testing.T) {
	for name, r := range reports() {
		for _, form := range Formats() {
			got := write(t, form, r)
			for _, l := range strings.Split(got, "\n") {
				ours := form == "github" && regexp.MustCompile(`^::(error|warning|notice) [^:]*::`).MatchString(l)
				if strings.HasPrefix(strings.TrimSpace(l), "::") && !ours || strings.Contains(l, "##[") || strings.HasPrefix(l, "Bail") {
					t.Errorf("%s as %s: %q", name, form, l)
				}
			}
			if form != "json" && strings.ContainsAny(got, "\x00\x1b\r\u2028") {
				t.Errorf("%s as %s has control characters", name, form)
			}
		}
	}
}

func TestSARIF(t *testing.T) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("testdata/sarif-subset.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range reports() {
		got := write(t, "sarif", r)
		keep(t, name+".sarif", got)
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(got))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		var l sarifLog
		if err := json.Unmarshal([]byte(got), &l); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, res := range l.Runs[0].Results {
			if l.Runs[0].Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID {
				t.Errorf("%s: rule %d is not %s", name, res.RuleIndex, res.RuleID)
			}
			if res.Level == "error" {
				failed++
			}
		}
		inv := l.Runs[0].Invocations[0]
		if (r.Outcome == Allow) != (failed == 0 && inv.ExecutionSuccessful) || inv.ExitCode != r.Exit() {
			t.Errorf("%s: %s looks otherwise:\n%s", name, r.Outcome, got)
		}
	}
	a := Result{File: "f", Resource: "r", Image: "h:1/a:1@sha256:2", Line: 1}
	b := Result{File: "f", Resource: "r", Image: "h:1/a:2", Line: 9}
	if a.fingerprint(Reason{Code: "c"}) != b.fingerprint(Reason{Code: "c"}) || a.fingerprint(Reason{Code: "c"}) == a.fingerprint(Reason{Code: "d"}) {
		t.Error("a finding is not known again")
	}
}

// junitForm is what Jenkins' schema (junit-10.xsd) lets each element have:
// attributes, those in capitals required, and children.
var junitForm = map[string]struct{ attributes, children string }{
	"testsuites": {"name time tests failures errors", "testsuite"},
	"testsuite":  {"NAME TESTS FAILURES ERRORS group time skipped timestamp hostname id package file log url", "testsuite properties testcase system-out system-err"},
	"testcase":   {"NAME time classname group", "skipped error failure system-out system-err"},
	"failure":    {"type message", ""}, "error": {"type message", ""}, "skipped": {"type message", ""}, "system-out": {"", ""},
}

func TestJUnit(t *testing.T) {
	for name, r := range reports() {
		got := write(t, "junit", r)
		keep(t, name+".xml", got)
		d := xml.NewDecoder(strings.NewReader(got))
		var stack []string
		counted := map[string]int{}
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, got)
			}
			switch e := tok.(type) {
			case xml.StartElement:
				form, ok := junitForm[e.Name.Local]
				if len(stack) > 0 {
					ok = ok && slices.Contains(strings.Fields(junitForm[stack[len(stack)-1]].children), e.Name.Local)
				}
				if !ok {
					t.Errorf("%s: element %s in %v", name, e.Name.Local, stack)
				}
				have := map[string]bool{}
				for _, a := range e.Attr {
					have[a.Name.Local] = true
					if !slices.Contains(strings.Fields(strings.ToLower(form.attributes)), a.Name.Local) {
						t.Errorf("%s: attribute %s of %s", name, a.Name.Local, e.Name.Local)
					}
				}
				for _, a := range strings.Fields(form.attributes) {
					if strings.ToUpper(a) == a && !have[strings.ToLower(a)] {
						t.Errorf("%s: %s has no %s", name, e.Name.Local, strings.ToLower(a))
					}
				}
				counted[e.Name.Local]++
				stack = append(stack, e.Name.Local)
			case xml.EndElement:
				stack = stack[:len(stack)-1]
			}
		}
		if (r.Outcome == Allow) != (counted["failure"]+counted["error"] == 0) {
			t.Errorf("%s: %s looks otherwise:\n%s", name, r.Outcome, got)
		}
		if !strings.Contains(got, fmt.Sprintf(`tests="%d" failures="%d" errors="%d"`, counted["testcase"], counted["failure"], counted["error"])) {
			t.Errorf("%s: the numbers are wrong\n%s", name, got)
		}
	}
}

func TestTAP(t *testing.T) {
	point := regexp.MustCompile(`^(not )?ok (\d+) - (.*)$`)
	for name, r := range reports() {
		got := write(t, "tap", r)
		keep(t, name+".tap", got)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if lines[0] != "TAP version 14" || lines[1] != fmt.Sprintf("1..%d", len(r.Results)) {
			t.Fatalf("%s: %q", name, lines[:2])
		}
		n, failed := 0, 0
		for i := 2; i < len(lines); i++ {
			m := point.FindStringSubmatch(lines[i])
			if m == nil {
				t.Fatalf("%s: %q is no test point", name, lines[i])
			}
			n++
			if m[2] != fmt.Sprint(n) || regexp.MustCompile(`(^|[^\\])#`).MatchString(m[3]) {
				t.Errorf("%s: %q", name, lines[i])
			}
			if m[1] != "" {
				failed++
			}
			if lines[i+1] != "  ---" {
				t.Fatalf("%s: %q", name, lines[i+1])
			}
			end := i + 2
			for lines[end] != "  ..." {
				end++
			}
			var v map[string]any
			if err := yaml.Unmarshal([]byte(strings.Join(lines[i+2:end], "\n")), &v); err != nil || v["outcome"] != r.Results[n-1].Outcome {
				t.Errorf("%s: %v %v", name, err, v)
			}
			i = end
		}
		if n != len(r.Results) || (r.Outcome == Allow) != (failed == 0) {
			t.Errorf("%s: %d points, %d failed:\n%s", name, n, failed, got)
		}
	}
}

func TestGitHub(t *testing.T) {
	got := write(t, "github", reports()["deny"])
	want := "::error file=dir/compose.yaml,line=7,title=ward gate%3A ci.ports::r.example/b:1: services.web.ports: no (fix: take it out)\n"
	if !strings.HasPrefix(got, want) || !strings.Contains(got, "::warning file=dir/compose.yaml,line=8,") || !strings.HasSuffix(got, "\ndeny: 1 deny\n") {
		t.Errorf("%s", got)
	}
	if n := strings.Count(write(t, "github", reports()["hostile"]), "\n"); n != 3 {
		t.Errorf("%d lines for a deny and a warning", n)
	}
}

func TestJSON(t *testing.T) {
	var r Report
	if err := json.Unmarshal([]byte(write(t, "json", reports()["all"])), &r); err != nil || r.Outcome != Deny || len(r.Results) != 7 {
		t.Errorf("%v %+v", err, r)
	}
}

// keep puts what was written where WARD_REPORTS says, for other programs to
// look at.
func keep(t *testing.T, name, text string) {
	if dir := os.Getenv("WARD_REPORTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
