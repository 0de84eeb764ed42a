package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// RuleAt is where a rule is and what it looks at.
type RuleAt struct {
	// Code is the reason's; Where the file and line ("ward/baseline.rego:26"),
	// empty where it is not found in any.
	Code  string `json:"code"`
	Where string `json:"where,omitempty"`
	// Looked are the members of the input that the rule names, with their
	// values: what it judged by.
	Looked []Looked `json:"looked,omitempty"`
	// Expected is what would pass, in the rule's own words if it says so.
	Expected string `json:"expected,omitempty"`
}

// Looked is a member of the input with its value.
type Looked struct {
	Input string          `json:"input"`
	Value json.RawMessage `json:"value"`
}

// maxLooked is how many members of the input are shown for one rule.
const maxLooked = 6

// rules finds the rules behind the reasons of an explanation.
func (x *explainer) rules(of Explanation) ([]RuleAt, error) {
	point, _ := dig(x.in, "point").(string)
	e, err := x.r.engine(point)
	if err != nil {
		return nil, err
	}
	var out []RuleAt
	seen := map[string]bool{}
	for _, r := range slices.Concat(of.Now.Deny, of.Now.Warn) {
		if seen[r.Code] {
			continue
		}
		seen[r.Code] = true
		at := RuleAt{Code: r.Code}
		if rule := ruleOf(e.modules, r.Code); rule != nil {
			at.Where = fmt.Sprintf("%s:%d", rule.Location.File, rule.Location.Row)
			at.Looked = x.looked(rule)
		}
		x.evidence(r.Evidence, &at)
		if at.Expected == "" {
			at.Expected = expected(of.Request, r.Code)
		}
		out = append(out, at)
	}
	return out, nil
}

// evidence takes what the rule itself says that it looked at.
func (x *explainer) evidence(b json.RawMessage, at *RuleAt) {
	var ev struct {
		Input    string          `json:"input"`
		Values   json.RawMessage `json:"values"`
		Expected string          `json:"expected"`
	}
	if len(b) == 0 || json.Unmarshal(b, &ev) != nil || ev.Input == "" {
		return
	}
	value := member(x.in, ev.Input)
	if len(value) > maxShown/2 || string(value) == "null" || strings.HasPrefix(string(value), `"(`) {
		value = ev.Values
	}
	at.Looked, at.Expected = []Looked{{Input: ev.Input, Value: value}}, ev.Expected
}

// expected is what the change that answers a rule comes to.
func expected(changes []RequestChange, code string) string {
	var out []string
	for _, c := range changes {
		if slices.Contains(c.Rules, code) {
			out = append(out, fmt.Sprintf("%s %s", c.Input, c.Becomes))
		}
	}
	return strings.Join(out, ", ")
}

// ruleOf is the rule that a reason's code stands in, or begins in ("baseline.limits-").
func ruleOf(modules map[string]*ast.Module, code string) *ast.Rule {
	var found, prefix *ast.Rule
	for _, file := range sorted(modules) {
		for _, rule := range modules[file].Rules {
			ast.WalkTerms(rule, func(t *ast.Term) bool {
				s, ok := t.Value.(ast.String)
				switch {
				case !ok:
				case string(s) == code && found == nil:
					found = rule
				case len(s) > 4 && strings.HasSuffix(string(s), "-") && strings.HasPrefix(code, string(s)) && prefix == nil:
					prefix = rule
				}
				return false
			})
		}
	}
	if found == nil {
		return prefix
	}
	return found
}

// looked are the members of the input that a rule names.
func (x *explainer) looked(rule *ast.Rule) []Looked {
	var out []Looked
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		if head, ok := ref[0].Value.(ast.Var); !ok || head != "input" {
			return false
		}
		var path []string
		for _, t := range ref[1:] {
			s, ok := t.Value.(ast.String)
			if !ok {
				break
			}
			path = append(path, string(s))
		}
		name := strings.Join(path, ".")
		if len(path) > 0 && len(out) < maxLooked && !slices.ContainsFunc(out, func(l Looked) bool { return l.Input == name }) {
			out = append(out, Looked{Input: name, Value: member(x.in, name)})
		}
		return false
	})
	return out
}

func splitPath(path string) []string { return strings.Split(path, ".") }
