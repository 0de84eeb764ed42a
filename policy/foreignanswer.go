package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// about is what a foreign policy sees of an input; nil if there is nothing for
// it to judge.
func (f *foreign) about(input ast.Value) ast.Value {
	obj, ok := input.(ast.Object)
	if !ok {
		return nil
	}
	at := func(names ...string) ast.Value {
		var ref ast.Ref
		for _, n := range names {
			ref = append(ref, ast.StringTerm(n))
		}
		v, err := obj.Find(ref)
		if err != nil {
			return ast.Null{}
		}
		return v
	}
	if f.kind == conftestDir {
		doc := at("document")
		if _, none := doc.(ast.Null); none {
			return nil
		}
		return doc
	}
	if step, _ := at("build", "step").(ast.String); at("point").Compare(ast.String(PointBuild)) == 0 && step == "run" {
		return nil // a command is no source
	}
	env := ast.NewObject([2]*ast.Term{ast.StringTerm("args"), argsOf(at("build", "arg_names"))})
	for name, v := range map[string]ast.Value{"filename": at("build", "dockerfile"), "target": at("build", "target")} {
		if text, _ := v.(ast.String); text != "" {
			env.Insert(ast.StringTerm(name), ast.NewTerm(text))
		}
	}
	return ast.NewObject([2]*ast.Term{ast.StringTerm("env"), ast.NewTerm(env)}, [2]*ast.Term{ast.StringTerm("image"), ast.NewTerm(at("image"))})
}

// argsOf are build arguments without their values, which ward does not keep.
func argsOf(names ast.Value) *ast.Term {
	out := ast.NewObject()
	l, _ := elements(names)
	for _, n := range l {
		out.Insert(n, ast.NullTerm())
	}
	return ast.NewTerm(out)
}

// consult asks a foreign policy; what it says is among the decision's reasons.
// What cannot be understood denies.
func (d *Decision) consult(ctx context.Context, e *Engine, f *foreign, input ast.Value) error {
	about := f.about(input)
	if about == nil {
		return nil
	}
	one := &Engine{query: f.query, at: e.at, question: &question{roles: make([]role, max(1, 2*len(f.rules)))}}
	found, err := one.evaluate(ctx, about)
	if stopped := (*stop)(nil); errors.As(err, &stopped) {
		return stopped.fault()
	}
	if err != nil {
		d.deny = append(d.deny, failure(err))
		return nil
	}
	if f.kind == buildxDir {
		err = d.buildx(found)
	} else {
		err = d.conftest(f, found)
	}
	if err != nil {
		d.deny = append(d.deny, Reason{Code: "policy.foreign", Msg: plain(f.shown + ": " + err.Error()), Fix: "mend the policy: docs/policy-foreign.md says what is understood"})
	}
	return nil
}

// conftest reads the answers of rules, each followed by the exceptions.
func (d *Decision) conftest(f *foreign, a answer) error {
	if len(a) != 2*len(f.rules) {
		return errors.New("it did not answer")
	}
	for i, rule := range f.rules {
		values, ok := elements(a[2*i])
		if !ok || len(values) == 0 {
			continue // undefined
		}
		said, ok := elements(values[0].Value)
		if !ok {
			return fmt.Errorf("%s.%s is %s, not a set of messages", rule.pkg, rule.name, kind(values[0].Value))
		}
		excepted, _ := elements(a[2*i+1])
		prefix, short, _ := strings.Cut(rule.name, "_")
		if prefix != "warn" && slices.ContainsFunc(excepted, func(t *ast.Term) bool { return t.Value.Compare(ast.String(short)) == 0 }) {
			continue
		}
		rs, err := reasons(nil, rule.name, ast.NewArray(said...))
		if err != nil {
			return err
		}
		for i := range rs {
			rs[i].Code = rule.code()
		}
		if prefix == "warn" {
			d.warn = append(d.warn, rs...)
		} else {
			d.deny = append(d.deny, rs...)
		}
	}
	return nil
}

// buildx reads a decision: allow, deny_msg, and caps, which say what of buildx a
// policy needs.
func (d *Decision) buildx(a answer) error {
	values, ok := elements(a[0])
	if !ok || len(values) != 1 {
		return errors.New("it has no decision (data.docker.decision is undefined)")
	}
	obj, ok := values[0].Value.(ast.Object)
	if !ok {
		return fmt.Errorf("its decision is %s, not an object", kind(values[0].Value))
	}
	allow := false
	var msgs []Reason
	var err error
	obj.Foreach(func(k, t *ast.Term) {
		switch key, _ := k.Value.(ast.String); key {
		case "allow":
			b, ok := t.Value.(ast.Boolean)
			if allow = bool(b); !ok {
				err = fmt.Errorf("allow is %s, not a boolean", kind(t.Value))
			}
		case "deny_msg":
			var e error
			if msgs, e = reasons(nil, "deny", t.Value); e != nil {
				err = e
			}
		case "caps":
		default:
			err = fmt.Errorf("its decision has a member %s that means nothing", plain(k.String()))
		}
	})
	if err != nil {
		return err
	}
	if !allow && len(msgs) == 0 {
		msgs = []Reason{{Msg: "the buildx policy does not allow this image"}}
	}
	for i := range msgs {
		msgs[i].Code = buildxCode
	}
	if allow {
		d.warn = append(d.warn, msgs...) // as there: what is allowed is only said
	} else {
		d.deny = append(d.deny, msgs...)
	}
	return nil
}
