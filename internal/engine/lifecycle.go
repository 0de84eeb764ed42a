package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// Create makes a container that can be started later. The request passes the
// whole gate but for the launch, so that one that would be refused is refused
// now; starting it passes the gate again.
func (e *Engine) Create(ctx context.Context, req Request) (Container, error) {
	id := newID()
	c, err := e.pass(ctx, &attempt{e: e, req: req, container: id, run: id, createOnly: true}, Stdio{})
	if err != nil {
		return Container{}, err
	}
	return c.Container, nil
}

// Start starts a container that does not run, as a new run with an id of its
// own. Image, evidence and policy are judged as they are now.
func (e *Engine) Start(ctx context.Context, actor audit.Actor, c Container, io Stdio) (*Started, error) {
	a := e.again(actor, c)
	a.byHand = true
	return e.pass(ctx, a, io)
}

// again is the request a container was made by, asked once more.
func (e *Engine) again(actor audit.Actor, c Container) *attempt {
	req := c.Request
	req.Actor, req.Name = actor, c.Name
	return &attempt{e: e, req: req, container: c.ID, run: newID(), again: &c}
}

// created puts on record that a container was made, and leaves it to be
// started.
func (a *attempt) created(ctx context.Context, s *slot, dec policy.Decision) (*Started, error) {
	why, err := a.e.explained(dec)
	if err != nil {
		return nil, errors.Join(a.refuse(ctx, "record", err), s.abandon())
	}
	err = a.e.append(ctx, audit.Record{Type: audit.ContainerCreate, Run: a.run, Actor: a.req.Actor, Data: audit.ContainerEvent{
		Container: s.container.ID, Name: s.container.Name,
		Image:    audit.Image{Reference: a.img.Reference, Digest: a.img.Digest},
		Decision: why, Input: dec.InputDigest(), Args: s.plan.Process.Args, Labels: a.req.Labels,
	}})
	if err != nil {
		return nil, errors.Join(a.refuse(ctx, "record", unrecorded(err)), s.abandon())
	}
	s.container.Status = sandbox.Status{Phase: sandbox.PhaseCreated}
	if err := sandbox.WriteStatus(s.dir, s.container.Status); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return &Started{Container: s.container}, s.lock.Unlock()
}

// resolveAgain finds the very image a container was made from. A tag may have
// moved since: the container keeps its image, and the name it was judged by.
func (e *Engine) resolveAgain(ctx context.Context, c *Container) (images.Image, error) {
	img, err := e.resolver.Resolve(ctx, c.Digest)
	if err != nil {
		return images.Image{}, err
	}
	if img.Digest != c.Digest {
		return images.Image{}, fault.New(fault.NotFound, "image.missing", fmt.Sprintf("the image of container %s is not in the local store any more", c.Name),
			"pull it again: ward pull "+c.Reference)
	}
	img.Reference = c.Reference
	return img, nil
}

// reopen takes the place of a container that is there and does not run.
func (e *Engine) reopen(was *Container, run string, byHand bool) (*slot, error) {
	id := was.ID
	dir := e.layout.container(id)
	lock, err := fsx.TryLock(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, fsx.ErrLocked):
		return nil, fault.New(fault.Invalid, "container.state", "container "+id[:12]+" is running, being started, or being copied from or to", "see how it is: ward ps -a")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "container.unknown", "No such container: "+id[:12], "list them: ward ps -a")
	case err != nil:
		return nil, fault.Wrap(fault.Internal, "containers.lock", err, "")
	}
	c, err := e.load(id)
	if err == nil && c.live() {
		err = fault.New(fault.Invalid, "container.state", "container "+c.Name+" was lost and has not been tidied up", "see how it is: ward ps -a")
	}
	if err == nil && c.Changed != was.Changed {
		err = fault.New(fault.Invalid, "container.state", "the limits of container "+c.Name+" were changed while it was to be started with others", "start it again")
	}
	if err == nil && byHand {
		err = e.forgetStop(id)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	s := &slot{container: c, dir: dir, runtime: e.layout.runtime(id), lock: lock, start: c.Status.Start + 1, before: &c.Status}
	// Before the intent: a gate that dies from here on leaves a lost run.
	s.container.Status = sandbox.Status{Phase: sandbox.PhaseStarting, Run: run, Start: s.start}
	if err := sandbox.WriteStatus(dir, s.container.Status); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	// Looked at after it says that it starts, as Stop looks after its mark: one
	// of the two sees the other, and what was stopped does not come back.
	if !byHand && e.stopped(id) {
		return nil, errors.Join(fault.New(fault.Invalid, "container.stopped", "container "+c.Name+" was stopped while it was to be started again", "start it: ward start "+c.Name),
			sandbox.WriteStatus(dir, c.Status), lock.Unlock())
	}
	return s, nil
}

// Rename gives a container another name. That it did is on record before.
func (e *Engine) Rename(ctx context.Context, actor audit.Actor, c Container, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return e.change(ctx, c.ID, func(all []Container, c *Container) error {
		for _, o := range all {
			if o.Name == name {
				return fault.New(fault.Invalid, "run.name", fmt.Sprintf("the name %q is in use by container %s", name, o.ID[:12]), "choose another name")
			}
		}
		previous := c.Name
		c.Name = name
		return e.append(ctx, about(audit.ContainerRename, actor, *c, audit.ContainerEvent{Previous: previous}))
	})
}

// SetRestart gives a container another restart policy. That it did is on
// record before; every restart passes the gate as before.
func (e *Engine) SetRestart(ctx context.Context, actor audit.Actor, c Container, p RestartPolicy) error {
	err := e.change(ctx, c.ID, func(_ []Container, c *Container) error {
		if p.Name != "" && c.Remove {
			return fault.New(fault.Invalid, "run.restart", "a container that is removed when it ends cannot be started again", "leave it without a restart policy")
		}
		c.Request.Restart = p
		return e.append(ctx, about(audit.ContainerUpdate, actor, *c, audit.ContainerEvent{Restart: p.String()}))
	})
	if err != nil {
		return err
	}
	if c, err = e.load(c.ID); err != nil {
		return err
	}
	return e.keepIfAlone(c)
}

// change rewrites a container's record under the store's lock, which is what
// keeps names and ranges of ids apart; the container itself may run.
func (e *Engine) change(ctx context.Context, id string, edit func(all []Container, c *Container) error) error {
	l, err := e.lockStore(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	all, err := e.records()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c Container) bool { return c.ID == id })
	if i < 0 {
		return fault.New(fault.NotFound, "container.unknown", "No such container: "+id[:12], "list them: ward ps -a")
	}
	c := all[i]
	if err := edit(all, &c); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return fsx.WriteFile(filepath.Join(e.layout.container(id), recordFile), b, 0o600)
}
