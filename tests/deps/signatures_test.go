package deps

import (
	"go/types"
	"os"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestAdaptersHideTheirLibraries looks, with the type checker, at everything
// other packages can see of ours: a library's type must not show outside the
// one package that adapts it, or replacing the library means changing all.
func TestAdaptersHideTheirLibraries(t *testing.T) {
	sources(t) // so that a changed source makes go test run this again
	cfg := &packages.Config{
		Dir:        root,
		Mode:       packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedExportFile | packages.NeedModule,
		BuildFlags: []string{"-tags=seccomp"},
		Env:        append(os.Environ(), "CGO_ENABLED=1"),
	}
	pkgs, err := packages.Load(cfg, "./...")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 5 {
		t.Fatalf("only %d packages loaded", len(pkgs))
	}
	for _, p := range pkgs {
		for _, e := range p.Errors {
			t.Errorf("%s: %v", p.PkgPath, e)
		}
		if p.Types == nil || p.Name == "main" {
			continue
		}
		for _, leak := range leaks(p.Types) {
			t.Error(leak)
		}
	}
}

// leaks lists the foreign types in pkg's exported signatures.
func leaks(pkg *types.Package) []string {
	w := &walker{pkg: pkg, seen: map[types.Type]bool{}}
	scope := pkg.Scope()
	for _, name := range scope.Names() {
		obj := scope.Lookup(name)
		if !obj.Exported() {
			continue
		}
		w.at = pkg.Path() + "." + name
		w.walk(obj.Type())
	}
	return w.found
}

type walker struct {
	pkg   *types.Package
	at    string
	seen  map[types.Type]bool
	found []string
}

func (w *walker) walk(t types.Type) {
	if t == nil || w.seen[t] {
		return
	}
	w.seen[t] = true
	switch t := t.(type) {
	case *types.Named:
		w.object(t.Obj())
		for a := range t.TypeArgs().Types() {
			w.walk(a)
		}
		if t.Obj().Pkg() != w.pkg {
			return // another package's type is that package's affair
		}
		for m := range t.Methods() {
			if m.Exported() {
				w.walk(m.Type())
			}
		}
		w.walk(t.Underlying())
	case *types.Alias:
		w.object(t.Obj())
		w.walk(types.Unalias(t))
	case *types.Signature:
		w.walk(t.Params())
		w.walk(t.Results())
	case *types.Tuple:
		for v := range t.Variables() {
			w.walk(v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() || f.Embedded() {
				w.walk(f.Type())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			w.walk(m.Type())
		}
		for e := range t.EmbeddedTypes() {
			w.walk(e)
		}
	case *types.Map:
		w.walk(t.Key())
		w.walk(t.Elem())
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		w.walk(t.Elem())
	}
}

// object reports o if it belongs to a library that another package adapts.
func (w *walker) object(o *types.TypeName) {
	if o.Pkg() == nil {
		return
	}
	for lib, home := range adapters {
		if within(o.Pkg().Path(), lib) && !within(w.pkg.Path(), module+"/"+home) {
			w.found = append(w.found, w.at+" shows "+o.Pkg().Path()+"."+o.Name()+"; only "+home+" may")
		}
	}
}

// TestLeaksAreSeen gives the walker a package that leaks in every way.
func TestLeaksAreSeen(t *testing.T) {
	lib := types.NewPackage("github.com/open-policy-agent/opa/v1/rego", "rego")
	foreign := types.NewNamed(types.NewTypeName(0, lib, "Rego", nil), types.NewStruct(nil, nil), nil)
	for name, typ := range map[string]types.Type{
		"pointer": types.NewPointer(foreign),
		"slice":   types.NewSlice(foreign),
		"map":     types.NewMap(types.Typ[types.String], foreign),
		"result":  types.NewSignatureType(nil, nil, nil, nil, types.NewTuple(types.NewVar(0, nil, "", foreign)), false),
		"field":   types.NewStruct([]*types.Var{types.NewField(0, nil, "F", foreign, false)}, nil),
	} {
		pkg := types.NewPackage(module+"/audit", "audit")
		pkg.Scope().Insert(types.NewVar(0, pkg, "Leak", typ))
		if got := leaks(pkg); len(got) != 1 || !strings.Contains(got[0], "audit.Leak shows") {
			t.Errorf("%s: %v", name, got)
		}
		own := types.NewPackage(module+"/policy", "policy")
		own.Scope().Insert(types.NewVar(0, own, "Own", typ))
		if got := leaks(own); len(got) != 0 {
			t.Errorf("%s: the adapter itself was reported: %v", name, got)
		}
	}
}
