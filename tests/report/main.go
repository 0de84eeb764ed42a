// Command report reads `go test -json` and prints what a person wants of it:
// go test's own result lines, the whole output of what failed, and one last
// line "N passed, N failed, N skipped". It exits 1 if a test or a build
// failed, if nothing ran, or if a test skipped that -allow-skips does not list.
//
// It promises that a skip is never silent: each one is listed with the reason
// the test gave.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	list := flag.String("allow-skips", "", "file of skips that are no failure: 'TestName reason…' a line; every other skip fails")
	because := flag.String("allow-reason", "", "a skip that gives this reason is no failure; every other skip fails")
	flag.Parse()
	allowed, err := readAllowed(*list)
	if *because != "" {
		allowed.reason, allowed.strict = *because, true
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	ok, err := report(os.Stdin, os.Stdout, allowed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// skipRule says which tests may skip. The zero value lets every test skip.
type skipRule struct {
	strict bool
	tests  map[string]bool // names of tests that may skip
	reason string          // skips that say this are fine
}

// permits says whether name, or a test it is part of, may skip for that reason.
func (a skipRule) permits(name, why string) bool {
	if !a.strict || (a.reason != "" && strings.Contains(why, a.reason)) {
		return true
	}
	for {
		if a.tests[name] {
			return true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
}

func readAllowed(path string) (skipRule, error) {
	if path == "" {
		return skipRule{}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return skipRule{}, err
	}
	rule := skipRule{strict: true, tests: map[string]bool{}}
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			return skipRule{}, fmt.Errorf("%s:%d: %s may skip, but no reason is given", path, n+1, name)
		}
		rule.tests[name] = true
	}
	return rule, nil
}

// event is one line of go test -json (see `go doc test2json`).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type key struct{ pkg, test string }

type tally struct {
	out                     io.Writer
	output                  map[key][]string
	passed, failed, skipped int
	packages                int
	bad                     []string
	skips                   []string
	allowed                 skipRule
}

// report prints the stream and says whether all went well.
func report(in io.Reader, out io.Writer, allowed skipRule) (bool, error) {
	t := &tally{out: out, output: map[key][]string{}, allowed: allowed}
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line) // the go tool's own complaint
			} else {
				t.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
	}
	return t.finish(), nil
}

func (t *tally) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test != "" {
			t.output[k] = append(t.output[k], e.Output)
		} else if wanted(e.Output) {
			fmt.Fprint(t.out, e.Output)
		}
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "build-fail":
		t.failed++
		t.bad = append(t.bad, "build of "+e.ImportPath)
	case "pass", "fail", "skip":
		t.end(k, e.Action)
	}
}

// wanted leaves out the bare PASS/FAIL of a package: its result line follows.
func wanted(line string) bool { return line != "PASS\n" && line != "FAIL\n" }

func (t *tally) end(k key, action string) {
	if k.test == "" {
		if action != "skip" { // a package without test files
			t.packages++
		}
		if action == "fail" {
			t.bad = append(t.bad, k.pkg)
		}
		return
	}
	switch action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		fmt.Fprint(t.out, strings.Join(t.output[k], ""))
		t.bad = append(t.bad, k.pkg+" "+k.test)
	case "skip":
		t.skipped++
		why := reason(t.output[k])
		line := k.pkg + " " + k.test + ": " + why
		if !t.allowed.permits(k.test, why) {
			t.bad = append(t.bad, "skipped though it must run: "+line)
		}
		t.skips = append(t.skips, line)
	}
	delete(t.output, k)
}

// reason is what the test said when it skipped: the last line that is not
// go test's own.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		s := strings.TrimSpace(lines[i])
		if s != "" && !strings.HasPrefix(s, "---") && !strings.HasPrefix(s, "===") {
			return s
		}
	}
	return "no reason given"
}

func (t *tally) finish() bool {
	for _, s := range t.skips {
		fmt.Fprintln(t.out, "skipped:", s)
	}
	if t.packages == 0 {
		t.bad = append(t.bad, "no package was tested")
	}
	for _, s := range t.bad {
		fmt.Fprintln(t.out, "FAILED:", s)
	}
	if t.failed == 0 && len(t.bad) > 0 {
		t.failed = len(t.bad) // a forbidden skip is a failure, also in the count
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	return len(t.bad) == 0
}
