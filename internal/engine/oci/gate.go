package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Launcher starts what a plan on record says, and does things with containers
// that exist.
type Launcher interface {
	LaunchOCI(ctx context.Context, plan []byte, r receipt.Receipt, io sandbox.OCIFiles, lock *os.File) (int, error)
	Operate(ctx context.Context, req sandbox.OCIRequest, io sandbox.OCIFiles) error
}

// Config is what a Gate is made of. All fields are required.
type Config struct {
	Layout   engine.Layout
	Resolver engine.Resolver
	Verifier engine.Verifier
	Decider  engine.Decider
	Log      engine.Recorder
	Launcher Launcher
	// Actor is the caller, as Caller tells it.
	Actor audit.Actor
}

// Gate lets in what one caller of ward-oci asks for.
type Gate struct {
	c Config
	// made is the run that this gate has let in: starting it asks for nothing more.
	made string
}

// New returns a gate, and an error if anything is missing.
func New(c Config) (*Gate, error) {
	if c.Layout == (engine.Layout{}) || c.Resolver == nil || c.Verifier == nil || c.Decider == nil || c.Log == nil || c.Launcher == nil || c.Actor.Exe == "" {
		return nil, fault.New(fault.Internal, "oci.config", "the gate is missing a part", "")
	}
	return &Gate{c: c}, nil
}

// Request is what a caller asks for, as the command line has it.
type Request struct {
	// Root is the directory of all containers' state, ID the container.
	Root, ID string
	Bundle   string
	// Process is the JSON text of the process that an exec starts.
	Process []byte

	SystemdCgroup, NoPivot, NoNewKeyring bool
	PreserveFDs                          int
	ConsoleSocket, PidfdSocket, PIDFile  string
	SubCgroups                           []string
	IgnorePaused                         bool
}

// attempt is what is known of a request on its way; its refusals carry as much
// of it as there is.
type attempt struct {
	g   *Gate
	req Request
	op  string
	// rec and spec are what is kept of the container, where one is there.
	rec  record
	text []byte
	spec *specs.Spec
	// run is the container's id in the log, exec that of a process in it.
	run    string
	exec   string
	ref    string
	digest string
	args   []string
	answer policy.Decision
}

// Create lets a container in, or says why not. It returns the process id of
// the container, which waits before its payload.
func (g *Gate) Create(ctx context.Context, req Request, io sandbox.OCIFiles) (int, error) {
	a := &attempt{g: g, req: req, op: opCreate, run: newID()}
	if err := checkID(req.ID); err != nil {
		return 0, a.refuse(ctx, "resolve", err)
	}
	text, spec, err := readSpec(req.Bundle)
	if err != nil {
		return 0, a.refuse(ctx, "resolve", err)
	}
	a.args = spec.Process.Args
	if a.ref, err = named(spec.Annotations); err != nil {
		return 0, a.refuse(ctx, "resolve", err)
	}
	in := input(a, text, spec)
	plan := a.plan(text)
	plan.SharedPID, plan.Rootfs, plan.Sources = in.OCI.SharedPID, in.OCI.Rootfs, sources(in.Run.Mounts)
	a.text, a.spec = text, spec
	pid, err := a.pass(ctx, in, plan, io)
	if err == nil {
		g.made = a.run
	}
	return pid, err
}

// Exec lets another process into a container, or says why not. The image is
// verified again: that a key was withdrawn counts from then on.
func (g *Gate) Exec(ctx context.Context, req Request, io sandbox.OCIFiles) (int, error) {
	a, err := g.existing(ctx, opExec, req)
	if err != nil {
		return 0, err
	}
	var p *specs.Process
	err = json.Unmarshal(req.Process, &p)
	if err == nil {
		err = checkProcess(p)
	}
	if err != nil {
		return 0, a.refuse(ctx, "resolve", fault.Wrap(fault.Invalid, "oci.spec", err, ""))
	}
	a.args = p.Args
	with := *a.spec
	with.Process = p
	return a.pass(ctx, input(a, req.Process, a.now(&with)), a.plan(req.Process), io)
}

// pass is the whole gate: what a caller asks for becomes a process here or
// nowhere. The record is on disk before anything exists.
func (a *attempt) pass(ctx context.Context, in policy.Input, plan sandbox.OCIPlan, io sandbox.OCIFiles) (int, error) {
	ev, err := a.admit(ctx, in)
	if err != nil {
		return 0, err
	}

	// seal: a directory of its own, one encoding, the floor under it.
	s, encoded, err := a.seal(ctx, plan)
	if err != nil {
		return 0, a.refuse(ctx, "seal", err)
	}

	// record: on disk before anything exists.
	intent, err := a.intent(ev, encoded)
	if err != nil {
		return 0, errors.Join(a.refuse(ctx, "record", err), s.abandon())
	}
	permit, err := a.g.c.Log.Intend(ctx, intent)
	if err != nil {
		err = fault.Wrap(fault.Unrecorded, "audit.intent", fmt.Errorf("record the intent: %w", err),
			"nothing runs unrecorded: mend the audit log (ward audit verify) or free space for it")
		return 0, errors.Join(a.refuse(ctx, "record", err), s.abandon())
	}

	// launch: the launcher and the monitor check receipt and floor themselves.
	pid, err := a.g.c.Launcher.LaunchOCI(ctx, encoded, permit.Receipt(), io, s.lockFile())
	if err != nil {
		return 0, errors.Join(a.refuse(ctx, "launch", err), s.abandon())
	}
	return pid, s.release()
}

// admit is the first half of it, which everything that a container could gain
// by has to pass. A refusal is on record when it returns.
func (a *attempt) admit(ctx context.Context, in policy.Input) (ev verify.Evidence, err error) {
	if a.ref != "" {
		// resolve: the digest that the bundle is said to be made from.
		img, err := a.g.resolve(ctx, a.ref)
		if err != nil {
			return ev, a.refuse(ctx, "resolve", err)
		}
		a.digest = img.Digest
		// verify: who vouches for it?
		if ev, err = a.g.verify(ctx, img); err != nil {
			return ev, a.refuse(ctx, "verify", err)
		}
		addImage(&in, img, ev)
	}
	return ev, a.decide(ctx, in)
}

// decide: may this caller have exactly this?
func (a *attempt) decide(ctx context.Context, in policy.Input) (err error) {
	if a.answer, err = a.g.c.Decider.Decide(ctx, in); err != nil {
		return a.refuse(ctx, "decide", err)
	}
	if !a.answer.Allowed() {
		return a.refuse(ctx, "decide", engine.Denial(a.answer))
	}
	if o := a.answer.Obligations(); o.Any() {
		return a.refuse(ctx, "decide", fault.New(fault.Denied, "oci.obligations",
			"policy obliges this container to something, and a caller's specification is not changed", "deny it instead, or have the caller ask for less"))
	}
	return nil
}

// seal completes the plan with what is only known in its place.
func (a *attempt) seal(ctx context.Context, plan sandbox.OCIPlan) (*slot, []byte, error) {
	plan.Digest = a.digest
	if err := sandbox.DefaultFloor().CheckOCI(plan); err != nil {
		return nil, nil, err
	}
	encoded, err := plan.Encode()
	if err != nil || a.op == opExec {
		return nil, encoded, err
	}
	s, err := a.g.reserve(ctx, a.req.Root, a.req.ID)
	if err != nil {
		return nil, nil, err
	}
	err = s.write(record{Run: a.run, ID: a.req.ID, Bundle: plan.Bundle, Created: time.Now().UTC(), Image: a.ref}, a.text)
	if err != nil {
		return nil, nil, errors.Join(err, s.abandon())
	}
	return s, encoded, nil
}

func (a *attempt) intent(ev verify.Evidence, encoded []byte) (audit.Intent, error) {
	why, asked, err := a.why()
	if err != nil {
		return audit.Intent{}, err
	}
	in := audit.Intent{
		Type: audit.OCIIntent, Run: a.run, Actor: a.g.c.Actor, Plan: sandbox.Digest(encoded), Point: policy.PointOCI,
		Name: a.req.ID, Image: audit.Image{Reference: a.ref, Digest: a.digest},
		Decision: why, Input: asked, Args: a.args,
	}
	if a.digest != "" {
		in.Evidence = engine.RecordedEvidence(ev)
	}
	if a.op == opExec {
		in.Container, in.Exec = a.run, a.exec
	}
	return in, nil
}

// refuse puts a refusal on record and returns it. When it cannot be recorded
// either, both are said, and the refusal stands.
func (a *attempt) refuse(ctx context.Context, stage string, why error) error {
	f := fault.As(why)
	typ, container := audit.OCIDenied, a.run
	switch a.op {
	case opCreate:
		typ, container = audit.RunDenied, ""
	case opExec:
		typ = audit.ExecDenied
	}
	d := audit.Denied{
		Stage: stage, Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: policy.PointOCI, Op: a.op,
		Container: container, Exec: a.exec, Name: a.req.ID, Image: audit.Image{Reference: a.ref, Digest: a.digest}, Args: a.args,
	}
	var lost error
	d.Decision, d.Input, lost = a.why()
	return errors.Join(f, lost, a.g.append(ctx, audit.Record{Type: typ, Run: a.run, Actor: a.g.c.Actor, Data: d}))
}

// why is the decision as records have it: nothing, if none was asked for.
func (a *attempt) why() (decision json.RawMessage, input string, err error) {
	if a.answer.InputDigest() == "" {
		return nil, "", nil
	}
	decision, err = engine.Explained(a.g.c.Layout, a.answer)
	return decision, a.answer.InputDigest(), err
}

func (g *Gate) append(ctx context.Context, r audit.Record) error { return appendTo(ctx, g.c.Log, r) }

// appendTo makes one record durable. Hanging up does not unwrite.
func appendTo(ctx context.Context, log engine.Recorder, r audit.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := log.Append(ctx, r); err != nil {
		return fault.Wrap(fault.Unrecorded, "audit.append", err, "repair the audit log: ward audit verify")
	}
	return nil
}

func (s *slot) lockFile() *os.File {
	if s == nil {
		return nil
	}
	return s.lock.File()
}

// release leaves the directory to the monitor, which holds the lock too.
func (s *slot) release() error {
	if s == nil {
		return nil
	}
	return s.lock.Unlock()
}
