package deps

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	quoted   = regexp.MustCompile("`([^`]+)`")
	testName = regexp.MustCompile(`^((?:[a-z]+(?:/[a-z-]+)*) )?((?:Test|Fuzz)[A-Za-z0-9_]+)$`)
	script   = regexp.MustCompile(`^tests/cli/[a-z_]+\.txt$`)
)

// TestSecurityClaims holds SECURITY.md to its word: each claim names a test,
// and each test that it names, in the table or outside, exists.
func TestSecurityClaims(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begun := strings.Cut(string(b), "<!-- claims:begin -->")
	table, _, ended := strings.Cut(rest, "<!-- claims:end -->")
	if !begun || !ended {
		t.Fatal("SECURITY.md has no table of claims")
	}
	tests := testFunctions(t)
	claims := 0
	for _, row := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "| "), "|")
		claim, held := strings.TrimSpace(cells[0]), ""
		if len(cells) > 1 {
			held = cells[1]
		}
		if strings.HasPrefix(claim, "**") && strings.TrimSpace(held) == "" {
			continue // a heading
		}
		claims++
		if named(t, tests, held) == 0 {
			t.Errorf("no test holds the claim %q", claim)
		}
	}
	if claims < 20 {
		t.Errorf("only %d claims found", claims)
	}
	named(t, tests, strings.Replace(string(b), table, "", 1))
}

// named checks every test named in text and returns how many there are.
func named(t *testing.T, tests map[string]bool, text string) int {
	t.Helper()
	n, dir := 0, ""
	for _, q := range quoted.FindAllStringSubmatch(text, -1) {
		if script.MatchString(q[1]) {
			n++
			if _, err := os.Stat(filepath.Join(root, q[1])); err != nil {
				t.Errorf("SECURITY.md names %s: %v", q[1], err)
			}
			continue
		}
		m := testName.FindStringSubmatch(q[1])
		if m == nil {
			continue
		}
		n++
		if m[1] != "" {
			dir = strings.TrimSpace(m[1])
		}
		if !tests[dir+" "+m[2]] {
			t.Errorf("SECURITY.md names %s in %s, which does not exist", m[2], dir)
		}
	}
	return n
}

// testFunctions lists "package name" of every test and fuzz function.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	_, all := sources(t)
	found := map[string]bool{}
	for _, s := range all {
		if !s.test {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				found[s.dir+" "+f.Name.Name] = true
			}
		}
	}
	return found
}
