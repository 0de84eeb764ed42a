package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Bounds on the predicates of an input, all together: their text, and the
// values in it, of which each takes some two hundred bytes once it is parsed.
const (
	maxPredicates      = 8 << 20
	maxPredicateValues = 500_000
)

// Span is a predicate in an input's text: Digest is that of its bytes.
type Span struct {
	At     int
	Size   int
	Digest string
}

// attested is what is looked at of an attestation in evidence.
type attested struct {
	Type   string          `json:"predicate_type"`
	Digest string          `json:"predicate_digest"`
	Stated json.RawMessage `json:"predicate"`
}

// place puts the predicates into the evidence. As many as the bounds allow get
// in, the smallest first; the others are missing, which judge tells whoever
// looks for them. The spans are those of the evidence.
func place(evidence json.RawMessage, predicates map[string]json.RawMessage) (json.RawMessage, []Span, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(evidence, &members); err != nil {
		return nil, nil, err
	}
	var list []json.RawMessage
	if raw, ok := members["attestations"]; !ok || json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return evidence, nil, nil
	}
	digests := make([]string, len(list))
	for i, raw := range list {
		var a attested
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, nil, err
		}
		if a.Stated == nil { // else it is there already
			digests[i] = a.Digest
		}
	}
	fit, err := fitting(digests, predicates)
	if err != nil {
		return nil, nil, err
	}
	delete(members, "attestations")
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	var spans []Span
	b.WriteString(`{"attestations":[`)
	for i, raw := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		raw = bytes.TrimSpace(raw)
		p, ok := predicates[digests[i]]
		if !ok || !fit[i] {
			b.Write(raw)
			continue
		}
		b.Write(raw[:len(raw)-1])
		b.WriteString(`,"predicate":`)
		spans = append(spans, Span{b.Len(), len(p), digests[i]})
		b.Write(p)
		b.WriteByte('}')
	}
	b.WriteByte(']')
	if len(members) > 0 {
		b.WriteByte(',')
	}
	b.Write(rest[1:])
	return b.Bytes(), spans, nil
}

// fitting chooses what there is room for.
func fitting(digests []string, predicates map[string]json.RawMessage) ([]bool, error) {
	order := make([]int, len(digests))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(len(predicates[digests[i]]), len(predicates[digests[j]])) })
	fit := make([]bool, len(digests))
	size, values := 0, 0
	for _, i := range order {
		p, ok := predicates[digests[i]]
		if !ok {
			continue
		}
		if size += len(p); size > maxPredicates {
			break
		}
		if values += countValues(p); values > maxPredicateValues {
			break
		}
		// What is decided on is what was verified, and one JSON value.
		if digestOf(p) != digests[i] || !utf8.Valid(p) || !json.Valid(p) {
			return nil, errors.New("a predicate is not what its digest says")
		}
		fit[i] = true
	}
	return fit, nil
}

// countValues is how many values some JSON holds, or a few more.
func countValues(b []byte) int {
	n, quoted := 1, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '[' || c == '{'):
			n++
		}
	}
	return n
}

// without is the text with its predicates taken out, for those who do not look
// at them: a bill of materials takes a hundred times longer to parse than the
// rest.
func without(text []byte, spans []Span) []byte {
	if len(spans) == 0 {
		return text
	}
	var b []byte
	at := 0
	for _, s := range spans {
		b = append(append(b, text[at:s.At]...), "null"...)
		at = s.At + s.Size
	}
	return append(b, text[at:]...)
}

// gaze is what the files of a policy directory look at.
type gaze struct {
	// attestations says that they may look at attestations, and omitted that
	// they say what of those that were too large to keep.
	attestations, omitted bool
}

// gazeOf errs on the side of looking: whoever names the whole input, or a
// member by a variable, may mean any.
func gazeOf(modules []*ast.Module) gaze {
	var g gaze
	var v *ast.GenericVisitor
	v = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			head, ok := x[0].Value.(ast.Var)
			if !ok || head != "input" && head != "data" {
				return false
			}
			g.see(x)
			for _, t := range x[1:] { // what stands in brackets
				v.Walk(t)
			}
			return true
		case ast.Var:
			g.attestations = g.attestations || x == "input"
		}
		return false
	})
	for _, m := range modules {
		v.Walk(m)
	}
	return g
}

// see takes in one reference.
func (g *gaze) see(r ast.Ref) {
	name := func(i int) string {
		if i >= len(r) {
			return ""
		}
		s, _ := r[i].Value.(ast.String)
		return string(s)
	}
	if r[0].Value.Compare(ast.Var("data")) == 0 {
		// The library looks at all of it. What else is below data cannot.
		if name(1) == "" || name(1) == "ward" && (name(2) == "" || name(2) == "lib") {
			g.attestations = true
		}
		return
	}
	switch {
	case name(1) == "" || name(1) == "evidence" && name(2) == "":
		g.attestations = true
	case name(1) == "evidence" && (name(2) == "attestations" || name(2) == "refused"):
		g.attestations = true
	case name(1) == "evidence" && name(2) == "omitted":
		g.omitted = true
	}
}

// unseen is the refusal where a policy that looks at attestations cannot see
// one of them: to it, what was left out would be what is not there.
func (g gaze) unseen(input ast.Value) *Reason {
	if !g.attestations {
		return nil
	}
	evidence, ok := input.(ast.Object)
	if ok {
		if t := evidence.Get(ast.StringTerm("evidence")); t != nil {
			evidence, ok = t.Value.(ast.Object)
		} else {
			ok = false
		}
	}
	if !ok {
		return nil
	}
	items := func(name string) []ast.Object {
		var out []ast.Object
		if t := evidence.Get(ast.StringTerm(name)); t != nil {
			if a, ok := t.Value.(*ast.Array); ok {
				a.Foreach(func(t *ast.Term) {
					if o, ok := t.Value.(ast.Object); ok {
						out = append(out, o)
					}
				})
			}
		}
		return out
	}
	kind := func(o ast.Object) string {
		if t := o.Get(ast.StringTerm("predicate_type")); t != nil {
			if s, ok := t.Value.(ast.String); ok && s != "" {
				return plain(string(s))
			}
		}
		return "unknown"
	}
	for _, o := range items("attestations") {
		if o.Get(ast.StringTerm("predicate")) == nil {
			return &Reason{Code: "policy.predicates", Msg: fmt.Sprintf("the policy looks at attestations, and the image's take more than %d MiB or %d values: the one of type %s is not among them",
				maxPredicates>>20, maxPredicateValues, kind(o)), Fix: "attest less, or smaller documents"}
		}
	}
	if left := items("omitted"); len(left) > 0 && !g.omitted {
		return &Reason{Code: "policy.omitted", Msg: fmt.Sprintf("the policy looks at attestations, and one of the image's (type %s) was too large or too many to keep: whether it matters is not known", kind(left[0])),
			Fix: "make it smaller or remove it from the registry and pull again; or say in a rule what of input.evidence.omitted"}
	}
	return nil
}
