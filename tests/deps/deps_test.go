package deps

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPackageMap holds the package map: each package imports only what its
// line allows, and nothing, tests included, imports what is never allowed.
func TestPackageMap(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if _, ok := ruleFor(s.dir); !ok {
			t.Errorf("%s: package %s is not in the package map", s.path, s.dir)
			continue
		}
		for _, imp := range imports(t, s.file) {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			if !s.test && !allowed(s.dir, to) {
				t.Errorf("%s: %s may not import %s", s.path, s.dir, to)
			}
			for _, n := range never {
				if within(s.dir, n[0]) && within(to, n[1]) && !within(s.dir, n[1]) {
					t.Errorf("%s: %s may never import %s", s.path, s.dir, to)
				}
			}
		}
	}
}

// TestMapIsChecked breaks the rules on paper: a map that allows everything
// would pass every other test.
func TestMapIsChecked(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"sandbox/launcher", "audit", true}, {"images/registry", "images", true}, {"audit", "audit/receipt", true},
		{"sandbox", "sandbox/launcher", false}, {"sandbox", "audit", false}, {"policy", "verify", false},
		{"images", "verify", false}, {"audit", "internal/fault", false}, {"sandbox/profile", "sandbox", false},
		{"internal/engine", "sandbox/launcher", false}, {"cmd/ward", "sandbox/launcher", false},
		{"internal/engine", "cmd/ward", false}, {"nowhere", "audit", false}, {"cmd/ward-launch", "images", false},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("allowed(%s, %s) = %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func imports(t *testing.T, f *ast.File) []string {
	t.Helper()
	var list []string
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// TestPackagesExist fails when a package of the map has gone: rules about
// what is not there hold nothing.
func TestPackagesExist(t *testing.T) {
	_, all := sources(t)
	there := map[string]bool{}
	for _, s := range all {
		if !s.test {
			there[s.dir] = true
		}
	}
	for _, p := range mustExist {
		if !there[p] {
			t.Errorf("package %s is in the map and has no source", p)
		}
	}
}

// TestLinkClosure holds what each program may link, asking the go tool.
func TestLinkClosure(t *testing.T) {
	for prog, how := range programs {
		t.Run(prog, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(root, prog)); err != nil {
				t.Fatalf("no such program: %v", err)
			}
			linked := goList(t, how.cgo, "-deps", "-tags", how.tags, "./"+prog)
			if len(linked) < 20 {
				t.Fatalf("go list -deps names only %d packages: %v", len(linked), linked)
			}
			for _, pkg := range linked {
				if rule, bad := forbidden(mayNotLink[prog], pkg); bad {
					t.Errorf("%s links %s (forbidden: %s)", prog, pkg, rule)
				}
			}
		})
	}
}

func goList(t *testing.T, cgo string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &stderr)
	}
	return strings.Fields(string(out))
}

// forbidden says which entry of rules names pkg.
func forbidden(rules []string, pkg string) (string, bool) {
	for _, r := range rules {
		if pkg == r || (strings.HasSuffix(r, "/") && strings.HasPrefix(pkg, r)) {
			return r, true
		}
	}
	return "", false
}

func TestForbidden(t *testing.T) {
	rules := mayNotLink["cmd/ward-launch"]
	for pkg, want := range map[string]bool{
		"net/http": true, "net/http/httptrace": true, "archive/tar": true, "compress/flate": true,
		"crypto/tls": true, "net": false, "crypto/sha256": false, module + "/audit": false, module + "/images": true,
	} {
		if _, got := forbidden(rules, pkg); got != want {
			t.Errorf("forbidden(%s) = %v, want %v", pkg, got, want)
		}
	}
}

// TestLength fails on a source file that has become two.
func TestLength(t *testing.T) {
	_, all := sources(t)
	for _, s := range all {
		if !s.test && s.len > maxLines {
			t.Errorf("%s has %d lines; more than %d are two files", s.path, s.len, maxLines)
		}
	}
}

// TestDocumented wants a doc comment on every package and exported name.
func TestDocumented(t *testing.T) {
	fset, all := sources(t)
	documented := map[string]bool{}
	for _, s := range all {
		if s.file.Doc.Text() != "" {
			documented[s.dir] = true
		}
	}
	seen := map[string]bool{}
	for _, s := range all {
		if !documented[s.dir] && !seen[s.dir] {
			seen[s.dir] = true
			t.Errorf("package %s has no doc comment: what it promises and what it does not", s.dir)
		}
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			for _, u := range undocumented(d) {
				t.Errorf("%s: %s has no comment", fset.Position(u.pos), u.name)
			}
		}
	}
}

type undoc struct {
	name string
	pos  token.Pos
}

func undocumented(d ast.Decl) []undoc {
	var list []undoc
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc.Text() == "" && receiverExported(d) {
			list = append(list, undoc{d.Name.Name, d.Pos()})
		}
	case *ast.GenDecl:
		group := d.Doc.Text() != ""
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc.Text() == "" && !group {
					list = append(list, undoc{s.Name.Name, s.Pos()})
				}
			case *ast.ValueSpec:
				if s.Doc.Text() != "" || s.Comment.Text() != "" || group {
					continue
				}
				for _, n := range s.Names {
					if n.IsExported() {
						list = append(list, undoc{n.Name, n.Pos()})
					}
				}
			}
		}
	}
	return list
}

// receiverExported is true for functions and for methods of exported types.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			panic(fmt.Sprintf("receiver of type %T", typ))
		}
	}
}
