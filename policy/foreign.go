package policy

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/ward-project/ward/internal/fault"
)

// The directories of a policy directory that hold policies written for other
// programs. They are compiled by themselves: they have another input, and what
// they call data is theirs. They can deny and warn, and never allow.
const (
	conftestDir = "conftest"
	buildxDir   = "buildx"
)

// maxForeign bounds how many policies are asked one after the other.
const maxForeign = 16

// foreign is one policy written for another program.
type foreign struct {
	kind, shown string
	query       rego.PreparedEvalQuery
	// rules are what a conftest policy is asked, in the order of the query; each
	// is followed by its package's exceptions.
	rules []foreignRule
}

type foreignRule struct{ pkg, name string }

func (r foreignRule) code() string { return "conftest." + plain(r.pkg) + "." + r.name }

// buildxCode is the code of what a policy for buildx denies.
const buildxCode = "buildx.deny"

// conftest's own names for rules.
var (
	conftestDenies = regexp.MustCompile(`^(deny|violation)(_[a-zA-Z0-9]+)*$`)
	conftestWarns  = regexp.MustCompile(`^warn(_[a-zA-Z0-9]+)*$`)
)

// readForeign reads such a directory, and those in it.
func readForeign(root *os.Root, dir, kind string, tests bool) ([]source, error) {
	var out []source
	err := fs.WalkDir(root.FS(), kind, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return unreadable(filepath.Join(dir, name), err)
		}
		if name != kind && ignored(path.Base(name)) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if strings.Count(name, "/") > 8 {
				return fault.New(fault.Invalid, "policy.layout", filepath.Join(dir, name)+" is too deep", "put it higher")
			}
			if tests {
				return nil
			}
			f, err := root.Open(name)
			if err != nil {
				return unreadable(filepath.Join(dir, name), err)
			}
			defer f.Close()
			return private(f, filepath.Join(dir, name))
		}
		s := source{name: name, shown: filepath.Join(dir, name), foreign: kind}
		if !tests && strings.HasSuffix(name, "_test.rego") {
			return nil
		}
		if !s.is(".rego", ".json", ".yaml", ".yml") {
			return fault.New(fault.Invalid, "policy.layout", fmt.Sprintf("%s is neither a policy (.rego) nor data (.json, .yaml)", s.shown), "move it out of the policy directory, or put a dot before its name")
		}
		if len(out) >= maxFiles {
			return fault.New(fault.Invalid, "policy.size", fmt.Sprintf("%s holds more than %d files", filepath.Join(dir, kind), maxFiles), "put fewer, larger files there")
		}
		if s.text, err = readFile(root, s, !tests); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

// native are the sources that are not of a foreign policy.
func native(sources []source) []source {
	return slices.DeleteFunc(slices.Clone(sources), func(s source) bool { return s.foreign != "" })
}

// foreigners are the foreign policies that are asked at a point, compiled. All
// are compiled at every point: a broken one stops everything, as a broken rule
// of one's own does.
func foreigners(point string, buildxPoints []string, sources []source) (out []*foreign, codes []string, err error) {
	of := func(kind string) []source {
		return slices.DeleteFunc(slices.Clone(sources), func(s source) bool { return s.foreign != kind })
	}
	if ss := of(conftestDir); len(ss) > 0 {
		f, err := newConftest(ss)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range f.rules {
			codes = append(codes, r.code())
		}
		if slices.Contains([]string{PointCI, PointK8s, PointBuild}, point) {
			out = append(out, f)
		}
	}
	if ss := of(buildxDir); len(ss) > 0 {
		all, err := newBuildx(ss)
		if err != nil {
			return nil, nil, err
		}
		codes = append(codes, buildxCode)
		if point == PointBuild || slices.Contains(buildxPoints, point) {
			out = append(out, all...)
		}
	}
	if len(out) > maxForeign {
		return nil, nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("there are more than %d policies of other programs", maxForeign), "join them")
	}
	return out, codes, nil
}

func notUnderstood(s source, format string, args ...any) error {
	return fault.New(fault.Invalid, "policy.foreign", s.shown+": "+fmt.Sprintf(format, args...), "see docs/policy-foreign.md, or move the file out of the policy directory")
}

// parseForeign parses the Rego among sources, and merges the rest.
func parseForeign(sources []source) (map[string]*ast.Module, map[string]any, error) {
	modules, data := map[string]*ast.Module{}, map[string]any{}
	for _, s := range sources {
		if !s.is(".rego") {
			doc, err := document(s)
			if err != nil {
				return nil, nil, err
			}
			if key, ok := merge(data, doc); !ok {
				return nil, nil, badData(s, fmt.Errorf("%q is defined in another file already", key))
			}
			continue
		}
		m, err := ast.ParseModuleWithOpts(s.shown, string(s.text), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities()})
		if err == nil && m == nil {
			err = fmt.Errorf("%s: it is empty", s.shown)
		}
		if err != nil {
			return nil, nil, syntax(err)
		}
		modules[s.shown] = m
	}
	return modules, data, nil
}

func prepareForeign(modules map[string]*ast.Module, data map[string]any, body ast.Body) (rego.PreparedEvalQuery, error) {
	c := ast.NewCompiler().WithCapabilities(capabilities())
	if c.Compile(modules); c.Failed() {
		return rego.PreparedEvalQuery{}, syntax(c.Errors)
	}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	q, err := rego.New(rego.Compiler(c), rego.Store(store), rego.ParsedQuery(body), rego.StrictBuiltinErrors(true), rego.Capabilities(capabilities())).PrepareForEval(context.Background())
	if err != nil {
		return q, syntax(err)
	}
	return q, nil
}

// newConftest is the policy of the directory conftest: the rules deny…,
// violation… and warn… of every package.
func newConftest(sources []source) (*foreign, error) {
	modules, data, err := parseForeign(sources)
	if err != nil {
		return nil, err
	}
	f := &foreign{kind: conftestDir, shown: sources[0].shown}
	seen := map[foreignRule]bool{}
	var body ast.Body
	ask := func(t *ast.Term) {
		body = append(body, ast.NewExpr(whole(t)))
		body[len(body)-1].Index = len(body) - 1
	}
	for _, file := range sorted(modules) {
		m := modules[file]
		pkg := strings.TrimPrefix(m.Package.Path.String(), "data.")
		for _, r := range m.Rules {
			name := r.Head.Ref()[0].Value.String()
			rule := foreignRule{pkg, name}
			if seen[rule] || !conftestDenies.MatchString(name) && !conftestWarns.MatchString(name) {
				continue
			}
			if len(r.Head.Args) > 0 {
				return nil, notUnderstood(source{shown: file}, "%s is a function", name)
			}
			seen[rule] = true
			f.rules = append(f.rules, rule)
			ask(ast.NewTerm(m.Package.Path.Append(ast.StringTerm(name))))
			ask(ast.NewTerm(m.Package.Path.Append(ast.StringTerm("exception")).Append(ast.VarTerm("_e")).Append(ast.VarTerm("_i"))))
		}
	}
	if len(f.rules) == 0 {
		return nil, notUnderstood(sources[0], "there is no rule deny, violation or warn in the directory %s", conftestDir)
	}
	f.query, err = prepareForeign(modules, data, body)
	return f, err
}

// newBuildx are the policies of the directory buildx: each file directly in it,
// with package docker and a decision, and the packages it imports.
func newBuildx(sources []source) ([]*foreign, error) {
	helpers := slices.DeleteFunc(slices.Clone(sources), func(s source) bool { return s.is(".rego") && strings.Count(s.name, "/") == 1 })
	shared, data, err := parseForeign(helpers)
	if err != nil {
		return nil, err
	}
	var out []*foreign
	for _, s := range sources {
		if !s.is(".rego") || strings.Count(s.name, "/") != 1 {
			continue
		}
		modules, _, err := parseForeign([]source{s})
		if err != nil {
			return nil, err
		}
		m := modules[s.shown]
		if m.Package.Path.String() != "data.docker" || !slices.ContainsFunc(m.Rules, func(r *ast.Rule) bool { return r.Head.Ref()[0].Value.String() == "decision" }) {
			return nil, notUnderstood(s, "a policy of buildx has package docker and a rule decision")
		}
		for file, h := range shared {
			if h.Package.Path.String() == "data.docker" {
				return nil, notUnderstood(source{shown: file}, "package docker stands directly in the directory %s", buildxDir)
			}
			modules[file] = h
		}
		f := &foreign{kind: buildxDir, shown: s.shown}
		if f.query, err = prepareForeign(modules, data, ast.NewBody(ast.NewExpr(whole(dataRef("docker", "decision"))))); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, notUnderstood(sources[0], "there is no policy directly in the directory %s", buildxDir)
	}
	return out, nil
}
