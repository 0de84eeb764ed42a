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
