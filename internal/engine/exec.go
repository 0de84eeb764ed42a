package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// ExecRequest asks for another process in a container that runs. What it does
// not say is as for the container's first process.
type ExecRequest struct {
	Actor audit.Actor
	// Container is its id, its name, or the beginning of its id.
	Container string
	Args      []string
	// Env holds KEY=VALUE, stronger than the container's own.
	Env        []string
	WorkingDir string
	// User is as in Docker's -u: user[:group], names or numbers.
	User string
	// Stdin passes the caller's standard input on.
	Stdin bool
	// Terminal gives it a terminal of this size in place of three pipes.
	Terminal *sandbox.Terminal
	// Purpose is "health" for a check that ward makes by itself; it is on
	// record, and policy sees it.
	Purpose string
}

// StartedExec is a process that was started in a container. Its monitor keeps
// it; Process is the handle on it.
type StartedExec struct {
	ID        string
	Container Container
	Process   *sandbox.Running
}

// Exec lets another process into a container that runs, or says why not: the
// same seven verbs as for the container, with its image judged as it is now.
// It returns once the process has been executed. Whatever it answers is on
// record, and it is before the process exists.
func (e *Engine) Exec(ctx context.Context, req ExecRequest, io Stdio) (*StartedExec, error) {
	a := &entrance{e: e, point: policy.PointExec, actor: req.Actor, asked: req.Container, id: newID(), args: req.Args}

	// resolve: the container, and the very image it was made from.
	if err := a.resolve(ctx); err != nil {
		return nil, a.refuse(ctx, "resolve", err)
	}

	// verify: who vouches for that image today?
	ev, err := a.verify(ctx)
	if err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}

	// decide: may exactly this run in there?
	proc, err := e.draftExec(ctx, req, a)
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	in := a.input(ev)
	in.Exec = policy.Exec{
		Purpose: req.Purpose, Args: proc.Args, EnvNames: envNames(proc.Env), Cwd: proc.Cwd, Capabilities: proc.Capabilities,
		User: policy.User{UID: proc.UID, GID: proc.GID, Groups: proc.Groups}, Stdin: proc.Stdin, Terminal: proc.Terminal != nil, RequestedUser: req.User,
	}
	dec, err := a.decide(ctx, in)
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}

	// seal: one plan, below the container's own.
	plan, encoded, err := a.seal(proc, dec)
	if err != nil {
		return nil, a.refuse(ctx, "seal", err)
	}

	// record: on disk before anything exists.
	permit, err := e.intend(ctx, audit.Intent{
		Type: audit.ExecIntent, Run: plan.Run, Actor: req.Actor, Plan: sandbox.Digest(encoded),
		Point: a.point, Container: plan.Container, Exec: plan.Exec, Purpose: req.Purpose, Name: a.c.Name,
		Image: a.image(), User: fmt.Sprintf("%d:%d", plan.Process.UID, plan.Process.GID), Cwd: plan.Process.Cwd,
		Evidence: RecordedEvidence(ev), Args: plan.Process.Args, EnvNames: envNames(plan.Process.Env),
	}, dec)
	if err != nil {
		return nil, a.refuse(ctx, "record", unrecorded(err))
	}

	// launch: the launcher checks receipt and floor again, itself, and leaves
	// the process to the container's monitor.
	running, err := e.launcher.Exec(ctx, encoded, a.encoded, permit.Receipt(), sandbox.Stdio(io))
	if err != nil {
		return nil, a.aborted(ctx, err)
	}

	// report: the monitor's from here on.
	return &StartedExec{ID: a.id, Container: a.c, Process: running}, nil
}

// entrance is what is known of a request about a container that runs while it
// passes the gate.
type entrance struct {
	e     *Engine
	point string
	actor audit.Actor
	asked string
	// id is the process's or the copy's own.
	id   string
	args []string

	c   Container
	img images.Image
	// plan is what the container runs by, and encoded its bytes.
	plan    sandbox.Plan
	encoded []byte
	answer  policy.Decision
	// update is the number of a change of limits, once it is on record.
	update int
}

func (a *entrance) resolve(ctx context.Context) (err error) {
	if a.c, err = a.e.Find(ctx, a.asked); err != nil {
		return err
	}
	if !a.c.Running() {
		return notRunning(a.c)
	}
	if a.point == policy.PointExec && a.c.Paused() {
		return fault.New(fault.Invalid, "container.paused", "container "+a.c.Name+" is paused", "let it go on first: ward unpause "+a.c.Name)
	}
	if a.plan, a.encoded, err = a.e.Plan(a.c); err != nil {
		return err
	}
	if a.plan.Run != a.c.Status.Run {
		return fault.New(fault.Invalid, "container.state", "container "+a.c.Name+" is being started anew", "try again")
	}
	// What it may use by now, not what it was started with.
	a.plan.Limits = a.c.Limits(a.plan)
	a.img, err = a.e.resolveAgain(ctx, &a.c)
	return err
}

// verify judges the image, and those that the container mounts, as for a start.
func (a *entrance) verify(ctx context.Context) (verify.Evidence, error) {
	ev, err := a.e.verify(ctx, a.img)
	if err != nil {
		return verify.Evidence{}, err
	}
	return ev, a.e.completeMounts(ctx, &attempt{e: a.e, req: a.c.Request, again: &a.c, img: a.img})
}

// input is what policy sees of the container at any point: what it runs by.
func (a *entrance) input(ev verify.Evidence) policy.Input {
	req := a.c.Request
	req.Actor = a.actor
	in := inputFor(req, a.img, ev, a.plan)
	in.Point = a.point
	return in
}

func (a *entrance) decide(ctx context.Context, in policy.Input) (policy.Decision, error) {
	dec, err := a.e.decider.Decide(ctx, in)
	if err != nil {
		return policy.Decision{}, err
	}
	a.answer = dec
	if !dec.Allowed() {
		return policy.Decision{}, denial(dec)
	}
	// What policy obliges containers to today cannot be applied to one that runs.
	tight, err := tighten(a.plan, dec.Obligations())
	if err != nil {
		return policy.Decision{}, err
	}
	tight.Process.Capabilities = a.plan.Process.Capabilities
	if !reflect.DeepEqual(tight, a.plan) {
		return policy.Decision{}, fault.New(fault.Denied, "policy.obligations", "container "+a.c.Name+" runs with more than policy now allows it",
			"start it again: ward restart "+a.c.Name)
	}
	return dec, nil
}

// draftExec is the process: the container's own settings, the request on top.
func (e *Engine) draftExec(ctx context.Context, req ExecRequest, a *entrance) (sandbox.Process, error) {
	if len(req.Args) == 0 || req.Args[0] == "" {
		return sandbox.Process{}, fault.New(fault.Invalid, "exec.command", "no command", "put one after the container")
	}
	proc := a.plan.Process
	proc.Args, proc.Stdin, proc.StdinOpen, proc.Terminal = req.Args, req.Stdin, false, req.Terminal
	proc.Init = false // the container's first process collects this one's orphans too
	if req.WorkingDir != "" {
		if !path.IsAbs(req.WorkingDir) {
			return sandbox.Process{}, fault.New(fault.Invalid, "exec.cwd", fmt.Sprintf("working directory %.255q is not absolute", req.WorkingDir), "give --workdir an absolute path")
		}
		proc.Cwd = path.Clean(req.WorkingDir)
	}
	env := a.c.Request
	if req.User != "" {
		asked := a.c.Request
		asked.User, asked.Groups = req.User, nil
		who, err := e.lookUser(ctx, asked, a.img)
		if err != nil {
			return sandbox.Process{}, err
		}
		proc.UID, proc.GID, proc.Groups = who.uid, who.gid, who.groups
		// HOME is that user's, unless somebody said otherwise.
		proc.Env = environment(env, a.img, a.plan.Hostname, who.home)
	}
	proc.Env = withEnv(proc.Env, req.Env)
	return proc, nil
}

// withEnv puts the entries of more over those of env.
func withEnv(env, more []string) []string {
	out := slices.Clone(env)
	for _, kv := range more {
		name, _, _ := strings.Cut(kv, "=")
		i := slices.IndexFunc(out, func(o string) bool { return strings.HasPrefix(o, name+"=") })
		if i < 0 {
			out = append(out, kv)
		} else {
			out[i] = kv
		}
	}
	return out
}

func (a *entrance) seal(proc sandbox.Process, dec policy.Decision) (sandbox.ExecPlan, []byte, error) {
	proc.Capabilities = slices.DeleteFunc(slices.Clone(proc.Capabilities), func(c string) bool {
		return slices.Contains(dec.Obligations().DropCapabilities, c)
	})
	plan := sandbox.ExecPlan{
		Version: sandbox.ExecPlanVersion, Build: sandbox.Build, Container: a.plan.Container, Run: a.plan.Run, Exec: a.id,
		ContainerPlan: sandbox.Digest(a.encoded), Process: proc, Seccomp: a.plan.Seccomp, Host: a.plan.Host,
	}
	if err := a.e.floor.CheckExec(plan, a.plan); err != nil {
		return plan, nil, err
	}
	encoded, err := plan.Encode()
	return plan, encoded, err
}

func (a *entrance) image() audit.Image {
	return audit.Image{Reference: a.c.Reference, Digest: a.img.Digest}
}

// refuse puts a refusal on record and returns it, as attempt.refuse does.
func (a *entrance) refuse(ctx context.Context, stage string, why error) error {
	f := fault.As(why)
	d := audit.Denied{
		Stage: stage, Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: a.point,
		Container: cmp.Or(a.c.ID, a.asked), Exec: a.id, Name: a.c.Name, Image: a.image(), Args: a.args,
	}
	var lost error
	if a.answer.InputDigest() != "" {
		d.Input = a.answer.InputDigest()
		d.Decision, lost = a.e.explained(a.answer)
	}
	t := audit.ExecDenied
	if a.point == policy.PointCp {
		t, d.Exec = audit.CopyDenied, ""
	}
	if a.point == policy.PointUpdate {
		t, d.Exec, d.Update = audit.UpdateDenied, "", a.update
	}
	return errors.Join(f, lost, a.append(ctx, t, d))
}

// aborted puts on record that an intended process never began.
func (a *entrance) aborted(ctx context.Context, why error) error {
	var start *sandbox.StartError
	if !errors.As(why, &start) {
		return a.refuse(ctx, "launch", why)
	}
	return errors.Join(why, a.e.append(ctx, audit.Record{Type: audit.ExecExit, Run: a.plan.Run, Actor: a.actor,
		Data: audit.ExecEnd{Exec: a.id, Code: start.Code, Error: start.Error()}}))
}
