package engine

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// killWait bounds how long a SIGKILL is waited for, as Docker does.
const killWait = 10 * time.Second

// startWait bounds how long ending a container waits for its start.
const startWait = 20 * time.Second

// Running reports whether the container's payload is alive.
func (c Container) Running() bool { return c.Status.Phase == sandbox.PhaseRunning }

// live reports whether somebody has to be responsible for it: it runs, or is
// on its way to.
func (c Container) live() bool {
	return c.Status.Phase != sandbox.PhaseExited && c.Status.Phase != sandbox.PhaseCreated
}

// Signal sends a signal (name or number) to the container's first process,
// once it is on record that it will. A container that does not run is
// fault.Invalid.
func (e *Engine) Signal(ctx context.Context, actor audit.Actor, c Container, signal string) error {
	sig, err := stopSignal(signal)
	if err != nil {
		return err
	}
	// Also ends what is between two runs of its restart policy, which is no
	// less to be on record.
	ends := sig == syscall.SIGKILL || sig == syscall.Signal(c.StopSignal)
	if c.Running() || ends && e.wantsKeeper(c) {
		if err := e.append(ctx, about(audit.ContainerSignal, actor, c, audit.ContainerEvent{Signal: int(sig)})); err != nil {
			return err
		}
	}
	if ends {
		if err := e.markStopped(c.ID); err != nil {
			return err
		}
	}
	if !c.Running() {
		return notRunning(c)
	}
	if err := e.signal(ctx, c, sig); err != nil || sig != syscall.SIGKILL {
		return err
	}
	// Nothing can refuse it: whoever says kill and then rm means what is left.
	wait, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	if err := e.await(wait, c); err != nil && !errors.Is(err, fs.ErrNotExist) && wait.Err() == nil {
		return err
	}
	return nil
}

// about is a record about a container, not about one of its runs.
func about(t audit.Type, actor audit.Actor, c Container, d audit.ContainerEvent) audit.Record {
	d.Container, d.Name, d.Image = c.ID, c.Name, audit.Image{Reference: c.Reference, Digest: c.Digest}
	return audit.Record{Type: t, Run: c.ID, Actor: actor, Data: d}
}

func (e *Engine) signal(ctx context.Context, c Container, sig syscall.Signal) error {
	if !c.Running() {
		return notRunning(c)
	}
	return e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Signal(ctx, sig) })
}

// withMonitor talks to the monitor of a container that runs.
func (e *Engine) withMonitor(c Container, fn func(*sandbox.Monitor) error) error {
	m, err := sandbox.Dial(e.layout.runtime(c.ID))
	if err != nil {
		return fault.Wrap(fault.Unavailable, "monitor.dial", err, "see how it is: ward ps -a")
	}
	defer m.Close()
	return fn(m)
}

// report asks the monitor for something that is worth knowing and no ground
// for anything: of a container that does not run, or that has ended meanwhile,
// or whose monitor is too old to know, there is nothing to say.
func (e *Engine) report(c Container, fn func(*sandbox.Monitor) error) error {
	if !c.Running() {
		return nil
	}
	m, err := sandbox.Dial(e.layout.runtime(c.ID))
	if err == nil {
		defer m.Close()
		err = fn(m)
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return knows(err)
}

func notRunning(c Container) error {
	return fault.New(fault.Invalid, "container.state", "container "+c.Name+" is not running", "see how it is: ward ps -a")
}

// Wait returns how the container ended, once it has.
func (e *Engine) Wait(ctx context.Context, c Container) (sandbox.Exit, error) {
	if c.live() {
		if err := e.await(ctx, c); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sandbox.Exit{}, err
		}
	}
	// The monitor may have died without a word: reaping then writes the end.
	if err := e.reapOne(ctx, c.ID); err != nil {
		return sandbox.Exit{}, err
	}
	s, err := sandbox.ReadStatus(e.layout.container(c.ID))
	if errors.Is(err, fault.NotFound) {
		return e.recall(c)
	}
	if err != nil {
		return sandbox.Exit{}, err
	}
	if s.Phase == sandbox.PhaseCreated {
		return sandbox.Exit{}, nil // as Docker: it is not running
	}
	if s.Exit == nil {
		return sandbox.Exit{}, fault.New(fault.Internal, "container.state", "container "+c.Name+" has ended without an exit status", "")
	}
	return *s.Exit, nil
}

// recall is how a container ended that is not there any more: one run with
// --rm, removed by the reaping just done or by another command's.
func (e *Engine) recall(c Container) (sandbox.Exit, error) {
	exit, over, err := Outcome(e.layout.Audit(), cmp.Or(c.Status.Run, c.ID))
	switch {
	case err != nil:
		return sandbox.Exit{}, err
	case exit != nil:
		return sandbox.Exit{Code: exit.Code, Signal: exit.Signal, OOMKilled: exit.OOM, Error: exit.Error}, nil
	case over:
		return sandbox.Exit{Code: lostCode, Error: "lost: its monitor ended without a word"}, nil
	}
	return sandbox.Exit{}, fault.New(fault.NotFound, "container.unknown", "No such container: "+c.Name, "list them: ward ps -a")
}

// await returns when nobody is responsible for the container any more: the
// lock is the one thing that every way of ending lets go of.
func (e *Engine) await(ctx context.Context, c Container) error {
	l, err := fsx.WaitLock(ctx, filepath.Join(e.layout.container(c.ID), lockFile))
	if err != nil {
		return err
	}
	return l.Unlock()
}

// Stop sends the container's stop signal, and SIGKILL when it has not ended
// after grace; with a negative grace it is waited for as long as it takes, as
// Docker does. A container that is not running is left alone.
func (e *Engine) Stop(ctx context.Context, actor audit.Actor, c Container, grace time.Duration) error {
	// Also for one that is between two runs of its restart policy.
	if !c.live() && e.wantsKeeper(c) {
		if err := e.append(ctx, about(audit.ContainerStop, actor, c, audit.ContainerEvent{Signal: c.StopSignal})); err != nil {
			return err
		}
	}
	if err := e.markStopped(c.ID); err != nil {
		return err
	}
	// As it is now: its keeper may have been faster, and sees the mark else.
	c, err := e.load(c.ID)
	if err == nil {
		c, err = e.startedOrNot(ctx, c)
	}
	if err != nil {
		return err
	}
	if !c.Running() {
		return nil
	}
	if err := e.append(ctx, about(audit.ContainerStop, actor, c, audit.ContainerEvent{Signal: c.StopSignal})); err != nil {
		return err
	}
	if err := e.signal(ctx, c, syscall.Signal(c.StopSignal)); err != nil {
		return e.unlessEnded(ctx, c, err)
	}
	if c.Paused() {
		// As Docker: it could not answer the signal.
		if err := e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Resume(ctx) }); err != nil {
			return e.unlessEnded(ctx, c, err)
		}
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if grace >= 0 {
		wait, cancel = context.WithTimeout(ctx, grace)
	}
	defer cancel()
	if err := e.await(wait, c); err == nil || ctx.Err() != nil {
		return err
	}
	return e.Kill(ctx, c)
}

// Kill ends the container with SIGKILL and returns when it is gone.
func (e *Engine) Kill(ctx context.Context, c Container) error {
	if err := e.markStopped(c.ID); err != nil {
		return err
	}
	if err := e.signal(ctx, c, syscall.SIGKILL); err != nil {
		return e.unlessEnded(ctx, c, err)
	}
	return e.await(ctx, c)
}

// startedOrNot waits while a container is on its way through the gate: what is
// to end it must not come before it.
func (e *Engine) startedOrNot(ctx context.Context, c Container) (Container, error) {
	for deadline := time.Now().Add(startWait); c.live() && !c.Running(); {
		l, err := fsx.TryLock(filepath.Join(e.layout.container(c.ID), lockFile))
		if err == nil {
			return c, l.Unlock() // nobody is starting it any more
		}
		if !errors.Is(err, fsx.ErrLocked) || time.Now().After(deadline) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if c, err = e.load(c.ID); err != nil {
			return c, err
		}
	}
	return c, nil
}

// unlessEnded forgives an error that only says the container was faster.
func (e *Engine) unlessEnded(ctx context.Context, c Container, err error) error {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if e.await(short, c) == nil {
		return nil
	}
	return err
}

// RemoveOptions are what "rm" can be told.
type RemoveOptions struct {
	// Force kills a container that runs first.
	Force bool
	// Volumes takes the volumes with it that nobody named.
	Volumes bool
}

// Remove deletes a container that does not run. That it did is on record
// before, and its own records stay in the audit log.
func (e *Engine) Remove(ctx context.Context, actor audit.Actor, c Container, opt RemoveOptions) error {
	gone := fault.New(fault.NotFound, "container.unknown", "No such container: "+c.Name, "list them: ward ps -a")
	for {
		if c.live() {
			if !opt.Force {
				return fault.New(fault.Invalid, "container.running", "container "+c.Name+" is running", "stop it first: ward stop "+c.Name+", or ward rm -f "+c.Name)
			}
			var err error
			if c, err = e.startedOrNot(ctx, c); err == nil && c.Running() {
				err = e.Kill(ctx, c)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return gone
			} else if err != nil {
				return err
			}
		}
		// Held until it is gone, so that nobody starts it meanwhile: neither its
		// keeper nor another command.
		lock, err := fsx.WaitLock(ctx, filepath.Join(e.layout.container(c.ID), lockFile))
		if errors.Is(err, fs.ErrNotExist) {
			return gone
		}
		if err != nil {
			return fault.Wrap(fault.Unavailable, "containers.lock", err, "try again")
		}
		now, err := e.load(c.ID)
		if err == nil && !now.live() {
			return errors.Join(e.removeHeld(ctx, actor, now, opt), lock.Unlock())
		}
		if err := errors.Join(err, lock.Unlock()); errors.Is(err, fs.ErrNotExist) {
			return gone
		} else if err != nil {
			return err
		}
		// It was started meanwhile, or lost with its monitor.
		if err := e.reapOne(ctx, c.ID); err != nil {
			return err
		}
		if c, err = e.load(c.ID); errors.Is(err, fs.ErrNotExist) {
			return nil // of --rm, and reaped
		} else if err != nil {
			return err
		}
	}
}

// removeHeld deletes a container whose lock the caller holds.
func (e *Engine) removeHeld(ctx context.Context, actor audit.Actor, c Container, opt RemoveOptions) error {
	// Afterwards nobody could say what came of a change that was cut off.
	if err := e.settle(ctx, c.ID); err != nil {
		return err
	}
	if err := e.append(ctx, about(audit.ContainerRemove, actor, c, audit.ContainerEvent{})); err != nil {
		return err
	}
	if opt.Volumes || c.Remove {
		if err := e.dropVolumes(ctx, actor, c); err != nil {
			return err
		}
	}
	if err := e.dispose(c.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, "container.remove", err, "try again")
	}
	return nil
}

// Images in use are not removed: InUse reports whether a container was made
// from the image with this manifest digest.
func (e *Engine) InUse(ctx context.Context) (map[string]string, error) {
	all, err := e.List(ctx)
	used := make(map[string]string, len(all))
	for _, c := range all {
		used[c.Digest] = c.Name
		for _, m := range c.Request.Mounts {
			if m.Type == sandbox.MountImage {
				used[m.Digest] = c.Name
			}
		}
	}
	return used, err
}
