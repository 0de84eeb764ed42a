package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Answer is what Gate says about an image.
type Answer string

// The outcomes. Only Allow lets anything in; Indeterminate is an answer that
// could not be had, Invalid a question that makes no sense.
const (
	Allow         Answer = "allow"
	Deny          Answer = "deny"
	Invalid       Answer = "invalid"
	Indeterminate Answer = "indeterminate"
)

// GateRequest is one image a pipeline asks about, with what it would be run
// with.
type GateRequest struct {
	Request
	// CI says where it stands. K8s is not nil for a container of a Pod: then the
	// question is that of an admission, at point k8s.
	CI  policy.CI
	K8s *policy.K8s
	// Document is the object or file that the Request was read from, whole.
	Document json.RawMessage
	// Unmapped are fields of the file that are not in the Request, Unknowns
	// facts that the file does not say and the Request takes at a default.
	Unmapped []policy.Unmapped
	Unknowns []string
	// Devices are devices that this host does not have and the one that is to
	// run it may.
	Devices []policy.Device
	// SecurityOpt are security options that are facts to policy, and nothing
	// that a run could be asked for.
	SecurityOpt []string
	// Refused is why the Request could not be made of what a file says. It is
	// recorded as the answer, and nothing else is asked.
	Refused error
}

// point is where the question is asked.
func (r GateRequest) point() string {
	if r.K8s != nil {
		return policy.PointK8s
	}
	return policy.PointCI
}

// Verdict is the answer about one image. The zero Verdict lets nothing in.
type Verdict struct {
	Outcome Answer
	// Image is what the name was resolved to, as far as that got.
	Image    images.Image
	Evidence verify.Evidence
	// Material is all that was looked at for the evidence.
	Material []verify.Material
	Decision policy.Decision
	// Stage is the verb that refused, Refusal its reason; nil if allowed.
	Stage   string
	Refusal *fault.Error
	// Unknowns names the facts that only the host that runs it can know.
	Unknowns []string
	// asked says that the refusal is about what was asked for, not about the
	// machinery that answers.
	asked bool
}

// Gate answers whether this would be let in, and puts the answer on record:
// resolve, verify and decide at point ci (k8s for a Pod's container), by the rules of run. It starts
// nothing. An image that is not in the store is examined in its registry as the
// pull policy says: of it the store gets what hangs on it, and no layer.
//
// An error means that the answer could not be recorded: there is none.
func (e *Engine) Gate(ctx context.Context, req GateRequest) (Verdict, error) {
	v := Verdict{Unknowns: slices.Clone(req.Unknowns)}
	stage, err := "resolve", req.Refused
	if v.asked = err != nil; !v.asked {
		stage, err = e.judge(ctx, req, &v)
	}
	v.settle(stage, err, req.CI.File != "")
	return v, e.recordVerdict(ctx, req, v)
}

// judge goes through the verbs and says how far it got.
func (e *Engine) judge(ctx context.Context, req GateRequest, v *Verdict) (stage string, err error) {
	// resolve, and what hangs on it
	a := &attempt{e: e, req: req.Request}
	img, remote, err := e.look(ctx, a)
	if err != nil {
		return "resolve", err
	}
	a.img, v.Image = img, img

	// verify
	ev, material, err := e.verified(ctx, img)
	if err != nil {
		return "verify", err
	}
	v.Evidence, v.Material = ev, material
	if err := e.completeMounts(ctx, a); err != nil {
		return "verify", err
	}

	// decide
	draft, input, err := e.gateInput(ctx, a, remote, ev, &v.Unknowns)
	if err != nil {
		v.asked = true
		return "decide", err
	}
	_, _, err = e.decided(ctx, a, draft, func(p sandbox.Plan) policy.Input {
		in := input(p)
		in.Point, in.CI, in.Unmapped, in.Unknowns = req.point(), req.CI, req.Unmapped, v.Unknowns
		in.Document = req.Document
		if req.K8s != nil {
			in.K8s = *req.K8s
		}
		in.Run.Devices = append(in.Run.Devices, req.Devices...)
		in.Run.SecurityOpt = append(in.Run.SecurityOpt, req.SecurityOpt...)
		return in
	})
	v.Decision = a.answer
	if err != nil {
		return "decide", err
	}
	return "", nil
}

// look resolves in the store, or examines what the registry has: then the
// image's files are not here.
func (e *Engine) look(ctx context.Context, a *attempt) (img images.Image, remote bool, err error) {
	if a.req.Pull != PullAlways {
		img, err := e.resolver.Resolve(ctx, a.req.Image)
		if err == nil || a.req.Pull == PullNever || !errors.Is(err, fault.NotFound) {
			return img, false, neverAsked(a.req, err)
		}
	}
	// Run would have to fetch it, and might not be allowed to.
	f := fetch{e: e, actor: a.req.Actor, ref: a.req.Image, why: "run"}
	if err := f.allowed(ctx); err != nil {
		return images.Image{}, true, err
	}
	img, err = e.resolver.Examine(ctx, a.req.Image, "")
	return img, true, err
}

// neverAsked tells "not here" from "not there": without asking a registry it
// is not known whether the image exists.
func neverAsked(req Request, err error) error {
	if req.Pull != PullNever || !errors.Is(err, fault.NotFound) {
		return err
	}
	return fault.New(fault.Unavailable, "gate.offline", fmt.Sprintf("image %.200s is not in the store, and no registry is to be asked", req.Image),
		"pull it first (ward pull), or leave out --offline and --pull never")
}

// gateInput is the draft of a run, and the input that run would decide about,
// as far as they can be known here. What only the image's files can tell is taken at its worst, and named.
func (e *Engine) gateInput(ctx context.Context, a *attempt, remote bool, ev verify.Evidence, unknowns *[]string) (sandbox.Plan, func(sandbox.Plan) policy.Input, error) {
	req, img, drafter := a.req, a.img, e
	if remote {
		shallow := *e
		shallow.rootfs = noFiles{}
		drafter = &shallow
		*unknowns = append(*unknowns, "run.user.groups")
		if spec := cmp.Or(req.User, img.Config.User); spec != "" && !numeric(spec) {
			// Root is the worst that a name can turn out to be.
			*unknowns = append(*unknowns, "run.user.uid", "run.user.gid")
			req.User = "0"
		} else if !strings.Contains(spec, ":") {
			*unknowns = append(*unknowns, "run.user.gid")
		}
		req.Groups = nil
	}
	// An image that names no command is run with one that is not known here.
	nothing := len(img.Config.Entrypoint)+len(img.Config.Cmd) == 0 && req.Entrypoint == nil && len(req.Args) == 0
	if nothing {
		*unknowns = append(*unknowns, "run.args")
		req.Args = []string{"unknown"}
	}
	id := newID()
	draft, err := drafter.draft(ctx, req, img, id, id)
	if err != nil {
		return sandbox.Plan{}, nil, err
	}
	return draft, func(p sandbox.Plan) policy.Input {
		in := inputFor(a.req, img, ev, p)
		if nothing {
			in.Run.Args = nil
		}
		return in
	}, nil
}

// numeric says whether user[:group] is numbers alone.
func numeric(spec string) bool { return strings.Trim(spec, "0123456789:") == "" }

// noFiles are the files of an image whose layers are not here.
type noFiles struct{}

func (noFiles) Unpack(context.Context, images.Image) ([]string, error) { return nil, noLayers() }

func (noFiles) File(context.Context, images.Image, string, int64) ([]byte, error) {
	return nil, noLayers()
}

func (noFiles) CheckRoot(context.Context, images.Image) error { return nil }

func noLayers() error {
	return fault.New(fault.NotFound, "image.layers", "the image's layers are not here", "")
}

// settle gives the verdict its outcome.
func (v *Verdict) settle(stage string, err error, inFile bool) {
	if err == nil && v.Decision.Allowed() {
		v.Outcome = Allow
		return
	}
	if err == nil { // cannot be; and if it were, it would be no
		err = denial(v.Decision)
	}
	v.Stage, v.Refusal = stage, fault.As(err)
	switch v.Refusal.Class {
	case fault.Denied, fault.Unverified:
		v.Outcome = Deny
		// A registry that lets nobody look has not said anything about the image.
		if v.Stage == "resolve" && strings.HasPrefix(v.Refusal.Rule, "registry.") {
			v.Outcome = Indeterminate
		}
	case fault.Invalid, fault.NotFound:
		v.Outcome = Invalid
		// What a file asks for and ward run refuses is refused.
		if inFile && v.asked {
			v.Outcome = Deny
		}
	default:
		v.Outcome = Indeterminate
	}
}

// recordVerdict puts a verdict on record, with what it was made on.
func (e *Engine) recordVerdict(ctx context.Context, req GateRequest, v Verdict) error {
	d := audit.Verdict{
		Outcome: string(v.Outcome), Point: req.point(), File: req.CI.File, Resource: req.CI.Name,
		Image: audit.Image{Reference: cmp.Or(v.Image.Reference, req.Image), Digest: v.Image.Digest}, Stage: v.Stage,
	}
	if v.Evidence.Verified() {
		d.Evidence = RecordedEvidence(v.Evidence)
	}
	if f := v.Refusal; f != nil {
		d.Class, d.Rule, d.Cause, d.Remedy = f.Class.Error(), f.Rule, f.Cause, f.Remedy
	}
	var lost error
	if v.Decision.InputDigest() != "" {
		d.Input = v.Decision.InputDigest()
		d.Decision, lost = e.explained(v.Decision)
	}
	return errors.Join(lost, e.append(ctx, audit.Record{Type: audit.GateDecision, Actor: req.Actor, Data: d}))
}
