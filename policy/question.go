package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// role is what one expression of a question is for.
type role int

const (
	// asDecision is the value of a decision; without it the question has no answer.
	asDecision role = iota
	// asViolations are what the level in force finds, asked for by itself where
	// some of it is not enforced.
	asViolations
	// asDeny, asWarn and asObligations are sets of a package that adds to a
	// decision, each in a list: an empty one where the package has no such rule.
	asDeny
	asWarn
	asObligations
)

// question is what is asked of a compiled policy, one expression after the
// other, in one evaluation.
type question struct {
	body  ast.Body
	roles []role
}

func (q *question) ask(r role, t *ast.Term) {
	q.body = append(q.body, ast.NewExpr(t))
	q.body[len(q.body)-1].Index = len(q.body) - 1
	q.roles = append(q.roles, r)
}

// dataRef is data.<name>.<name>….
func dataRef(names ...string) *ast.Term {
	t := []*ast.Term{ast.VarTerm("data")}
	for _, n := range names {
		t = append(t, ast.StringTerm(n))
	}
	return ast.RefTerm(t...)
}

// whole is [x | x = t]: t in a list, or an empty one where t is undefined.
// Without it one undefined rule would take the other answers with it.
func whole(t *ast.Term) *ast.Term {
	x := ast.VarTerm("x")
	return ast.ArrayComprehensionTerm(x, ast.NewBody(ast.Equality.Expr(x, t)))
}

// questionFor is what is asked at a point. loosened says that modes are in
// force; then what the level finds is asked for by itself.
func questionFor(point string, sources, all []source, modules map[string]*ast.Module, loosened bool) *question {
	q := &question{}
	base := deciding(point, sources)
	q.ask(asDecision, dataRef("ward", base, "decision"))
	if loosened && !replaces(base, sources) && base != PointOCI && base != PointPull {
		q.ask(asViolations, dataRef("ward", base, "violations"))
	}
	adds := func(s source) bool {
		m := modules[s.shown]
		return m != nil && m.Package.Path.String() == "data.ward."+point
	}
	if base != point && slices.ContainsFunc(all, adds) {
		q.ask(asDeny, whole(dataRef("ward", point, "deny")))
		q.ask(asWarn, whole(dataRef("ward", point, "warn")))
		q.ask(asObligations, whole(dataRef("ward", point, "obligations")))
	}
	return q
}
