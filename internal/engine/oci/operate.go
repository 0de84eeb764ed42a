package oci

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Start lets the payload of a created container go. That it starts is on
// record before it does.
func (g *Gate) Start(ctx context.Context, root, id string, io sandbox.OCIFiles) error {
	if err := checkID(id); err != nil {
		return err
	}
	rec, err := load(root, id)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, id)
	// Without the fifo it runs already, or has ended: the launcher says which.
	if _, err := os.Stat(filepath.Join(dir, sandbox.OCIStateDir, id, "exec.fifo")); err == nil {
		st, err := sandbox.ReadStatus(dir)
		if err != nil {
			return err
		}
		err = g.append(ctx, audit.Record{Type: audit.RunStart, Run: rec.Run, Actor: g.c.Actor, Data: audit.Start{PID: st.PID, MonitorPID: st.MonitorPID}})
		if err != nil {
			return err
		}
	}
	return g.c.Launcher.Operate(ctx, sandbox.OCIRequest{Op: sandbox.OCIStart, Root: root, ID: id}, io)
}

// Delete removes a container that has ended; with force, one that runs too.
func (g *Gate) Delete(ctx context.Context, root, id string, force bool, io sandbox.OCIFiles) error {
	if err := checkID(id); err != nil {
		return err
	}
	if rec, err := load(root, id); force && err == nil {
		// It may kill. Without force only what has ended goes, which is on record.
		err = g.append(ctx, audit.Record{Type: audit.ContainerRemove, Run: rec.Run, Actor: g.c.Actor, Data: audit.ContainerEvent{
			Container: rec.Run, Name: rec.ID, Image: audit.Image{Reference: rec.Image}}})
		if err != nil {
			return err
		}
	}
	err := g.c.Launcher.Operate(ctx, sandbox.OCIRequest{Op: sandbox.OCIDelete, Root: root, ID: id, Force: force}, io)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if _, serr := os.Stat(filepath.Join(root, id)); serr == nil {
		if rerr := g.remove(ctx, root, id); rerr != nil {
			return rerr
		}
	}
	if force {
		return nil
	}
	return err
}

// Interfere signals, pauses or resumes a container, as req says. Who asks for
// it is on record before it is done; whether there is such a container that
// runs, the launcher says.
func (g *Gate) Interfere(ctx context.Context, req sandbox.OCIRequest, io sandbox.OCIFiles) error {
	if err := checkID(req.ID); err != nil {
		return err
	}
	rec, err := load(req.Root, req.ID)
	if err != nil {
		return err
	}
	kind, known := map[sandbox.OCIVerb]audit.Type{sandbox.OCIKill: audit.ContainerSignal,
		sandbox.OCIPause: audit.ContainerPause, sandbox.OCIResume: audit.ContainerUnpause}[req.Op]
	if !known {
		return fault.New(fault.Internal, "oci.verb", "there is no record for "+string(req.Op), "")
	}
	err = g.append(ctx, audit.Record{Type: kind, Run: rec.Run, Actor: g.c.Actor, Data: audit.ContainerEvent{
		Container: rec.Run, Name: rec.ID, Image: audit.Image{Reference: rec.Image}, Signal: req.Signal}})
	if err != nil {
		return err
	}
	return g.c.Launcher.Operate(ctx, req, io)
}

// Update changes the limits of a container. What is asked for is on record
// before it is done.
func (g *Gate) Update(ctx context.Context, req sandbox.OCIRequest, io sandbox.OCIFiles) error {
	if err := checkID(req.ID); err != nil {
		return err
	}
	rec, err := load(req.Root, req.ID)
	if err != nil {
		return err
	}
	err = g.append(ctx, audit.Record{Type: audit.OCIUpdate, Run: rec.Run, Actor: g.c.Actor, Data: json.RawMessage(req.Resources)})
	if err != nil {
		return err
	}
	req.Op = sandbox.OCIUpdate
	return g.c.Launcher.Operate(ctx, req, io)
}

// Process is the process that an exec without a file of its own begins with:
// the one of the container's specification.
func Process(root, id string) ([]byte, error) {
	rec, err := load(root, id)
	if err != nil {
		return nil, err
	}
	_, spec, err := readSpec(rec.Bundle)
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
