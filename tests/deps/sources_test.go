package deps

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is one Go file of the repository.
type source struct {
	path string // from the module's root
	dir  string // package path from the module's root
	test bool
	file *ast.File
	len  int // lines
}

const root = "../.."

// sources parses every Go file of the module. Reading them here, in the
// test's own process, is what makes go test's cache notice a change.
func sources(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata" || otherModule(p)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, b, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		all = append(all, source{
			path: rel, dir: path.Dir(rel), file: f,
			test: strings.HasSuffix(name, "_test.go"),
			len:  strings.Count(string(b), "\n"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("only %d Go files found below %s: the test looks in the wrong place", len(all), root)
	}
	return fset, all
}

func otherModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil && dir != root
}

// within says whether package p is top or below it; everything is below "".
func within(p, top string) bool {
	return top == "" || p == top || strings.HasPrefix(p, top+"/")
}

// ruleFor finds the line of the map that governs package p.
func ruleFor(p string) (line string, ok bool) {
	for q := p; q != "."; q = path.Dir(q) {
		if _, ok := mayImport[q]; ok {
			return q, true
		}
	}
	return "", false
}

// allowed says whether package from may import package to.
func allowed(from, to string) bool {
	line, ok := ruleFor(from)
	if !ok {
		return false
	}
	if slices.Contains(mayImport[line], to) {
		return true
	}
	// inside one subtree: parts of images may use images, but sandbox may not
	// use sandbox/launcher, which has a line of its own.
	toLine, _ := ruleFor(to)
	return toLine == line
}
