package policy

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/ward-project/ward/internal/fault"
)

// reporter is the one for the format, and an error for options that contradict
// each other.
func (o TestOptions) reporter(w io.Writer) (tester.Reporter, error) {
	bad := func(cause, remedy string) (tester.Reporter, error) {
		return nil, fault.New(fault.Invalid, "usage", cause, remedy)
	}
	if _, err := regexp.Compile(o.Run); err != nil {
		return bad(fmt.Sprintf("--run: %v", err), "give a regular expression, such as 'test_root'")
	}
	if o.Coverage && o.Format != "" && o.Format != "json" {
		return bad("coverage is reported as JSON alone", "leave out --format")
	}
	if o.Threshold != 0 && !o.Coverage || o.Threshold < 0 || o.Threshold > 100 {
		return bad("a threshold is a percentage of lines that are covered", "give --coverage --threshold 90")
	}
	switch cmp.Or(o.Format, "pretty") {
	case "pretty":
		return tester.PrettyReporter{Output: w, Verbose: o.Verbose, FailureLine: true}, nil
	case "json":
		if o.Coverage {
			return tester.PrettyReporter{Output: w, Verbose: o.Verbose, FailureLine: true}, nil // of what failed; then there is no coverage
		}
		return tester.JSONReporter{Output: w}, nil
	case "junit":
		return junit{w}, nil
	}
	return bad(fmt.Sprintf("%.32q is not a format of test results", o.Format), "use pretty, json or junit")
}

// junit reports as JUnit's XML, one suite a package.
type junit struct{ w io.Writer }

type junitSuites struct {
	XMLName  xml.Name      `xml:"testsuites"`
	Tests    int           `xml:"tests,attr"`
	Failures int           `xml:"failures,attr"`
	Errors   int           `xml:"errors,attr"`
	Skipped  int           `xml:"skipped,attr"`
	Time     string        `xml:"time,attr"`
	Suites   []*junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`

	seconds float64
}

type junitCase struct {
	Class   string       `xml:"classname,attr"`
	Name    string       `xml:"name,attr"`
	File    string       `xml:"file,attr,omitempty"`
	Line    int          `xml:"line,attr,omitempty"`
	Time    string       `xml:"time,attr"`
	Failure *junitReason `xml:"failure,omitempty"`
	Error   *junitReason `xml:"error,omitempty"`
	Skipped *struct{}    `xml:"skipped,omitempty"`
	Output  string       `xml:"system-out,omitempty"`
}

type junitReason struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// Report implements tester.Reporter.
func (j junit) Report(results chan *tester.Result) error {
	all := junitSuites{}
	byName := map[string]*junitSuite{}
	seconds := 0.0
	for r := range results {
		s := byName[r.Package]
		if s == nil {
			s = &junitSuite{Name: r.Package}
			byName[r.Package] = s
			all.Suites = append(all.Suites, s)
		}
		c := junitCase{Class: r.Package, Name: r.Name, Time: fmt.Sprintf("%.6f", r.Duration.Seconds()), Output: xmlText(string(r.Output))}
		if r.Location != nil {
			c.File, c.Line = r.Location.File, r.Location.Row
		}
		switch {
		case r.Skip:
			c.Skipped = &struct{}{}
			s.Skipped++
			all.Skipped++
		case r.Error != nil:
			c.Error = &junitReason{Message: xmlText(r.Error.Error())}
			s.Errors++
			all.Errors++
		case r.Fail:
			c.Failure = failedAt(r)
			s.Failures++
			all.Failures++
		}
		s.Tests++
		all.Tests++
		s.seconds += r.Duration.Seconds()
		seconds += r.Duration.Seconds()
		s.Cases = append(s.Cases, c)
	}
	for _, s := range all.Suites {
		s.Time = fmt.Sprintf("%.6f", s.seconds)
	}
	all.Time = fmt.Sprintf("%.6f", seconds)
	b, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(j.w, "%s%s\n", xml.Header, b)
	}
	return err
}

// failedAt names the expression that was not true, where it is known, and the
// cases of a test that has several.
func failedAt(r *tester.Result) *junitReason {
	f := &junitReason{Message: "the test is not true"}
	for _, e := range slices.Backward(r.Trace) {
		if e.Op == topdown.FailOp && e.Location != nil && e.QueryID != 0 {
			f.Message = xmlText(fmt.Sprintf("%s:%d: %s", e.Location.File, e.Location.Row, strings.TrimSpace(string(e.Location.Text))))
			break
		}
	}
	var cases []string
	for name, sub := range r.SubResults.Iter {
		if sub.Fail {
			cases = append(cases, strings.Join(name, " / "))
		}
	}
	f.Text = xmlText(strings.Join(cases, "\n"))
	return f
}

// xmlText leaves out what XML cannot hold.
func xmlText(s string) string { return strings.Map(xmlRune, s) }

func xmlRune(r rune) rune {
	if r == '\t' || r == '\n' || r >= ' ' && r != 0xFFFE && r != 0xFFFF {
		return r
	}
	return -1
}

// coverage is which lines of which file were evaluated.
type coverage map[string]*cover.FileReport

// add takes what a suite is about: the shipped files, or a directory's.
func (c coverage) add(t *cover.Cover, modules map[string]*ast.Module, ships bool) {
	for name, f := range t.Report(modules).Files {
		if strings.HasPrefix(name, shippedPrefix) == ships && !strings.HasSuffix(name, "_test.rego") {
			c[name] = f
		}
	}
}

func (c coverage) report(w io.Writer, threshold float64) error {
	r := cover.Report{Files: c}
	for _, f := range c {
		r.CoveredLines += f.CoveredLines
		r.NotCoveredLines += f.NotCoveredLines
	}
	if n := r.CoveredLines + r.NotCoveredLines; n > 0 {
		r.Coverage = 100 * float64(r.CoveredLines) / float64(n)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	if r.Coverage < threshold {
		return fault.New(fault.Denied, "policy.coverage", fmt.Sprintf("%.1f%% of the policy's lines are covered by tests, less than %.1f%%", r.Coverage, threshold), "test the lines under not_covered")
	}
	return nil
}
