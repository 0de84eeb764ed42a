package policy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/ward-project/ward/internal/fault"
)

// Level is the policy in force: "restricted", "baseline" or "custom".
func (e *Engine) Level() string { return e.level }

// Revision is the digest ("sha256:…") of every policy source in force.
func (e *Engine) Revision() string { return e.revision }

// Decide answers whether the run described by in may go ahead. What the policy
// says, does not say, or says wrongly is a Decision; an input that cannot be
// judged is fault.Invalid, and an evaluation that had to be stopped (time,
// steps, memory, ctx) is fault.Unavailable, both with the zero Decision, which
// denies.
func (e *Engine) Decide(ctx context.Context, in Input) (Decision, error) {
	if e == nil {
		return Decision{}, fault.New(fault.Invalid, "policy.closed", "no policy is open", "open one")
	}
	if want := cmp.Or(e.cfg.Point, PointRun); in.Point != want {
		return Decision{}, invalidInput("point %q is not the one that this policy was opened for (%s)", in.Point, want)
	}
	text, spans, err := in.encode()
	if err != nil {
		return Decision{}, err
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, (&stop{context.Cause(ctx)}).fault()
	}
	seen := text
	if !e.gaze.attestations {
		seen = without(text, spans)
	}
	parsed, err := ast.ValueFromReader(bytes.NewReader(seen))
	if err != nil {
		return Decision{}, invalidInput("%v", err)
	}
	d, err := e.judge(ctx, text, parsed)
	d.spans = spans
	return d, err
}

// judge answers about an input that is text, and parsed.
func (e *Engine) judge(ctx context.Context, text []byte, parsed ast.Value) (Decision, error) {
	d := Decision{level: e.level, revision: e.revision, bundles: e.bundles, inputDigest: digestOf(text), input: text}
	if r := e.gaze.unseen(parsed); r != nil {
		d.deny = []Reason{*r}
		return d, nil
	}
	for _, f := range e.foreign {
		if err := d.consult(ctx, e, f, parsed); err != nil {
			return Decision{}, err
		}
	}
	found, err := e.evaluate(ctx, parsed)
	if stopped := (*stop)(nil); errors.As(err, &stopped) {
		return Decision{}, stopped.fault()
	}
	if err != nil {
		d.deny = append(d.deny, failure(err))
		return d, nil
	}
	d.fill(e, found)
	return d, nil
}

// evaluate runs the query within bounds. It returns nothing for an undefined
// decision. The evaluation has a goroutine of its own because a built-in
// cannot be interrupted: the caller gets an answer in time whatever happens.
func (e *Engine) evaluate(ctx context.Context, input ast.Value) (answer, error) {
	type outcome struct {
		found answer
		err   error
	}
	b := newBudget()
	defer b.close()
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { b.end(ctx.Err()) })()
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil { // a defect of OPA is not an allow
				o = outcome{err: fmt.Errorf("the policy engine panicked: %v", p)}
			}
			done <- o
		}()
		deepen(1)
		o.found, o.err = e.run(ctx, b, input)
	}()
	select {
	case o := <-done:
		if s := b.stopped(); s != nil {
			return nil, s
		}
		return o.found, o.err
	case <-b.late:
		return nil, b.stopped()
	}
}

// deepen makes the stack of a new goroutine as large as an evaluation by the
// shipped policies needs it, 256 KiB, while there is nothing on it. It would be
// copied, frame by frame, each time that it has to grow to twice its size: a
// tenth of a decision. In two pieces, as larger variables are not on the stack.
//
//go:noinline
func deepen(more int) byte {
	var room [100 << 10]byte
	if more > 0 {
		room[more] = deepen(more - 1)
	}
	return room[more]
}

func (e *Engine) run(ctx context.Context, b *budget, input ast.Value) (answer, error) {
	rs, err := e.query.Eval(ctx,
		rego.EvalParsedInput(input),
		rego.EvalExternalCancel(b),
		rego.EvalTime(e.at),
		// Keep the term: turning it into Go values would have no bound.
		rego.EvalGenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) {
			if left := maxTerms; !small(t, &left) {
				return nil, errLarge
			}
			return t.Value, nil
		}),
	)
	if err != nil {
		return nil, err
	}
	// An empty result set is "undefined", which is not "false", let alone
	// "true"; more than one result is not an answer.
	if len(rs) == 0 {
		return nil, nil
	}
	if len(rs) != 1 || len(rs[0].Expressions) != len(e.question.roles) || len(rs[0].Bindings) != 0 {
		return nil, errors.New("the decision has more than one value")
	}
	found := make(answer, len(rs[0].Expressions))
	for i, x := range rs[0].Expressions {
		v, ok := x.Value.(ast.Value)
		if !ok {
			return nil, errors.New("the decision is not a value")
		}
		found[i] = v
	}
	return found, nil
}

// failure is the reason for an evaluation that ended in an error.
func failure(err error) Reason {
	r := Reason{Code: "policy.error", Msg: plain("the policy could not be evaluated: " + err.Error()), Fix: "mend the policy named in the message"}
	if errors.Is(err, errLarge) {
		return Reason{Code: "policy.result", Msg: errLarge.Error(), Fix: "give fewer reasons"}
	}
	var te *topdown.Error
	if errors.As(err, &te) {
		where := ""
		if te.Location != nil {
			where = fmt.Sprintf("%s:%d: ", te.Location.File, te.Location.Row)
		}
		r.Msg = plain(where + te.Message)
		if te.Code == topdown.ConflictErr {
			r.Code, r.Msg = "policy.conflict", plain(where+"the policy contradicts itself: "+te.Message)
		}
	}
	return r
}
