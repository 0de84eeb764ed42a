package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stream = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs root\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`

func run(t *testing.T, in string, allowed skipRule) (bool, string) {
	t.Helper()
	var out bytes.Buffer
	ok, err := report(strings.NewReader(in), &out, allowed)
	if err != nil {
		t.Fatal(err)
	}
	return ok, out.String()
}

func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		in      string
		allowed skipRule
		ok      bool
		want    string
	}{
		"all well":                     {stream, skipRule{}, true, "ok  \tp\t0.1s\nskipped: p TestB: b_test.go:3: needs root\n1 passed, 0 failed, 1 skipped\n"},
		"allowed skip":                 {stream, skipRule{strict: true, tests: map[string]bool{"TestB": true}}, true, "1 skipped"},
		"forbidden skip":               {stream, skipRule{strict: true}, false, "skipped though it must run: p TestB"},
		"skip for the one good reason": {stream, skipRule{strict: true, reason: "needs root"}, true, "1 skipped"},
		"skip for some other reason":   {stream, skipRule{strict: true, reason: "needs a vm"}, false, "TestB: b_test.go:3: needs root"},
		"nothing ran":                  {"", skipRule{}, false, "no package was tested"},
		"a test fails": {`{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
`, skipRule{}, false, "why\nFAILED: p TestA\nFAILED: p\n0 passed, 1 failed"},
		"a build fails": {`{"Action":"build-output","ImportPath":"p","Output":"p.go:1: bad\n"}
{"Action":"build-fail","ImportPath":"p"}
{"Action":"fail","Package":"p"}
`, skipRule{}, false, "p.go:1: bad\n"},
		"a package that only dies": {`{"Action":"fail","Package":"p"}` + "\n", skipRule{}, false, "0 passed, 1 failed"},
	} {
		t.Run(name, func(t *testing.T) {
			ok, out := run(t, c.in, c.allowed)
			if ok != c.ok || !strings.Contains(out, c.want) {
				t.Fatalf("ok=%v, want %v; output:\n%s\nwant in it: %q", ok, c.ok, out, c.want)
			}
		})
	}
}

func TestAllowedSkipNeedsAReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips")
	if err := os.WriteFile(path, []byte("# why\nTestA because of that\nTestB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAllowed(path); err == nil || !strings.Contains(err.Error(), ":3:") {
		t.Fatalf("a skip without a reason was accepted: %v", err)
	}
}

func TestAllowedSkipCoversItsSubtests(t *testing.T) {
	a := skipRule{strict: true, tests: map[string]bool{"TestA": true}}
	if !a.permits("TestA/sub/deeper", "") || a.permits("TestAB", "") {
		t.Fatal("a skip's name must cover its parts and nothing else")
	}
}
