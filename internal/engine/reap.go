package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// lostCode is the exit code of a run that nobody saw end.
const lostCode = 255

// Reap finishes what a crash left. A container that has not ended and whose
// lock is free has neither gate nor monitor; its processes died with the
// monitor's PID namespace. It gets a run.lost record, its cgroup and runtime
// directory are removed, and it is marked as ended. Ended containers that
// were to be removed are; changes of limits that were begun come to their end.
// Reap is idempotent and safe to run concurrently.
func (e *Engine) Reap(ctx context.Context) error {
	es, err := os.ReadDir(e.layout.containers())
	if err != nil {
		return fault.Wrap(fault.Internal, "containers.read", err, "")
	}
	var errs []error
	for _, d := range es {
		if filepath.Ext(d.Name()) != "" {
			continue // on its way in or out
		}
		if err := e.reapOne(ctx, d.Name()); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Sweep is Reap for one container, as soon as nobody is responsible for it any
// more: after a foreground run the others are not looked at again.
func (e *Engine) Sweep(ctx context.Context, c Container) error {
	if err := e.await(ctx, c); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.reapOne(ctx, c.ID)
}

func (e *Engine) reapOne(ctx context.Context, id string) error {
	if err := e.settle(ctx, id); err != nil {
		return err
	}
	dir := e.layout.container(id)
	c, err := e.load(id)
	ended := err == nil && c.Status.Phase == sandbox.PhaseExited
	if ended && !c.Remove || err == nil && c.Status.Phase == sandbox.PhaseCreated {
		return e.keepIfAlone(c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since
	}
	if err != nil && !spoiled(err) {
		return err
	}
	lock, lerr := fsx.TryLock(filepath.Join(dir, lockFile))
	if errors.Is(lerr, fsx.ErrLocked) || errors.Is(lerr, fs.ErrNotExist) {
		return e.keepIfAlone(c) // somebody is responsible, or it is gone
	}
	if lerr != nil {
		return fault.Wrap(fault.Internal, "containers.lock", lerr, "remove "+dir)
	}
	defer lock.Unlock()
	// Read again under the lock: it may have ended between the two looks.
	c, err = e.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if spoiled(err) {
		// Records are not flushed: a power cut can spoil one. The run ended
		// with it; its end is recorded, and what is left is of no use.
		c, err = Container{ID: id, Remove: true}, nil
	}
	if err != nil {
		return err
	}
	if c.live() {
		if err := e.lost(ctx, &c); err != nil {
			return err
		}
	}
	if c.Remove && c.Status.Phase == sandbox.PhaseExited {
		if err := e.dropVolumes(ctx, audit.Caller(), c); err != nil {
			return err
		}
		return e.dispose(id)
	}
	return e.keepIfAlone(c)
}

// spoiled says that a record is there and makes no sense, which is not the
// same as one that cannot be read.
func spoiled(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Rule == "containers.record"
}

// lost puts an end to a run whose monitor is gone: it cleans up after it, and
// records that nobody saw it end unless its end is on record already. Every
// run has one outcome, also when the monitor died between recording the exit
// and saying so.
func (e *Engine) lost(ctx context.Context, c *Container) error {
	phase := string(c.Status.Phase)
	if phase == "" {
		phase = "reserved"
	}
	if err := sandbox.Clean(c.ID, e.layout.runtime(c.ID)); err != nil {
		return fault.Wrap(fault.Internal, "containers.clean", err, "end what still runs in its cgroup")
	}
	s := c.Status
	s.Phase, s.Finished = sandbox.PhaseExited, time.Now().UTC()
	s.Exit = &sandbox.Exit{Code: lostCode, Error: "lost: its monitor ended without a word", Started: s.Started, Finished: s.Finished}
	if s.Run == "" {
		s.Run, s.Start = c.ID, 1 // reserved by "ward run", and never reported
	}
	exit, over, err := Outcome(e.layout.Audit(), s.Run)
	if err != nil {
		return err
	}
	if exit != nil {
		s.Exit.Code, s.Exit.Signal, s.Exit.OOMKilled, s.Exit.Error = exit.Code, exit.Signal, exit.OOM, exit.Error
	}
	if !over {
		err := e.append(ctx, audit.Record{Type: audit.RunLost, Run: s.Run, Actor: audit.Caller(), Data: audit.Lost{Phase: phase}})
		if err != nil {
			return err
		}
	}
	c.Status = s
	return sandbox.WriteStatus(e.layout.container(c.ID), s)
}

// Outcome says whether the log in dir has an end of this run, and the exit if
// that is what it is. It reads the whole log, which only what a crash left
// behind costs.
func Outcome(dir, run string) (exit *audit.Exit, over bool, err error) {
	err = audit.Read(dir, 0, func(en audit.Entry) error {
		if en.Run != run {
			return nil
		}
		switch en.Type {
		case audit.RunExit:
			exit, over = &audit.Exit{}, true
			return json.Unmarshal(en.Data, exit)
		case audit.RunDenied, audit.RunLost:
			over = true
		}
		return nil
	})
	if err != nil {
		return nil, false, fault.Wrap(fault.Unrecorded, "audit.read", err, "see ward audit verify")
	}
	return exit, over, nil
}

// dispose removes a container's files. The rename first makes it vanish as a
// whole: a crash half-way leaves no container without its writable layer.
func (e *Engine) dispose(id string) error {
	dir := e.layout.container(id)
	if err := os.Rename(dir, dir+goneSuffix); err != nil {
		return err
	}
	return os.RemoveAll(dir + goneSuffix)
}
