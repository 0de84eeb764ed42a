package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/ward-project/ward/internal/fault"
)

// StatementPolicy is Rego about one attestation, as cosign takes it with
// --policy: package signature, and the statement is accepted if allow is true
// in it. Both versions of Rego are read, as cosign does; what a policy may
// use, and how long it may take, is as for ward's own.
type StatementPolicy struct{ engine *Engine }

// NewStatementPolicy compiles the files, which are given by name and content.
func NewStatementPolicy(files map[string][]byte) (*StatementPolicy, error) {
	total := 0
	for name, text := range files {
		if total += len(text); total > maxFile {
			return nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("%s: the policies have more than %d bytes", name, maxFile), "make them smaller")
		}
	}
	p := &StatementPolicy{&Engine{question: &question{}}}
	p.engine.question.ask(asDecision, dataRef("signature", "allow"))
	err := within(maxCompile, func() (err error) {
		p.engine.query, err = compileStatement(files, p.engine.question.body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func compileStatement(files map[string][]byte, body ast.Body) (q rego.PreparedEvalQuery, err error) {
	modules := map[string]*ast.Module{}
	for name, text := range files {
		m, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: capabilities()})
		if err == nil && m == nil {
			err = fmt.Errorf("%s: it is empty", name)
		}
		if err != nil {
			return q, syntax(err)
		}
		modules[name] = m
	}
	asks := func(m *ast.Module) bool { return m.Package.Path.String() == "data.signature" }
	if !slices.ContainsFunc(slices.Collect(maps.Values(modules)), asks) {
		return q, fault.New(fault.Invalid, "policy.package", "no file has the package signature, whose rule allow decides", "write the rules into package signature")
	}
	c := ast.NewCompiler().WithCapabilities(capabilities()).WithDefaultRegoVersion(ast.RegoV0)
	if c.Compile(modules); c.Failed() {
		return q, syntax(c.Errors)
	}
	q, err = rego.New(rego.Compiler(c), rego.ParsedQuery(body), rego.StrictBuiltinErrors(true), rego.Capabilities(capabilities())).PrepareForEval(context.Background())
	if err != nil {
		return q, syntax(err)
	}
	return q, nil
}

// Allows returns nil if the policy accepts the statement, which is JSON.
// Anything but the value true is fault.Denied; an evaluation that had to be
// stopped is fault.Unavailable.
func (p *StatementPolicy) Allows(ctx context.Context, statement []byte) error {
	input, err := ast.ValueFromReader(bytes.NewReader(statement))
	if err == nil && !json.Valid(statement) {
		err = errors.New("something follows it") // the reader stops at the end of the first value
	}
	if err != nil {
		return fault.New(fault.Invalid, "policy.input", fmt.Sprintf("the statement is not JSON: %v", err), "")
	}
	found, err := p.engine.evaluate(ctx, input)
	if stopped := (*stop)(nil); errors.As(err, &stopped) {
		return stopped.fault()
	}
	no := func(why string) error {
		return fault.New(fault.Denied, "attestation.policy", "the policy does not accept the attestation: "+why, "see what data.signature.allow asks of the statement")
	}
	switch {
	case err != nil:
		return no(failure(err).Msg)
	case len(found) != 1 || found[0] == nil:
		return no("data.signature.allow is undefined")
	case found[0].Compare(ast.Boolean(true)) != 0:
		return no("data.signature.allow is not true")
	}
	return nil
}
