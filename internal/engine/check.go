package engine

import (
	"context"

	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Check answers what Run would decide about a request: the evidence and the
// policy's answer. It asks no registry, starts nothing and records nothing. An
// error means that the question did not get as far as the policy.
func (e *Engine) Check(ctx context.Context, req Request) (verify.Evidence, policy.Decision, error) {
	req.Pull = PullNever
	quiet := *e
	quiet.decider = quietly(e.decider)
	e = &quiet
	a := &attempt{e: e, req: req}
	img, err := e.resolve(ctx, a)
	if err != nil {
		return verify.Evidence{}, policy.Decision{}, err
	}
	ev, err := e.verify(ctx, img)
	if err != nil {
		return ev, policy.Decision{}, err
	}
	a.img = img
	if err := e.completeMounts(ctx, a); err != nil {
		return ev, policy.Decision{}, err
	}
	req = a.req
	id := newID()
	draft, err := e.draft(ctx, req, img, id, id)
	if err != nil {
		return ev, policy.Decision{}, err
	}
	_, _, err = e.decided(ctx, a, draft, func(p sandbox.Plan) policy.Input { return inputFor(req, img, ev, p) })
	if a.answer.InputDigest() != "" && !a.answer.Allowed() {
		err = nil // it is the answer
	}
	return ev, a.answer, err
}
