package policy

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/ward-project/ward/internal/fault"
)

// library is data.ward.lib: functions and sets that rules of one's own may
// use. Nothing of it is read unless a rule names it.
//
//go:embed rego/lib/*.rego
var library embed.FS

// libraryModules are the packages below data.ward.lib that modules name, and
// those that these name.
func libraryModules(modules map[string]*ast.Module) ([]source, map[string]*ast.Module, error) {
	var sources []source
	found := map[string]*ast.Module{}
	next := modules
	for len(next) > 0 {
		wanted := map[string]bool{}
		for _, m := range next {
			libraryNames(m, wanted)
		}
		next = map[string]*ast.Module{}
		for _, name := range sorted(wanted) {
			if modules[shippedPrefix+"lib/"+name+".rego"] != nil {
				continue // a test of the library's own
			}
			s, ok := librarySource(name)
			if !ok {
				return nil, nil, noSuchLibrary(name)
			}
			if found[s.shown] != nil {
				continue
			}
			parsed, err := parse([]source{s})
			if err != nil {
				return nil, nil, err
			}
			sources = append(sources, s)
			found[s.shown], next[s.shown] = parsed[s.shown], parsed[s.shown]
		}
	}
	return sources, found, nil
}

// libraryNames are the packages that a module's imports and rules name; all of
// them where it names the library as a whole.
func libraryNames(m *ast.Module, into map[string]bool) {
	add := func(ref ast.Ref) bool {
		names := []string{"data", "ward", "lib"}
		for i, name := range names {
			if i >= len(ref) {
				return false
			}
			if v, ok := ref[i].Value.(ast.Var); i == 0 && (!ok || string(v) != name) {
				return false
			}
			if s, ok := ref[i].Value.(ast.String); i > 0 && (!ok || string(s) != name) {
				return false
			}
		}
		if len(ref) > len(names) {
			if s, ok := ref[len(names)].Value.(ast.String); ok {
				into[string(s)] = true
				return false
			}
		}
		for _, name := range libraryFiles() {
			into[name] = true
		}
		return false
	}
	ast.WalkRefs(m, add)
}

// libraryRules refuses names that a package of the library does not have, once
// the compiler has written all names out: they would be undefined, and a rule
// about what is undefined denies nothing.
func libraryRules(compiled map[string]*ast.Module) error {
	rules := map[string]bool{}
	for file, m := range compiled {
		if strings.HasPrefix(file, shippedPrefix+"lib/") {
			for _, r := range m.Rules {
				if name, ok := r.Head.Ref()[0].Value.(ast.Var); ok {
					rules[m.Package.Path.Append(ast.StringTerm(string(name))).String()] = true
				}
			}
		}
	}
	var wrong error
	for _, file := range sorted(compiled) {
		ast.WalkRefs(compiled[file], func(ref ast.Ref) bool {
			if len(ref) < 5 || !strings.HasPrefix(ref.String(), "data.ward.lib.") || wrong != nil {
				return false
			}
			if _, static := ref[4].Value.(ast.String); static && !rules[ref[:5].String()] {
				wrong = noSuchLibrary(strings.TrimPrefix(ref[:5].String(), "data.ward.lib."))
			}
			return false
		})
	}
	return wrong
}

func noSuchLibrary(name string) error {
	return fault.New(fault.Invalid, "policy.library", fmt.Sprintf("data.ward.lib.%.100s is not there", name), "see docs/policy-library.md for what the library has")
}

func libraryFiles() []string {
	entries, err := library.ReadDir("rego/lib")
	if err != nil {
		panic(err) // compiled in
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".rego"); ok && !strings.HasSuffix(name, "_test") {
			out = append(out, name)
		}
	}
	return out
}

// librarySource is the file of one package of the library.
func librarySource(name string) (source, bool) {
	b, err := library.ReadFile("rego/lib/" + name + ".rego")
	if err != nil || strings.HasSuffix(name, "_test") {
		return source{}, false
	}
	shown := shippedPrefix + "lib/" + name + ".rego"
	return source{name: shown, shown: shown, text: b}, true
}

// libraryTests are the library's own tests.
func libraryTests() ([]source, error) {
	files, err := fs.Glob(library, "rego/lib/*_test.rego")
	if err != nil {
		return nil, err
	}
	var out []source
	for _, f := range files {
		b, err := library.ReadFile(f)
		if err != nil {
			return nil, err
		}
		shown := shippedPrefix + strings.TrimPrefix(f, "rego/")
		out = append(out, source{name: shown, shown: shown, text: b})
	}
	return out, nil
}
