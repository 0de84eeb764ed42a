package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Bounds on what a policy may answer.
const (
	maxReasons = 64
	maxText    = 1024 // bytes of one code, message or fix
	maxTerms   = 10_000
)

var errLarge = fmt.Errorf("the policy's decision has more than %d values", maxTerms)

// small reports whether t has at most left values in it, counting left down.
// Values share parts: sixty lines of Rego can make one that takes no memory
// and never ends when it is written out.
func small(t *ast.Term, left *int) bool {
	if *left--; *left < 0 {
		return false
	}
	switch v := t.Value.(type) {
	case *ast.Array:
		return !v.Until(func(e *ast.Term) bool { return !small(e, left) })
	case ast.Set:
		// Before iterating, which sorts.
		return v.Len() <= *left && !v.Until(func(e *ast.Term) bool { return !small(e, left) })
	case ast.Object:
		return v.Len() <= *left && !v.Until(func(k, e *ast.Term) bool { return !small(k, left) || !small(e, left) })
	}
	return true
}

// answer is what an evaluation found: one value for each expression of the
// question, in its order; nil where the decision is undefined.
type answer []ast.Value

// fill reads an answer. Whatever is not exactly as documented denies; d is
// allowed only if nothing at all was found wrong.
func (d *Decision) fill(e *Engine, a answer) {
	if len(a) == 0 {
		d.refuse("policy.undefined", fmt.Sprintf("the policy has no decision for this %s (data.ward.%[1]s.decision is undefined)", e.base))
		return
	}
	obj, ok := a[0].(ast.Object)
	if !ok {
		d.refuse("policy.result", fmt.Sprintf("the policy's decision is %s, not an object", kind(a[0])))
		return
	}
	allow, sound := d.member(obj)
	excusable := !e.custom
	for i, v := range a[1:] {
		switch r := e.question.roles[i+1]; r {
		case asViolations:
			excusable = excusable && e.modes.allLoosened(e.point, v)
		default:
			sound = d.add(r, v) && sound
		}
	}
	excused := d.settle(e.modes, e.point) && excusable
	// Both must say so: an allow beside a reason to deny is a deny.
	d.allowed = sound && (allow || excused) && len(d.deny) == 0
	if !d.allowed && len(d.deny) == 0 {
		d.refuse("policy.denied", "the policy denies without giving a reason")
	}
	if !d.allowed {
		d.obligations = Obligations{}
	}
}

// member reads a decision's members.
func (d *Decision) member(obj ast.Object) (allow, sound bool) {
	sound = true
	obj.Foreach(func(k, t *ast.Term) {
		var err error
		switch key, _ := k.Value.(ast.String); key {
		case "allow":
			b, ok := t.Value.(ast.Boolean)
			if allow = bool(b); !ok {
				err = fmt.Errorf("allow is %s, not a boolean", kind(t.Value))
			}
		case "deny":
			d.deny, err = reasons(d.deny, "deny", t.Value)
		case "warn":
			d.warn, err = reasons(d.warn, "warn", t.Value)
		case "obligations":
			err = d.obligations.read(t.Value)
		default:
			err = fmt.Errorf("it has a member %v that means nothing", plain(k.String()))
		}
		if err != nil {
			sound = false
			d.refuse("policy.result", "the policy's decision is not understood: "+err.Error())
		}
	})
	return allow, sound
}

// add reads what a package adds to a decision: a list of at most one set.
func (d *Decision) add(r role, v ast.Value) bool {
	l, ok := elements(v)
	if !ok || len(l) > 1 {
		d.refuse("policy.result", "what is added to the policy's decision is not understood")
		return false
	}
	var err error
	for _, t := range l {
		switch r {
		case asDeny:
			d.deny, err = reasons(d.deny, "deny", t.Value)
		case asWarn:
			d.warn, err = reasons(d.warn, "warn", t.Value)
		case asObligations:
			err = d.obligations.read(t.Value)
		}
	}
	if err != nil {
		d.refuse("policy.result", "what is added to the policy's decision is not understood: "+err.Error())
	}
	return err == nil
}

func (d *Decision) refuse(code, msg string) {
	d.deny = append(d.deny, Reason{Code: code, Msg: msg, Fix: "mend the policy: docs/policy.md shows what a decision looks like"})
}

// elements are the members of a set or array; ok is false for anything else.
func elements(v ast.Value) (l []*ast.Term, ok bool) {
	switch v := v.(type) {
	case ast.Set:
		return v.Slice(), true
	case *ast.Array:
		v.Foreach(func(t *ast.Term) { l = append(l, t) })
		return l, true
	}
	return nil, false
}

// reasons reads a set or list of reasons onto out. A plain string is a reason
// without code and fix, as in conftest.
func reasons(out []Reason, what string, v ast.Value) ([]Reason, error) {
	l, ok := elements(v)
	if !ok {
		return out, fmt.Errorf("%s is %s, not a set of reasons", what, kind(v))
	}
	for i, t := range l {
		if i == maxReasons {
			return append(out, Reason{Code: "policy.more", Msg: fmt.Sprintf("and %d more reasons", len(l)-i)}), nil
		}
		r := Reason{Code: "policy." + what}
		switch v := t.Value.(type) {
		case ast.String:
			r.Msg = plain(string(v))
		case ast.Object:
			for member, into := range map[string]*string{"code": &r.Code, "msg": &r.Msg, "fix": &r.Fix} {
				if s := v.Get(ast.StringTerm(member)); s != nil {
					text, ok := s.Value.(ast.String)
					if !ok {
						return append(out, r), fmt.Errorf("%s of a %s reason is %s, not a string", member, what, kind(s.Value))
					}
					*into = plain(string(text))
				}
			}
			if ev := v.Get(ast.StringTerm("evidence")); ev != nil {
				var err error
				if r.Evidence, err = evidence(ev); err != nil {
					return append(out, r), err
				}
			}
			if r.Msg == "" {
				return append(out, r), fmt.Errorf("a %s reason has no msg", what)
			}
		default:
			return out, fmt.Errorf("a %s reason is %s, not an object", what, kind(v))
		}
		out = append(out, r)
	}
	return out, nil
}

// read merges what one or more obligation objects ask for: the union of what
// is dropped, the least of the maxima. So rules in several files cannot
// conflict, and none can loosen what another asked for.
func (o *Obligations) read(v ast.Value) error {
	if obj, ok := v.(ast.Object); ok {
		return o.merge(obj)
	}
	l, ok := elements(v)
	if !ok {
		return fmt.Errorf("obligations is %s, not an object or a set of objects", kind(v))
	}
	for _, t := range l {
		obj, ok := t.Value.(ast.Object)
		if !ok {
			return fmt.Errorf("an obligation is %s, not an object", kind(t.Value))
		}
		if err := o.merge(obj); err != nil {
			return err
		}
	}
	return nil
}

func (o *Obligations) merge(obj ast.Object) (err error) {
	obj.Foreach(func(k, t *ast.Term) {
		if err != nil {
			return
		}
		switch key, _ := k.Value.(ast.String); key {
		case "drop_capabilities":
			err = o.drop(t.Value)
		case "read_only_root":
			o.ReadOnlyRoot, err = true, onlyTrue(string(key), t.Value)
		case "no_new_privs":
			o.NoNewPrivs, err = true, onlyTrue(string(key), t.Value)
		case "require_gvisor":
			o.RequireGVisor, err = true, onlyTrue(string(key), t.Value)
		case "deny_syscalls":
			err = o.refuse(t.Value)
		case "max_swap":
			err = o.swap(t.Value)
		case "max_memory":
			err = least(&o.MaxMemory, string(key), t.Value)
		case "max_pids":
			err = least(&o.MaxPIDs, string(key), t.Value)
		case "max_cpus":
			n, ok := t.Value.(ast.Number)
			f, e := strconv.ParseFloat(string(n), 64)
			if !ok || e != nil || f <= 0 || math.IsInf(f, 0) {
				err = fmt.Errorf("obligation max_cpus is not a positive number")
			} else if o.MaxCPUs == 0 || f < o.MaxCPUs {
				o.MaxCPUs = f
			}
		default:
			// An obligation that cannot be met must not be dropped.
			err = fmt.Errorf("obligation %s is not known", plain(k.String()))
		}
	})
	return err
}

func (o *Obligations) drop(v ast.Value) error {
	l, ok := elements(v)
	if !ok {
		return fmt.Errorf("obligation drop_capabilities is %s, not a list", kind(v))
	}
	for _, t := range l {
		s, ok := t.Value.(ast.String)
		name := "CAP_" + strings.TrimPrefix(string(s), "CAP_")
		if !ok || !capabilityName(name) {
			return fmt.Errorf("obligation drop_capabilities holds %s, not a capability", plain(t.String()))
		}
		if !slices.Contains(o.DropCapabilities, name) {
			o.DropCapabilities = append(o.DropCapabilities, name)
		}
	}
	slices.Sort(o.DropCapabilities)
	return nil
}

// onlyTrue refuses a false, which would be loosening, or a mistake.
func onlyTrue(key string, v ast.Value) error {
	if b, ok := v.(ast.Boolean); !ok || !bool(b) {
		return fmt.Errorf("obligation %s can only be true", key)
	}
	return nil
}

func (o *Obligations) refuse(v ast.Value) error {
	l, ok := elements(v)
	if !ok {
		return fmt.Errorf("obligation deny_syscalls is %s, not a list", kind(v))
	}
	for _, t := range l {
		s, ok := t.Value.(ast.String)
		if !ok || s == "" || len(s) > 64 || strings.Trim(string(s), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return fmt.Errorf("obligation deny_syscalls holds %s, not a system call", plain(t.String()))
		}
		if !slices.Contains(o.DenySyscalls, string(s)) {
			o.DenySyscalls = append(o.DenySyscalls, string(s))
		}
	}
	slices.Sort(o.DenySyscalls)
	return nil
}

// swap reads a maximum that may be none.
func (o *Obligations) swap(v ast.Value) error {
	n, ok := v.(ast.Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if !ok || err != nil || i < 0 {
		return fmt.Errorf("obligation max_swap is not a whole number from 0")
	}
	if o.MaxSwap == nil || i < *o.MaxSwap {
		o.MaxSwap = &i
	}
	return nil
}

func least(into *int64, key string, v ast.Value) error {
	n, ok := v.(ast.Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if !ok || err != nil || i <= 0 {
		return fmt.Errorf("obligation %s is not a positive whole number", key)
	}
	if *into == 0 || i < *into {
		*into = i
	}
	return nil
}

// capabilityName reports whether s is spelt like one capability: "CAP_CHOWN".
func capabilityName(s string) bool {
	rest, ok := strings.CutPrefix(s, "CAP_")
	return ok && rest != "" && rest != "ALL" && len(s) <= 64 && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == ""
}

// maxEvidence bounds one reason's evidence, as JSON.
const maxEvidence = 4 << 10

// evidence is a reason's evidence as JSON; what is too long is left out, and
// that it was is said.
func evidence(t *ast.Term) (json.RawMessage, error) {
	v, err := ast.JSON(t.Value)
	if err != nil {
		return nil, fmt.Errorf("evidence of a reason is not JSON: %v", err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("evidence of a reason is not JSON: %v", err)
	}
	if len(b) > maxEvidence {
		return json.RawMessage(fmt.Sprintf(`{"omitted":"%d bytes"}`, len(b))), nil
	}
	return b, nil
}

// kind names a value's type for a message.
func kind(v ast.Value) string {
	n := ast.ValueName(v)
	if strings.ContainsRune("aeiou", rune(n[0])) {
		return "an " + n
	}
	return "a " + n
}

// plain makes text safe to print on a terminal and in one line: names and
// labels in it come from images and requests.
func plain(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"), !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
