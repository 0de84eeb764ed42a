package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// still is a container that does not run while files are copied from or to it.
// Its lock is held, by the process that copies too: whoever would start it has
// to wait, also when the command that copies is killed.
type still struct{ lock *fsx.Lock }

func (s *still) leave() error {
	if s == nil {
		return nil
	}
	return s.lock.Unlock()
}

// run is the run that records about a container belong to: its last one, and
// before there was any the one that is named after the container.
func (a *entrance) run() string { return cmp.Or(a.c.Status.Run, a.c.ID) }

// resolveCopy finds the container and its image, and returns what it takes to
// hold on to one that does not run.
func (a *entrance) resolveCopy(ctx context.Context) (_ *still, err error) {
	if a.c, err = a.e.Find(ctx, a.asked); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startWait); ; {
		if a.c.Running() {
			return nil, a.resolve(ctx)
		}
		lock, err := fsx.TryLock(filepath.Join(a.e.layout.container(a.c.ID), lockFile))
		if err == nil {
			return a.hold(ctx, lock)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "container.unknown", "No such container: "+a.asked, "list them: ward ps -a")
		}
		if !errors.Is(err, fsx.ErrLocked) {
			return nil, fault.Wrap(fault.Internal, "containers.lock", err, "")
		}
		// Being started, removed, or copied from or to.
		if time.Now().After(deadline) {
			return nil, fault.New(fault.Unavailable, "container.busy", "another command works on container "+a.c.Name, "try again")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if a.c, err = a.e.load(a.c.ID); errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "container.unknown", "No such container: "+a.asked, "list them: ward ps -a")
		} else if err != nil {
			return nil, err
		}
	}
}

// hold looks at the container again now that its lock is held.
func (a *entrance) hold(ctx context.Context, lock *fsx.Lock) (*still, error) {
	c, err := a.e.load(a.c.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fault.New(fault.NotFound, "container.unknown", "No such container: "+a.asked, "list them: ward ps -a")
	case err == nil && c.live():
		err = fault.New(fault.Invalid, "container.state", "container "+c.Name+" was lost and has not been tidied up", "try again")
	case err == nil:
		a.c = c
		a.img, err = a.e.resolveAgain(ctx, &a.c)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &still{lock}, nil
}

// enter is the gate of a copy from or to a container that does not run: it is
// judged as a start would be now, but for the point, and its files are those
// that this start would have.
func (s *still) enter(ctx context.Context, c *Copy, at policy.Cp, req sandbox.FilesRequest) (*sandbox.Files, error) {
	a := c.a
	e := a.e
	start := e.again(a.actor, a.c)
	start.img, start.run = a.img, a.run()
	ev, err := e.verify(ctx, a.img)
	if err == nil {
		err = e.completeMounts(ctx, start)
	}
	if err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}
	draft, err := e.draft(ctx, start.req, a.img, a.c.ID, a.run())
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	draft, dec, err := e.decided(ctx, start, draft, func(p sandbox.Plan) policy.Input {
		in := inputFor(start.req, a.img, ev, p)
		in.Point, in.Cp = a.point, at
		return in
	})
	if a.answer = start.answer; err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	place := &slot{container: a.c, dir: e.layout.container(a.c.ID), runtime: e.layout.runtime(a.c.ID), start: a.c.Status.Start + 1}
	_, plan, err := e.complete(ctx, place, start, draft)
	if err != nil {
		return nil, a.refuse(ctx, "seal", err)
	}
	before, err := c.before(ev, dec)
	if err != nil {
		return nil, a.refuse(ctx, "record", err)
	}
	permit, err := e.log.Prove(context.WithoutCancel(ctx), audit.Record{
		Type: audit.ContainerCopy, Run: a.run(), Actor: a.actor, Plan: sandbox.Digest(plan), Data: before})
	if err != nil {
		return nil, a.refuse(ctx, "record", fault.Wrap(fault.Unrecorded, "audit.copy", fmt.Errorf("record the copy: %w", err),
			"nothing is copied unrecorded: mend the audit log (ward audit verify) or free space for it"))
	}
	files, err := e.launcher.StoppedFiles(ctx, plan, permit.Receipt(), s.lock.File(), req)
	if err != nil {
		return nil, c.ended(ctx, sandbox.FilesResult{}, err)
	}
	return files, nil
}
