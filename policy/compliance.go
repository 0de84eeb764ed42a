package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/ward-project/ward/internal/fault"
)

// Inline evaluates the Rego that trust policies have in them, as sigstore's
// policy-controller does: a module of package sigstore whose rule isCompliant
// is true, or has a result that is. It has the bounds of every evaluation.
type Inline struct{}

// complianceCapabilities are those of all policies, and the one clock that is
// given: rules in clusters ask how old a scan is.
var complianceCapabilities = sync.OnceValue(func() *ast.Capabilities {
	c := *capabilities()
	c.Builtins = append(append([]*ast.Builtin{}, c.Builtins...), ast.NowNanos)
	return &c
})

// Compliant says whether source finds the document compliant at that time, and
// if not, why. name stands for source in messages. An error is one of source's
// (fault.Invalid), or an evaluation that was stopped (fault.Unavailable).
func (Inline) Compliant(ctx context.Context, name, source string, document []byte, now time.Time) (bool, string, error) {
	if len(document) > maxInput+maxPredicates || countValues(document) > maxPredicateValues {
		return false, fmt.Sprintf("the document is too large to be judged: more than %d MiB or %d values", (maxInput+maxPredicates)>>20, maxPredicateValues), nil
	}
	if ctx.Err() != nil {
		return false, "", (&stop{context.Cause(ctx)}).fault()
	}
	e := &Engine{question: &question{}, at: now}
	e.question.ask(asDecision, dataRef("sigstore", "isCompliant"))
	err := within(maxCompile, func() (err error) {
		e.query, err = compileInline(name, source, e.question.body)
		return err
	})
	if err != nil {
		return false, "", err
	}
	input, err := ast.ValueFromReader(bytes.NewReader(document))
	if err != nil {
		return false, "", invalidInput("%v", err)
	}
	found, err := e.evaluate(ctx, input)
	if stopped := (*stop)(nil); errors.As(err, &stopped) {
		return false, "", stopped.fault()
	}
	if err != nil {
		return false, failure(err).Msg, nil
	}
	ok, why := compliant(found)
	return ok, why, nil
}

// compileInline reads a module in the dialect that clusters read, Rego v0, or
// if it is none in that, in v1. What both read means the same in both.
func compileInline(name, source string, body ast.Body) (rego.PreparedEvalQuery, error) {
	parse := func(v ast.RegoVersion) (*ast.Module, error) {
		m, err := ast.ParseModuleWithOpts(name, source, ast.ParserOptions{RegoVersion: v, Capabilities: complianceCapabilities()})
		if err == nil && m == nil {
			err = errors.New(name + ": it is empty")
		}
		return m, err
	}
	m, err := parse(ast.RegoV0)
	if err != nil {
		var second error
		if m, second = parse(ast.RegoV1); second != nil {
			return rego.PreparedEvalQuery{}, syntax(second)
		}
	}
	if pkg := m.Package.Path.String(); pkg != "data.sigstore" {
		return rego.PreparedEvalQuery{}, fault.New(fault.Invalid, "policy.package", fmt.Sprintf("%s: it is package %.64q, not sigstore", name, m.Package.Path.String()),
			"begin it with: package sigstore")
	}
	c := ast.NewCompiler().WithCapabilities(complianceCapabilities())
	if c.Compile(map[string]*ast.Module{name: m}); c.Failed() {
		return rego.PreparedEvalQuery{}, syntax(c.Errors)
	}
	q, err := rego.New(rego.Compiler(c), rego.ParsedQuery(body), rego.StrictBuiltinErrors(true), rego.Capabilities(complianceCapabilities())).PrepareForEval(context.Background())
	if err != nil {
		return q, syntax(err)
	}
	return q, nil
}

// compliant reads what isCompliant is: true, or the first of its results that
// is true and warns of nothing, as policy-controller reads it.
func compliant(found answer) (bool, string) {
	if len(found) != 1 || found[0] == nil {
		return false, "isCompliant is undefined"
	}
	var results []ast.Value
	take := func(t *ast.Term) { results = append(results, t.Value) }
	switch v := found[0].(type) {
	case ast.Boolean:
		if bool(v) {
			return true, ""
		}
		return false, "isCompliant is false"
	case *ast.Array:
		v.Foreach(take)
	case ast.Set:
		v.Foreach(take)
	}
	why := "isCompliant is not true"
	for _, r := range results {
		o, ok := r.(ast.Object)
		if !ok {
			return false, "isCompliant has a result that is not an object"
		}
		text := func(member string) string {
			if t := o.Get(ast.StringTerm(member)); t != nil {
				if s, ok := t.Value.(ast.String); ok {
					return plain(string(s))
				}
			}
			return ""
		}
		if t := o.Get(ast.StringTerm("result")); t != nil && t.Value.Compare(ast.Boolean(true)) == 0 {
			warning := text("warning")
			return warning == "", warning
		}
		if s := text("error"); s != "" {
			why = s
		}
	}
	return false, why
}
