package engine

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// PullRequest is an image that somebody wants in the store.
type PullRequest struct {
	Actor audit.Actor
	Image string
	// Platform is "os/arch[/variant]"; empty means linux on this machine.
	Platform string
	// Progress, if not nil, gets one line a step.
	Progress io.Writer
}

// Pull fetches an image if policy lets it in at point pull, which is asked
// before a byte of it is read. That it was allowed is on record before, what
// came of it afterwards; a refusal too.
func (e *Engine) Pull(ctx context.Context, req PullRequest) (images.Image, error) {
	f := fetch{e: e, actor: req.Actor, ref: req.Image, why: "pull", opt: images.PullOptions{Platform: req.Platform, Progress: req.Progress}}
	img, err := f.fetch(ctx)
	if err == nil {
		return img, nil
	}
	why := fault.As(err)
	d := audit.Denied{
		Stage: f.stage, Class: why.Class.Error(), Rule: why.Rule, Cause: why.Cause, Remedy: why.Remedy,
		Point: policy.PointPull, Image: audit.Image{Reference: f.name()},
	}
	var lost error
	if f.answer.InputDigest() != "" {
		d.Input = f.answer.InputDigest()
		d.Decision, lost = e.explained(f.answer)
	}
	return img, errors.Join(why, lost, e.append(ctx, audit.Record{Type: audit.ImagePullDenied, Actor: req.Actor, Data: d}))
}

// pull is Pull for a start that needs an image. Its refusal is that of the
// start, which puts it on record.
func (a *attempt) pull(ctx context.Context) (images.Image, error) {
	f := fetch{e: a.e, actor: a.req.Actor, run: a.run, ref: a.req.Image, why: "run"}
	img, err := f.fetch(ctx)
	if err != nil && f.stage == "decide" && f.answer.InputDigest() != "" {
		a.answer, a.pulling = f.answer, true
	}
	return img, err
}

// fetch is one image on its way into the store.
type fetch struct {
	e        *Engine
	actor    audit.Actor
	run, ref string
	// why is what policy is told that it is for; full the name made complete.
	why, full string
	opt       images.PullOptions
	// stage is the verb that is being gone through, answer the policy's.
	stage  string
	answer policy.Decision
}

func (f *fetch) fetch(ctx context.Context) (images.Image, error) {
	if err := f.allowed(ctx); err != nil {
		return images.Image{}, err
	}
	f.stage = "record"
	why, err := f.e.explained(f.answer)
	if err != nil {
		return images.Image{}, err
	}
	host, _, _ := splitReference(f.full)
	ev := audit.ImageEvent{Image: audit.Image{Reference: f.full}, Registry: host}
	intent := ev
	intent.Decision, intent.Input = why, f.answer.InputDigest()
	if err := f.e.append(ctx, audit.Record{Type: audit.ImageFetch, Run: f.run, Actor: f.actor, Data: intent}); err != nil {
		return images.Image{}, err
	}
	f.stage = "resolve"
	img, err := f.e.resolver.Pull(ctx, f.ref, f.opt)
	if err != nil {
		return images.Image{}, err
	}
	f.stage, ev.Digest = "record", img.Digest
	return img, f.e.append(ctx, audit.Record{Type: audit.ImagePull, Run: f.run, Actor: f.actor, Data: ev})
}

// allowed asks the policy. Of the image only its name is known.
func (f *fetch) allowed(ctx context.Context) error {
	f.stage = "resolve"
	var err error
	if f.full, err = images.ParseReference(f.ref); err != nil {
		return err
	}
	f.stage = "decide"
	f.answer, err = f.e.decider.Decide(ctx, f.input())
	switch {
	case err != nil:
		return err
	case !f.answer.Allowed():
		return denial(f.answer)
	case f.answer.Obligations().Any():
		// Nothing runs yet that they could be applied to.
		return fault.New(fault.Denied, "policy.obligations", "the policy obliges an image that is to be fetched to "+strings.Join(f.answer.Obligations().Lines(), ", "),
			"give obligations at point run, where there is something to tighten")
	}
	return nil
}

func (f *fetch) input() policy.Input {
	host, repo, tag := splitReference(f.full)
	_, digest, _ := strings.Cut(f.full, "@")
	return policy.Input{
		Point: policy.PointPull, Now: time.Now().UTC(), Actor: actorOf(f.actor), Host: policy.ThisHost(),
		Image: policy.Image{Ref: f.full, Host: host, Repo: repo, Tag: tag, Checksum: digest},
		Pull:  policy.Pull{For: f.why, Platform: f.opt.Platform},
	}
}

// name is the image's, as completely as it is known.
func (f *fetch) name() string {
	if f.full != "" {
		return f.full
	}
	return f.ref
}

func actorOf(a audit.Actor) policy.Actor {
	return policy.Actor{UID: a.UID, LoginUID: a.LoginUID, PID: a.PID, Exe: a.Exe, TTY: a.TTY}
}
