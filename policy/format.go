package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/ward-project/ward/internal/fault"
)

// MaxFile bounds one policy file.
const MaxFile = maxFile

// Format lays out a Rego file as "opa fmt" does. Name stands for it in
// messages. What it returns has been parsed again: a formatter that changes
// what a policy means, or breaks it, is not let near one.
func Format(name string, text []byte) ([]byte, error) {
	if len(text) > maxFile {
		return nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("%s is larger than %d bytes", name, maxFile), "split it")
	}
	var out []byte
	err := within(maxCompile, func() error {
		opts := ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities(), ProcessAnnotation: true}
		b, err := format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1, ParserOptions: &opts})
		if err != nil {
			return syntax(err)
		}
		before, err := ast.ParseModuleWithOpts(name, string(text), opts)
		if err != nil {
			return syntax(err)
		}
		after, err := ast.ParseModuleWithOpts(name, string(b), opts)
		if err != nil || before.Compare(after) != 0 {
			return fault.New(fault.Invalid, "policy.format", fmt.Sprintf("%s would mean something else once formatted", name), "lay it out by hand")
		}
		out = b
		return nil
	})
	if err != nil {
		return nil, err // what is still being worked on is never read
	}
	return out, nil
}
