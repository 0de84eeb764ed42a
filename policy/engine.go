package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/ward-project/ward/internal/fault"
)

// Config says where the local policy is.
type Config struct {
	// Dir is the policy directory; if it is missing or "", the shipped policy
	// decides alone.
	Dir string
	// Level, if set, is a shipped level to hold even where the grants document
	// names a looser one. It can only tighten: a looser level comes from the
	// directory, whose content is part of the revision, or not at all. It does
	// not bind a decision.rego, which replaces the levels.
	Level string
	// Point is what will be asked about; "" is PointRun.
	Point string
	// Keys is the file with the keys that may sign bundles; "" is
	// policy-keys.json beside Dir.
	Keys string
}

// Engine is a compiled policy. It never changes: to see a changed directory,
// open it again. Safe for concurrent use.
type Engine struct {
	cfg      Config
	level    string
	revision string
	query    rego.PreparedEvalQuery
	question *question
	// point is what it was opened for, base the point whose decision answers;
	// custom says that the directory has replaced that decision.
	point, base string
	custom      bool
	modes       modes
	// shipped is the level whose files are loaded, whoever decides; modules are
	// all that are, as they were parsed.
	shipped string
	modules map[string]*ast.Module
	gaze    gaze
	at      time.Time // what time it is, for those who may ask
	bundles []Bundle
	// foreign are the policies for other programs that are asked, strangers all
	// their files.
	foreign   []*foreign
	strangers []source
	// codes are those of all of them, asked here or not.
	codes []string
}

// maxCompile bounds parsing and compiling local files, in wall time. A
// megabyte of rules takes a second or two.
const maxCompile = 10 * time.Second

// Open reads and compiles the policy. Anything wrong with any file is
// fault.Invalid, naming file and line, and no engine: a policy that is half in
// force is not in force. Files that take too long are fault.Unavailable.
func Open(cfg Config) (*Engine, error) {
	cfg.Point = cmp.Or(cfg.Point, PointRun)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	sources, err := readDirWith(cfg.Dir, cfg.Keys, false)
	if err != nil {
		return nil, err
	}
	return open(cfg, sources)
}

func (cfg Config) check() error {
	if _, ok := decisionFiles[cfg.Point]; !ok {
		return invalidInput("point %q is not one this version decides", cfg.Point)
	}
	if _, ok := levelFiles[cfg.Level]; cfg.Level != "" && !ok {
		return fault.New(fault.Invalid, "policy.level", fmt.Sprintf("there is no policy level %q", cfg.Level), fmt.Sprintf("use %s, %s or %s", Restricted, Baseline, Privileged))
	}
	return nil
}

// open compiles the policy that the files of a directory are.
func open(cfg Config, sources []source) (*Engine, error) {
	g, err := readGrants(cfg.Dir, sources)
	if err != nil {
		return nil, err
	}
	strangers, sources := sources, native(sources)
	strangers = slices.DeleteFunc(slices.Clone(strangers), func(s source) bool { return s.foreign == "" })
	level := g.level
	if cfg.Level != "" {
		level = stricter(level, cfg.Level)
	}
	data, err := userData(sources)
	if err != nil {
		return nil, err
	}
	data["ward"] = g.document(level, g.exists)

	e := &Engine{cfg: cfg, bundles: bundlesOf(sources), point: cfg.Point, base: deciding(cfg.Point, sources), level: level, shipped: level, modes: g.modes}
	all := sourcesOf(cfg.Point, level, g.exists, sources)
	if e.custom = replaces(e.base, sources); e.custom {
		e.level = "custom"
	}
	local := slices.ContainsFunc(sources, func(s source) bool { return s.is(".rego") })
	work := func() error {
		var err error
		if e.foreign, e.codes, err = foreigners(cfg.Point, g.buildx, strangers); err != nil {
			return err
		}
		return e.prepare(sources, all, data, g.shown, local)
	}
	e.strangers = strangers
	if !local && len(strangers) == 0 {
		err = work()
	} else {
		err = within(maxCompile, work)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// prepare parses and compiles.
func (e *Engine) prepare(sources, all []source, data map[string]any, grants string, local bool) error {
	modules, err := parse(all)
	if err != nil {
		return err
	}
	if local {
		used, parsed, err := libraryModules(modules)
		if err != nil {
			return err
		}
		all = append(all, used...)
		maps.Copy(modules, parsed)
	}
	e.modules = modules
	e.revision = revision(e.shipped, slices.Concat(all, others(sources), e.strangers))
	var own []*ast.Module
	for _, s := range sources {
		if m := modules[s.shown]; m != nil {
			own = append(own, m)
		}
	}
	if err := e.modes.check(grants, own, e.codes); err != nil {
		return err
	}
	e.gaze = gazeOf(own)
	e.question = questionFor(e.point, sources, all, modules, len(e.modes) > 0)
	e.query, err = compile(e.question.body, modules, data, !local)
	return err
}

// within does what cannot be interrupted in a goroutine of its own, which is
// left to itself if it takes too long: what it would have written is then
// never read.
func within(d time.Duration, work func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil { // a defect of OPA's, found by the file
				err = syntax(fmt.Errorf("the policy engine panicked: %v", p))
			}
			done <- err
		}()
		err = work()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(d):
		return fault.New(fault.Unavailable, "policy.timeout", fmt.Sprintf("the policy was not compiled after %v", d), "make the files of the policy directory smaller and simpler")
	}
}

// others are the data documents.
func others(sources []source) []source {
	return slices.DeleteFunc(slices.Clone(sources), func(s source) bool { return s.is(".rego") })
}

func parse(sources []source) (map[string]*ast.Module, error) {
	modules := map[string]*ast.Module{}
	for _, s := range sources {
		m, err := ast.ParseModuleWithOpts(s.shown, string(s.text), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities()})
		if err == nil && m == nil {
			err = fmt.Errorf("%s: it is empty", s.shown)
		}
		if err != nil {
			return nil, syntax(err)
		}
		if err := placed(s, m, sources); err != nil {
			return nil, err
		}
		if _, twice := modules[s.shown]; twice { // a directory called "ward": never replace what is shipped
			return nil, fault.New(fault.Invalid, "policy.layout", fmt.Sprintf("%s is the name of a shipped policy", s.shown), "give the policy directory by its absolute path")
		}
		modules[s.shown] = m
	}
	return modules, nil
}

// placed refuses rules where they could change what is shipped, or where
// their author would wrongly believe them to be in force.
func placed(s source, m *ast.Module, all []source) error {
	if strings.HasPrefix(s.name, shippedPrefix) {
		return nil
	}
	pkg := m.Package.Path.String()
	at := func(loc *ast.Location, format string, args ...any) error {
		return fault.New(fault.Invalid, "policy.package", fmt.Sprintf("%s:%d: %s", s.shown, loc.Row, fmt.Sprintf(format, args...)), "see docs/policy.md, \"Rules of your own\"")
	}
	if pkg == "data.ward" || strings.HasPrefix(pkg, "data.ward.") && !ownPackage(pkg) {
		return at(m.Package.Location, "package %s is reserved: rules go into package ward.run", strings.TrimPrefix(pkg, "data."))
	}
	where := strings.ReplaceAll(strings.TrimPrefix(pkg, "data."), ".", "/")
	if b := s.bundle; b != nil && !slices.ContainsFunc(b.roots, func(r string) bool { return below(where, r) }) {
		return at(m.Package.Location, "package %s is outside of the roots of bundle %s", strings.TrimPrefix(pkg, "data."), b.Name)
	} else if b == nil {
		if other := claimed(where, nil, all); other != nil {
			return at(m.Package.Location, "package %s is bundle %s's alone", strings.TrimPrefix(pkg, "data."), other.Name)
		}
	}
	for _, r := range m.Rules {
		name := r.Head.Ref()[0].Value.String()
		if ownPackage(pkg) && s.name != decisionFiles[strings.TrimPrefix(pkg, "data.ward.")] && (name == "decision" || name == "allow" || name == "violations") {
			return at(r.Location, "%s has no effect here: add deny rules, or replace the whole decision in %s", name, besides(s.shown, decisionFiles[strings.TrimPrefix(pkg, "data.ward.")]))
		}
	}
	return nil
}

// known are the compiler's stages that only look for mistakes, or make large
// policies faster. The shipped files alone do without them: they are constant,
// and the package's tests compile them with every check.
var known = []ast.StageID{
	ast.StageCheckTypes, ast.StageCheckKeywordOverrides, ast.StageCheckUnusedImports, ast.StageCheckDuplicateImports,
	ast.StageCheckVoidCalls, ast.StageCheckRuleConflicts, ast.StageCheckUndefinedFuncs, ast.StageCheckSafetyRuleHeads,
	ast.StageCheckRecursion, ast.StageCheckUnsafeBuiltins, ast.StageCheckDeprecatedBuiltins, ast.StageBuildComprehensionIndices,
}

func compile(body ast.Body, modules map[string]*ast.Module, data map[string]any, shippedOnly bool) (rego.PreparedEvalQuery, error) {
	ctx := context.Background()
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return rego.PreparedEvalQuery{}, syntax(err)
	}
	defer store.Abort(ctx, txn)
	c := ast.NewCompiler().WithCapabilities(capabilities())
	if shippedOnly {
		c = c.WithSkipStages(known...)
	} else {
		// A data document must not stand where a rule is: one would hide the other.
		c = c.WithSchemas(inputTypes()).WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn))
	}
	if c.Compile(modules); c.Failed() {
		return rego.PreparedEvalQuery{}, syntax(c.Errors)
	}
	if !shippedOnly {
		if err := libraryRules(c.Modules); err != nil {
			return rego.PreparedEvalQuery{}, err
		}
	}
	q, err := rego.New(
		rego.Compiler(c),
		rego.Store(store),
		rego.Transaction(txn),
		rego.ParsedQuery(body),
		// A built-in that fails would otherwise make its rule undefined, and a
		// deny rule that is undefined denies nothing.
		rego.StrictBuiltinErrors(true),
		rego.Capabilities(capabilities()),
	).PrepareForEval(ctx)
	if err != nil {
		return q, syntax(err)
	}
	return q, nil
}

// syntax is the refusal for Rego that does not parse or compile.
func syntax(err error) error {
	cause := err.Error()
	var list ast.Errors
	if errors.As(err, &list) && len(list) > 0 {
		e := list[0]
		cause = e.Code + ": " + e.Message
		if e.Location != nil {
			cause = fmt.Sprintf("%s:%d: %s: %s", e.Location.File, e.Location.Row, e.Code, e.Message)
		}
		if e.Details != nil && e.Code == ast.TypeErr { // a parser's are a picture of the line
			cause += ": " + strings.Join(e.Details.Lines(), ", ")
		}
		if len(list) > 1 {
			cause += fmt.Sprintf(" (and %d more)", len(list)-1)
		}
	}
	return &fault.Error{
		Class: fault.Invalid, Rule: "policy.syntax", Cause: plain(cause), Err: err,
		Remedy: "mend the file; ward reads Rego v1 without impure built-ins (older files: opa fmt --v0-v1 --write FILE)",
	}
}
