package report

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// junit writes a suite for each image and a case for each rule that spoke. A
// deny is a failure; what is no answer is an error.
func junit(w io.Writer, r Report) error {
	type problem struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Name      string   `xml:"name,attr"`
		Classname string   `xml:"classname,attr"`
		Error     *problem `xml:"error"`
		Failure   *problem `xml:"failure"`
		Out       string   `xml:"system-out,omitempty"`
	}
	type suite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Cases    []testcase `xml:"testcase"`
	}
	type suites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Suites   []suite  `xml:"testsuite"`
	}
	all := suites{Name: "ward gate"}
	for _, res := range r.Results {
		s := suite{Name: line(res.title())}
		// Places are in the texts: the schema of Jenkins has no attributes for them.
		add := func(name string) *testcase {
			s.Cases = append(s.Cases, testcase{Name: line(name), Classname: line(res.Image)})
			return &s.Cases[len(s.Cases)-1]
		}
		if res.Outcome == Allow {
			add("allow").Out = line(res.Reference + "@" + res.Digest)
		}
		for _, rs := range res.problems() {
			c := add(rs.Code)
			p := &problem{Type: line(rs.Code), Message: line(rs.Msg), Text: line(res.at(rs) + rs.Msg + fix(rs))}
			if res.Outcome == Invalid || res.Outcome == Indeterminate {
				c.Error = p
				s.Errors++
			} else {
				c.Failure = p
				s.Failures++
			}
		}
		for _, rs := range res.Warn {
			add(rs.Code).Out = line("warning: " + rs.Msg)
		}
		s.Tests = len(s.Cases)
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
		all.Suites = append(all.Suites, s)
	}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, xml.Header+string(b)+"\n")
	return err
}

// problems are the reasons of what is not an allow; there is always one.
func (r Result) problems() []Reason {
	if r.Outcome == Allow || len(r.Reasons) > 0 {
		return r.Reasons
	}
	return []Reason{{Code: "gate.undecided", Msg: "nobody has decided about this image"}}
}

// lineOf is the line of a reason, or that of the image.
func (r Result) lineOf(rs Reason) int {
	if r.File != "" && rs.Line > 0 {
		return rs.Line
	}
	return r.Line
}

func fix(r Reason) string {
	if r.Fix == "" {
		return ""
	}
	return " (fix: " + r.Fix + ")"
}

// github writes the workflow commands that GitHub shows beside the file.
func github(w io.Writer, r Report) error {
	var b strings.Builder
	command := func(kind string, res Result, rs Reason) {
		var props []string
		if res.File != "" {
			props = append(props, "file="+property(res.File))
			if at := res.lineOf(rs); at > 0 {
				props = append(props, fmt.Sprintf("line=%d", at))
			}
		}
		props = append(props, "title="+property("ward gate: "+rs.Code))
		fmt.Fprintf(&b, "::%s %s::%s\n", kind, strings.Join(props, ","), data(res.Image+": "+rs.Msg+fix(rs)))
	}
	for _, res := range r.Results {
		if res.Outcome == Allow {
			command("notice", res, Reason{Code: Allow, Msg: res.Reference + "@" + res.Digest})
		}
		for _, rs := range res.problems() {
			command("error", res, rs)
		}
		for _, rs := range res.Warn {
			command("warning", res, rs)
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", r.Outcome, r.counts())
	_, err := io.WriteString(w, b.String())
	return err
}

// data and property escape as GitHub's runner reads them.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(line(s))
}

func property(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(s))
}

// tap writes the Test Anything Protocol, version 14: a test for each image.
func tap(w io.Writer, r Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 14\n1..%d\n", len(r.Results))
	for i, res := range r.Results {
		ok := "ok"
		if res.Outcome != Allow {
			ok = "not ok"
		}
		name := strings.NewReplacer(`\`, `\\`, "#", `\#`).Replace(line(res.title()))
		fmt.Fprintf(&b, "%s %d - %s\n", ok, i+1, name)
		fmt.Fprintf(&b, "  ---\n  outcome: %s\n", quoted(res.Outcome))
		if res.Digest != "" {
			fmt.Fprintf(&b, "  digest: %s\n", quoted(res.Digest))
		}
		for _, l := range []struct {
			key string
			rs  []Reason
		}{{"reasons", res.problems()}, {"warnings", res.Warn}} {
			if len(l.rs) == 0 {
				continue
			}
			fmt.Fprintf(&b, "  %s:\n", l.key)
			for _, rs := range l.rs {
				fmt.Fprintf(&b, "    - rule: %s\n      message: %s\n", quoted(rs.Code), quoted(res.at(rs)+rs.Msg+fix(rs)))
			}
		}
		b.WriteString("  ...\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted is a text as JSON, which is YAML too.
func quoted(s string) string {
	b, _ := json.Marshal(line(s)) // a string always encodes
	return string(b)
}
