package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// What is asked for, as policy has it in input.oci.op.
const (
	opCreate = string(sandbox.OCICreate)
	opExec   = string(sandbox.OCIExec)
	opStart  = string(sandbox.OCIStart)
	opUpdate = string(sandbox.OCIUpdate)
	opPause  = string(sandbox.OCIPause)
	opResume = string(sandbox.OCIResume)
)

// existing is a request about a container that is there, with what was let in
// under that name.
func (g *Gate) existing(ctx context.Context, op string, req Request) (*attempt, error) {
	a := &attempt{g: g, req: req, op: op}
	if op == opExec {
		a.exec = newID()
	}
	err := checkID(req.ID)
	if err == nil {
		a.rec, err = load(req.Root, req.ID)
	}
	if err == nil {
		a.run, a.ref, a.req.Bundle = a.rec.Run, a.rec.Image, a.rec.Bundle
		a.text, a.spec, err = loadSpec(req.Root, req.ID)
	}
	if err != nil {
		return nil, a.refuse(ctx, "resolve", err)
	}
	return a, nil
}

// now is a specification with the limits that are in force.
func (a *attempt) now(s *specs.Spec) *specs.Spec {
	if a.rec.Limits == nil {
		return s
	}
	return limited(s, a.rec.Limits)
}

// limited is a specification with other limits.
func limited(s *specs.Spec, r *specs.LinuxResources) *specs.Spec {
	with, linux := *s, specs.Linux{}
	if s.Linux != nil {
		linux = *s.Linux
	}
	linux.Resources, with.Linux = r, &linux
	return &with
}

// Start lets the payload of a created container go. It passes the gate again,
// unless this gate has just let it in, and is on record before it begins.
func (g *Gate) Start(ctx context.Context, root, id string, io sandbox.OCIFiles) error {
	a, err := g.existing(ctx, opStart, Request{Root: root, ID: id})
	if err != nil {
		return err
	}
	if a.run != g.made {
		if _, err := a.admit(ctx, input(a, a.text, a.now(a.spec))); err != nil {
			return err
		}
	}
	dir := filepath.Join(root, id)
	// Without the fifo it runs already, or has ended: the launcher says which.
	if _, err := os.Stat(filepath.Join(dir, sandbox.OCIStateDir, id, "exec.fifo")); err == nil {
		st, err := sandbox.ReadStatus(dir)
		if err != nil {
			return err
		}
		start := audit.Start{PID: st.PID, MonitorPID: st.MonitorPID}
		if start.Decision, start.Input, err = a.why(); err != nil {
			return a.refuse(ctx, "record", err)
		}
		err = g.append(ctx, audit.Record{Type: audit.RunStart, Run: a.run, Actor: g.c.Actor, Data: start})
		if err != nil {
			return err
		}
	}
	return g.c.Launcher.Operate(ctx, sandbox.OCIRequest{Op: sandbox.OCIStart, Root: root, ID: id, Run: a.run}, io)
}

// Pause suspends a container. To hold something back needs no image that is
// trusted still; who asks has to be.
func (g *Gate) Pause(ctx context.Context, root, id string, io sandbox.OCIFiles) error {
	a, err := g.existing(ctx, opPause, Request{Root: root, ID: id})
	if err != nil {
		return err
	}
	if err := a.decide(ctx, input(a, a.text, a.now(a.spec))); err != nil {
		return err
	}
	return a.interfere(ctx, audit.ContainerPause, sandbox.OCIPause, io)
}

// Resume lets a paused container go on, if it would be let in now.
func (g *Gate) Resume(ctx context.Context, root, id string, io sandbox.OCIFiles) error {
	a, err := g.existing(ctx, opResume, Request{Root: root, ID: id})
	if err != nil {
		return err
	}
	if _, err := a.admit(ctx, input(a, a.text, a.now(a.spec))); err != nil {
		return err
	}
	return a.interfere(ctx, audit.ContainerUnpause, sandbox.OCIResume, io)
}

// interfere does what was let in, once it is on record.
func (a *attempt) interfere(ctx context.Context, typ audit.Type, verb sandbox.OCIVerb, io sandbox.OCIFiles) error {
	if err := a.event(ctx, typ, nil); err != nil {
		return a.refuse(ctx, "record", err)
	}
	return a.g.c.Launcher.Operate(ctx, sandbox.OCIRequest{Op: verb, Root: a.req.Root, ID: a.req.ID, Run: a.run}, io)
}

// event puts on record what is about to be done, and why that was allowed.
func (a *attempt) event(ctx context.Context, typ audit.Type, limits map[string][2]string) error {
	why, asked, err := a.why()
	if err != nil {
		return err
	}
	return a.g.append(ctx, audit.Record{Type: typ, Run: a.run, Actor: a.g.c.Actor, Data: audit.ContainerEvent{
		Container: a.run, Name: a.rec.ID, Image: audit.Image{Reference: a.ref, Digest: a.digest}, Point: policy.PointOCI,
		Decision: why, Input: asked, Limits: limits}})
}

// Update changes the limits of a container: policy decides about the container
// as it would be, and what changes is on record before it does.
func (g *Gate) Update(ctx context.Context, req sandbox.OCIRequest, io sandbox.OCIFiles) error {
	// Two at once would both be judged by limits that neither leaves in force.
	lock, err := lockLimits(ctx, req.Root, req.ID)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Unlock()
	}
	a, err := g.existing(ctx, opUpdate, Request{Root: req.Root, ID: req.ID})
	if err != nil {
		return err
	}
	var want specs.LinuxResources
	if err := json.Unmarshal([]byte(req.Resources), &want); err != nil {
		return a.refuse(ctx, "resolve", fault.Wrap(fault.Invalid, "oci.update", err, ""))
	}
	old := a.now(a.spec).Linux
	if old == nil || old.Resources == nil {
		old = &specs.Linux{Resources: &specs.LinuxResources{}}
	}
	limits := merge(old.Resources, &want)
	if _, err := a.admit(ctx, input(a, a.text, limited(a.spec, limits))); err != nil {
		return err
	}
	if err := a.event(ctx, audit.OCIUpdate, changed(old.Resources, limits)); err != nil {
		return a.refuse(ctx, "record", err)
	}
	req.Op, req.Run = sandbox.OCIUpdate, a.run
	if err := g.c.Launcher.Operate(ctx, req, io); err != nil {
		return a.refuse(ctx, "launch", err)
	}
	a.rec.Limits = limits
	return a.rec.write(filepath.Join(req.Root, req.ID))
}

// lockLimits waits for whoever else changes the limits of a container. Without
// a container there is no lock.
func lockLimits(ctx context.Context, root, id string) (*fsx.Lock, error) {
	if checkID(id) != nil {
		return nil, nil // said, on record, by who asks for the container
	}
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	lock, err := fsx.WaitLock(ctx, filepath.Join(root, id, updateLock))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "oci.update", fmt.Errorf("another update does not end: %w", err), "try again")
	}
	return lock, nil
}

// Process is the process that an exec without a file of its own begins with:
// the one that the container was let in with.
func Process(root, id string) ([]byte, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if _, err := load(root, id); err != nil {
		return nil, err
	}
	_, spec, err := loadSpec(root, id)
	if err != nil {
		return nil, err
	}
	return json.Marshal(spec.Process)
}

// ReadProcess reads the file of an exec's process.
func ReadProcess(name string) ([]byte, error) {
	b, err := readBounded(name)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "oci.spec", err, "")
	}
	return b, nil
}

// monitorTimeout bounds how long a delete waits for the monitor's last record,
// and an update for another.
const monitorTimeout = 15 * time.Second
