package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Started is a container whose payload has been executed.
type Started struct {
	Container
	// Process is the handle on it. Closing the caller does not end it.
	Process *sandbox.Running
	// Notes are what the caller should be told: limits that are lower than asked.
	Notes []string
}

// Run lets a request in, or says why not. It returns once the payload has
// been executed. Every refusal is on record before it returns; every run that
// was let in is on record before its payload exists.
func (e *Engine) Run(ctx context.Context, req Request, io Stdio) (*Started, error) {
	id := newID()
	return e.pass(ctx, &attempt{e: e, req: req, container: id, run: id}, io)
}

// pass is the whole gate. A request becomes a process here or nowhere, whether
// its container is new, only made, or started again.
func (e *Engine) pass(ctx context.Context, a *attempt, io Stdio) (*Started, error) {
	// resolve: the name is read once; from here on there is only a digest.
	img, err := e.resolve(ctx, a)
	if err != nil {
		return nil, a.refuse(ctx, "resolve", err)
	}
	a.img = img

	// verify: who vouches for this digest?
	ev, err := e.verify(ctx, img)
	if err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}

	// What it mounts is part of what is asked for. Volumes get their names, and
	// images that are mounted are verified like the one that runs.
	if err := e.completeMounts(ctx, a); err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}
	req := a.req

	// decide: may exactly this run? The draft is the final specification but
	// for what only tightens it and where it lies on this host.
	draft, err := e.draft(ctx, req, img, a.container, a.run)
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	draft, dec, err := e.decided(ctx, a, draft, func(p sandbox.Plan) policy.Input { return a.input(ev, p) })
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}

	// seal: one plan, one encoding, one digest.
	slot, plan, err := e.seal(ctx, a, draft)
	if err != nil {
		return nil, a.refuse(ctx, "seal", err)
	}
	if a.createOnly {
		return a.created(ctx, slot, dec)
	}

	// record: on disk before anything exists.
	permit, err := e.intend(ctx, intent(a, ev, slot.plan, plan), dec)
	if err != nil {
		return nil, errors.Join(a.refuse(ctx, "record", unrecorded(err)), slot.abandon())
	}

	// launch: the launcher checks receipt and floor again, itself.
	running, err := e.launcher.Launch(ctx, plan, permit.Receipt(), sandbox.Stdio(io), slot.lock.File())
	if err != nil {
		return nil, errors.Join(a.aborted(ctx, err), slot.abandon())
	}

	// report: from here on the monitor holds the lock and keeps the record.
	if err := slot.lock.Unlock(); err != nil {
		return nil, err
	}
	slot.container.Status.Phase = sandbox.PhaseRunning
	if err := e.keepIfAlone(slot.container); err != nil {
		// Nobody would look after it as was asked.
		return nil, errors.Join(err, e.Kill(ctx, slot.container))
	}
	return &Started{Container: slot.container, Process: running, Notes: append(lowered(req, slot.plan), warned(ev)...)}, nil
}

// resolve finds the image, asking a registry only as the pull policy says. For
// a container that is there the image was chosen when it was made.
func (e *Engine) resolve(ctx context.Context, a *attempt) (images.Image, error) {
	req := a.req
	if a.again != nil {
		return e.resolveAgain(ctx, a.again)
	}
	if req.Pull == PullAlways {
		return a.pull(ctx)
	}
	img, err := e.resolver.Resolve(ctx, req.Image)
	if req.Pull != PullNever && errors.Is(err, fault.NotFound) {
		return a.pull(ctx)
	}
	return img, err
}

// verify gathers what hangs on the digest and has it judged.
func (e *Engine) verify(ctx context.Context, img images.Image) (verify.Evidence, error) {
	ev, _, err := e.verified(ctx, img)
	return ev, err
}

// verified is verify, and what was judged.
func (e *Engine) verified(ctx context.Context, img images.Image) (verify.Evidence, []verify.Material, error) {
	subject, material, err := Gather(ctx, e.resolver, img)
	if err != nil {
		return verify.Evidence{}, nil, err
	}
	ev, err := e.verifier.Verify(ctx, subject, material)
	if err != nil {
		return verify.Evidence{}, nil, err
	}
	if !ev.Verified() {
		return verify.Evidence{}, nil, fault.New(fault.Unverified, "trust.unverified", "image "+img.Digest+" is not verified", "")
	}
	return ev, material, nil
}

// Gather collects what hangs on an image: signatures and attestations, on its
// manifest and on the index it was chosen from.
func Gather(ctx context.Context, r Resolver, img images.Image) (verify.Subject, []verify.Material, error) {
	s := verify.Subject{Reference: img.Reference, Digests: []string{img.Digest}}
	if img.Index != "" {
		s.Digests = append(s.Digests, img.Index)
	}
	var ms []verify.Material
	for _, d := range s.Digests {
		as, err := r.Attachments(ctx, d)
		if err != nil {
			return s, nil, err
		}
		for _, a := range as {
			ms = append(ms, verify.Material(a))
		}
		stated, err := r.Attestations(ctx, d)
		if err != nil {
			return s, nil, err
		}
		for _, a := range stated {
			if a.Omitted != "" {
				s.Omitted = append(s.Omitted, verify.OmittedAttestation{PredicateType: a.PredicateType, Digest: a.Subject, Size: a.Size, Reason: a.Omitted})
				continue
			}
			ms = append(ms, verify.Material(a.Attachment))
		}
	}
	return s, ms, nil
}

// warned says which trust policies are not satisfied and only warn.
func warned(ev verify.Evidence) []string {
	var notes []string
	for _, w := range ev.Warnings() {
		notes = append(notes, fmt.Sprintf("trust policy %s only warns: %s (%s)", w.Policy, w.Cause, w.Rule))
	}
	return notes
}

// decide asks the policy and turns anything but a yes into a refusal.
func (e *Engine) decide(ctx context.Context, a *attempt, in policy.Input) (policy.Decision, error) {
	dec, err := e.decider.Decide(ctx, in)
	if err != nil {
		return policy.Decision{}, err
	}
	a.answer = dec.Obliged(a.obliged)
	if !dec.Allowed() {
		return policy.Decision{}, denial(dec)
	}
	return a.answer, nil
}

// intent is the record that lets a plan be launched.
func intent(a *attempt, ev verify.Evidence, p sandbox.Plan, encoded []byte) audit.Intent {
	return audit.Intent{
		Run: p.Run, Actor: a.req.Actor, Plan: sandbox.Digest(encoded),
		Point: a.point(), Container: p.Container, Name: p.Name, Image: audit.Image{Reference: p.Image.Reference, Digest: p.Image.Digest},
		Evidence: RecordedEvidence(ev), Args: p.Process.Args, EnvNames: envNames(p.Process.Env),
		Labels: a.req.Labels, Remove: a.req.Remove, IDBase: p.IDMap.Base, Mounted: mountedImages(p),
	}
}

// mountedImages are the images a plan mounts beside the one that runs.
func mountedImages(p sandbox.Plan) []audit.Image {
	var out []audit.Image
	for _, m := range p.Mounts {
		if m.Type == sandbox.MountImage {
			out = append(out, audit.Image{Reference: m.Name, Digest: m.Digest})
		}
	}
	return out
}

// unrecorded is why a run that everything else allowed must not start.
func unrecorded(err error) error {
	if errors.Is(err, audit.ErrTooLarge) {
		return fault.New(fault.Invalid, "run.size", fmt.Sprintf("what it asks for is too long to be put on record whole: %v", err),
			"nothing runs unrecorded: pass less in arguments, names of variables and labels")
	}
	return fault.Wrap(fault.Unrecorded, "audit.intent", fmt.Errorf("record the intent: %w", err),
		"nothing runs unrecorded: mend the audit log (ward audit verify) or free space for it")
}

// aborted puts on record that an intended run never began.
func (a *attempt) aborted(ctx context.Context, why error) error {
	var start *sandbox.StartError
	if !errors.As(why, &start) {
		return a.refuse(ctx, "launch", why)
	}
	// Let in, but the command itself could not be executed: an end, no denial.
	return errors.Join(why, a.e.append(ctx, audit.Record{Type: audit.RunExit, Run: a.run, Actor: a.req.Actor,
		Data: audit.Exit{Code: start.Code, Error: start.Error()}}))
}
