package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// A change of limits happens in three places that cannot change at once: the
// log, the kernel (by the monitor) and the container's record. What is meant to
// happen therefore lies in the container's directory from before the first
// until after the last, and whoever makes the change holds changeLock. If the
// file is there and the lock is free, somebody was killed half-way: the next
// command asks the monitor what it has made, has the record say the same, and
// puts on record which it was.
const (
	changeFile = "update.json"
	changeLock = "update.lock"
	changeWait = 10 * time.Second
	// settleWait bounds how long a monitor is waited for that says nothing.
	settleWait = 3 * time.Second
)

// pendingChange is a change that has begun and not come to its end.
type pendingChange struct {
	sandbox.Change
	Resources Resources `json:"resources"`
	// Differs are the limits that change, by name, before and after.
	Differs map[string][2]string `json:"differs"`
}

// Changed is how the last change of a container's limits ended.
type Changed struct {
	Number int  `json:"number"`
	Made   bool `json:"made"`
}

// holdChange takes the lock of those who change a container's limits, and
// brings to its end what one of them left. The container is read again: it is
// as it was left by the last.
func (e *Engine) holdChange(ctx context.Context, c *Container) (*fsx.Lock, error) {
	wait, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	l, err := fsx.WaitLock(wait, filepath.Join(e.layout.container(c.ID), changeLock))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown(*c)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "container.update", err, "another command changes the limits of container "+c.Name+": try again")
	}
	if err = e.settleHeld(ctx, c.ID); err == nil {
		*c, err = e.load(c.ID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = unknown(*c)
	}
	if err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return l, nil
}

func unknown(c Container) error {
	return fault.New(fault.NotFound, "container.unknown", "No such container: "+c.Name, "list them: ward ps -a")
}

// holdStill keeps a container that does not run from being started while its
// limits change: it would run with the old ones and be said to have the new.
func (e *Engine) holdStill(c Container) (release func() error, err error) {
	if c.live() {
		return func() error { return nil }, nil
	}
	l, err := fsx.TryLock(filepath.Join(e.layout.container(c.ID), lockFile))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "container.state", fmt.Errorf("container %s is being started, copied from or to, or removed: %w", c.Name, err), "try again")
	}
	now, err := e.load(c.ID)
	if err == nil && (now.live() || now.Status.Run != c.Status.Run) {
		err = fault.New(fault.Invalid, "container.state", "container "+c.Name+" was started meanwhile", "try again")
	}
	if err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return l.Unlock, nil
}

// make has a change made that policy allows: record is what the log says of it
// before. The caller holds the container's changeLock.
func (a *entrance) make(ctx context.Context, p pendingChange, record audit.ContainerEvent) error {
	e := a.e
	release, err := e.holdStill(a.c)
	if err != nil {
		return a.refuse(ctx, "record", err)
	}
	defer release()
	b, err := json.Marshal(p)
	if err == nil {
		err = fsx.WriteFile(filepath.Join(e.layout.container(a.c.ID), changeFile), b, 0o600)
	}
	if err != nil {
		return a.refuse(ctx, "record", fault.Wrap(fault.Internal, "container.update", err, "try again"))
	}
	a.update = p.Number
	record.Update = p.Number
	if err := e.append(ctx, about(audit.ContainerUpdate, a.actor, a.c, record)); err != nil {
		return errors.Join(a.refuse(ctx, "record", err), e.endChange(ctx, a.actor, a.c, p, false, false))
	}

	// launch: the monitor writes the limits and reads them back.
	if a.c.Running() {
		err := e.withMonitor(a.c, func(m *sandbox.Monitor) error { return m.Update(ctx, p.Change) })
		made := err == nil
		if err != nil {
			// It may have been made all the same: who asked may have hung up.
			var known error
			if made, known = e.wasMade(ctx, a.c, p, false); known != nil {
				return fault.Wrap(fault.Unavailable, "container.update", errors.Join(err, known), "whether the change was made is not known yet: the next command asks again, and puts it on record")
			}
		}
		if !made {
			return errors.Join(a.refuse(ctx, "launch", err), e.endChange(ctx, a.actor, a.c, p, false, false))
		}
	}
	return e.endChange(ctx, a.actor, a.c, p, true, true)
}

// wasMade asks the monitor of the run that a change is for; of one that is not
// there any more the answer is what the container's record says.
func (e *Engine) wasMade(ctx context.Context, c Container, p pendingChange, recorded bool) (made bool, err error) {
	if !c.Running() || c.Status.Run != p.Run {
		return recorded, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWait)
	defer cancel()
	err = e.withMonitor(c, func(m *sandbox.Monitor) (err error) { made, err = m.Settle(ctx, p.Change); return err })
	if err != nil && (fault.As(err).Rule == "monitor.op" || errors.Is(err, fault.NotFound)) {
		return recorded, nil // one that takes no such changes, or is gone with its container
	}
	return made, err
}

// endChange has the container's record say what came of a change, and the log
// if it is to; then the change is over.
func (e *Engine) endChange(ctx context.Context, actor audit.Actor, c Container, p pendingChange, made, say bool) error {
	ctx = context.WithoutCancel(ctx)
	err := e.change(ctx, c.ID, func(_ []Container, c *Container) error {
		c.Changed = Changed{p.Number, made}
		if made {
			c.Request.Resources = p.Resources
			c.Updated = &Updated{Run: p.Run, Limits: *p.Limits}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if say {
		outcome := "not made"
		if made {
			outcome = "made"
		}
		if err := e.append(ctx, about(audit.ContainerUpdated, actor, c, audit.ContainerEvent{Update: p.Number, Outcome: outcome, Limits: p.Differs})); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(e.layout.container(c.ID), changeFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// settle brings to its end a change of limits whose maker was killed. It does
// nothing where there is none, or somebody is at it, or the monitor cannot say
// now; the next command will ask again.
func (e *Engine) settle(ctx context.Context, id string) error {
	dir := e.layout.container(id)
	if _, err := os.Lstat(filepath.Join(dir, changeFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := fsx.TryLock(filepath.Join(dir, changeLock))
	if errors.Is(err, fsx.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Internal, "container.update", err, "")
	}
	defer l.Unlock()
	return e.settleHeld(ctx, id)
}

func (e *Engine) settleHeld(ctx context.Context, id string) error {
	path := filepath.Join(e.layout.container(id), changeFile)
	p, err := readChange(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Internal, "container.update", fmt.Errorf("%s cannot be read: %w", path, err), "remove it; then ward restart "+id[:12])
	}
	c, err := e.load(id)
	if errors.Is(err, fs.ErrNotExist) || spoiled(err) {
		return nil // reaping sees to it
	}
	if err != nil {
		return err
	}
	made, err := e.wasMade(ctx, c, p, c.Changed == Changed{p.Number, true})
	if err != nil {
		return nil
	}
	asked, over, err := e.changeOnRecord(id, p.Number)
	if err != nil {
		return err
	}
	err = e.endChange(ctx, audit.Caller(), c, p, made, asked && !over)
	if errors.Is(err, fault.NotFound) {
		return nil // removed meanwhile
	}
	return err
}

func readChange(path string) (p pendingChange, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	if len(b) > maxRecord {
		return p, errors.New("too large")
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, err
	}
	if p.Limits == nil || p.Number < 1 {
		return p, errors.New("no change")
	}
	return p, nil
}

// changeOnRecord says whether the log has this change, and its end. It reads
// the whole log, which only what was killed half-way costs.
func (e *Engine) changeOnRecord(id string, number int) (asked, over bool, err error) {
	err = audit.Read(e.layout.Audit(), 0, func(en audit.Entry) error {
		switch en.Type {
		case audit.ContainerUpdate, audit.ContainerUpdated, audit.UpdateDenied:
		default:
			return nil
		}
		var d struct {
			Container string
			Update    int
		}
		if json.Unmarshal(en.Data, &d) != nil || d.Container != id || d.Update != number {
			return nil
		}
		asked = asked || en.Type == audit.ContainerUpdate
		over = over || en.Type != audit.ContainerUpdate
		return nil
	})
	if err != nil {
		return false, false, fault.Wrap(fault.Unrecorded, "audit.read", err, "see ward audit verify")
	}
	return asked, over, nil
}
