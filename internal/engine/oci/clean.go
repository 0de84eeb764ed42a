package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// Cleaner kills and deletes containers. Root may always: a policy that cannot
// be read, a store that is broken, a caller whose program was replaced under it
// must not keep what runs running. Who did it is on record before it is done.
type Cleaner struct {
	layout   engine.Layout
	log      engine.Recorder
	launcher Launcher
	actor    audit.Actor
}

// NewCleaner returns root's cleaner; c needs no part that decides. Anybody else
// gets one from a Gate.
func NewCleaner(c Config) (*Cleaner, error) {
	if c.Layout == (engine.Layout{}) || c.Log == nil || c.Launcher == nil {
		return nil, fault.New(fault.Internal, "oci.config", "the cleaner is missing a part", "")
	}
	if c.Actor.UID != 0 {
		return nil, fault.New(fault.Denied, "oci.caller", "the caller is not root", "")
	}
	return &Cleaner{c.Layout, c.Log, c.Launcher, c.Actor}, nil
}

// Cleaner is that of a caller whom policy trusts, to do this with a container.
func (g *Gate) Cleaner(ctx context.Context, verb sandbox.OCIVerb, root, id string) (*Cleaner, error) {
	a, err := g.existing(ctx, string(verb), Request{Root: root, ID: id})
	if err != nil {
		return nil, err
	}
	if err := a.decide(ctx, input(a, a.text, a.now(a.spec))); err != nil {
		return nil, err
	}
	return g.cleaner(), nil
}

func (g *Gate) cleaner() *Cleaner {
	return &Cleaner{g.c.Layout, g.c.Log, g.c.Launcher, g.c.Actor}
}

// Delete removes the container that this gate has let in.
func (g *Gate) Delete(ctx context.Context, root, id string, force bool, io sandbox.OCIFiles) error {
	return g.cleaner().Delete(ctx, root, id, force, io)
}

// Kill signals a container. Whether there is one that runs, the launcher says.
func (c *Cleaner) Kill(ctx context.Context, req sandbox.OCIRequest, io sandbox.OCIFiles) error {
	if err := checkID(req.ID); err != nil {
		return err
	}
	if err := c.event(ctx, audit.ContainerSignal, req.Root, req.ID, req.Signal); err != nil {
		return err
	}
	req.Op = sandbox.OCIKill
	return c.launcher.Operate(ctx, req, io)
}

// Delete removes a container that has ended; with force, one that runs too.
func (c *Cleaner) Delete(ctx context.Context, root, id string, force bool, io sandbox.OCIFiles) error {
	if err := checkID(id); err != nil {
		return err
	}
	err := c.event(ctx, audit.ContainerRemove, root, id, 0)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	for deadline := time.Now().Add(monitorTimeout); ; {
		err = c.launcher.Operate(ctx, sandbox.OCIRequest{Op: sandbox.OCIDelete, Root: root, ID: id, Force: force}, io)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		if _, serr := os.Stat(filepath.Join(root, id)); serr != nil {
			break
		}
		wait := time.Until(deadline)
		if force {
			wait = min(wait, beingMade)
		}
		rerr := c.remove(ctx, root, id, wait)
		if rerr == nil {
			break
		}
		// Of one that was still being made there was nothing to end a moment ago,
		// and now there may be.
		if !force || !errors.Is(rerr, fsx.ErrLocked) || time.Now().After(deadline) {
			return rerr
		}
	}
	if force {
		return nil
	}
	return err
}

// beingMade is after how long a delete by force looks again for what to end.
const beingMade = 500 * time.Millisecond

// event puts on record what is about to be done to a container. Of one whose
// record cannot be read its name is all there is.
func (c *Cleaner) event(ctx context.Context, typ audit.Type, root, id string, signal int) error {
	rec, err := load(root, id)
	if errors.Is(err, fault.NotFound) {
		return err
	}
	if err != nil {
		rec = record{ID: id}
	}
	return appendTo(ctx, c.log, audit.Record{Type: typ, Run: rec.Run, Actor: c.actor, Data: audit.ContainerEvent{
		Container: rec.Run, Name: rec.ID, Image: audit.Image{Reference: rec.Image}, Signal: signal}})
}
