package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/ward-project/ward/internal/fault"
)

// Mode says what becomes of a denial.
type Mode string

const (
	// Enforce denies. It is what holds where nothing is said.
	Enforce Mode = "enforce"
	// Warn lets through, and says so to whoever asked.
	Warn Mode = "warn"
	// Audit lets through, and says so on the record alone.
	Audit Mode = "audit"
)

// modes are what the grants document says about rules that are not enforced:
// by code, by point, or by point and code ("exec/restricted.capabilities").
type modes map[string]Mode

// readModes reads the grants document's member "modes".
func readModes(s source, v any) (modes, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, badGrants(s, "modes is not an object")
	}
	out := modes{}
	for _, key := range sorted(m) {
		text, _ := m[key].(string)
		mode := Mode(text)
		if mode != Enforce && mode != Warn && mode != Audit {
			return nil, badGrants(s, "modes: %q is %v, not %q, %q or %q", key, m[key], Enforce, Warn, Audit)
		}
		point, code, both := strings.Cut(key, "/")
		_, isPoint := decisionFiles[point]
		if !both {
			code = ""
			if !isPoint {
				code = point
			}
		}
		if both && (!isPoint || code == "") || !both && !isPoint && !strings.Contains(code, ".") {
			return nil, badGrants(s, "modes: %q is not a rule's code, a point, or a point and a code with a slash between them", key)
		}
		if mode != Enforce && code != "" && !loosenable(code) {
			return nil, badGrants(s, "modes: %s cannot be left unenforced", code)
		}
		out[key] = mode
	}
	return out, nil
}

// loosenable says whether a rule may be left unenforced at all. Not those by
// which ward refuses what it cannot judge, and not evidence: whom to trust is
// for the trust policies to say.
func loosenable(code string) bool {
	return code != "" && !strings.HasPrefix(code, "policy.") && !strings.HasSuffix(code, ".input") && !strings.Contains(code, ".evidence")
}

// of is the mode of a code at a point; the narrower of two entries holds.
func (m modes) of(point, code string) Mode {
	if !loosenable(code) {
		return Enforce
	}
	for _, key := range []string{point + "/" + code, code, point} {
		if mode, ok := m[key]; ok {
			return mode
		}
	}
	return Enforce
}

// check refuses entries about rules that are not there: who misspelt a code
// believes that something is or is not enforced. A rule of the directory's own
// is there if its code is written out in a file of the directory; foreign are the
// codes of policies that were written for other programs.
func (m modes) check(s string, local []*ast.Module, foreign []string) error {
	if len(m) == 0 {
		return nil
	}
	known := append(shippedCodes(), foreign...)
	for _, mod := range local {
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if text, ok := t.Value.(ast.String); ok {
				known = append(known, string(text))
			}
			return false
		})
	}
	for _, key := range sorted(m) {
		code := key
		if _, isPoint := decisionFiles[key]; isPoint {
			continue
		}
		if _, after, both := strings.Cut(key, "/"); both {
			code = after
		}
		if !slices.Contains(known, code) {
			return fault.New(fault.Invalid, "policy.modes", fmt.Sprintf("%s: modes: there is no rule with the code %q", s, code),
				"mend the code: docs/policy.md lists those of the shipped rules; one of your own is written out in its file")
		}
	}
	return nil
}

// settle moves the denials that are not enforced to the warnings. excused says
// that nothing was denied but what was moved.
func (d *Decision) settle(m modes, point string) (excused bool) {
	var enforced []Reason
	for _, r := range d.deny {
		r.Mode = m.of(point, r.Code)
		if r.Mode == Enforce {
			r.Mode = ""
			enforced = append(enforced, r)
			continue
		}
		d.warn = append(d.warn, r)
	}
	excused = len(enforced) == 0 && len(d.deny) > 0
	d.deny = enforced
	return excused
}

// allLoosened says whether no violation among v is enforced: all are pairs
// whose first member is a code that is not.
func (m modes) allLoosened(point string, v ast.Value) bool {
	l, ok := elements(v)
	if !ok {
		return false
	}
	for _, t := range l {
		pair, ok := t.Value.(*ast.Array)
		if !ok || pair.Len() == 0 {
			return false
		}
		code, ok := pair.Elem(0).Value.(ast.String)
		if !ok || m.of(point, string(code)) == Enforce {
			return false
		}
	}
	return true
}

// shippedCodes are the codes of all shipped rules, at whatever point.
func shippedCodes() []string {
	out := []string{
		"oci.caller", "oci.bundle", "oci.shared-pid", "exec.capabilities", "cp.direction", "build.step",
		"k8s.host-process", "k8s.host-namespaces", "k8s.privileged", "k8s.host-ports", "k8s.probe-host", "k8s.proc-mount", "k8s.host-path",
		"k8s.volume-types", "k8s.run-as-non-root", "k8s.run-as-user", "k8s.unmapped",
		"ci.ports", "ci.network", "ci.unmapped",
	}
	b, err := shipped.ReadFile("rego/messages.json")
	if err != nil {
		panic(err) // compiled in
	}
	var texts map[string]json.RawMessage
	if err := json.Unmarshal(b, &texts); err != nil {
		panic(err)
	}
	for code := range texts {
		out = append(out, code)
	}
	return out
}
