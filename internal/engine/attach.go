package engine

import (
	"context"
	"errors"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// AttachRequest asks for the streams of a container that runs.
type AttachRequest struct {
	Actor audit.Actor
	// Container is its id, its name, or the beginning of its id.
	Container string
	// Stdin says that the caller also wants to write.
	Stdin bool
}

// Attached is a client that has a container's streams, until Close or its end.
type Attached struct {
	Container Container
	e         *Engine
	monitor   *sandbox.Monitor
}

// Attach gives the caller the streams of a container that runs, or says why
// not. Nothing new runs, but who reads and writes there is judged and put on
// record before the first byte, as for another process; the monitor records
// when the caller leaves. io are ends of pipes that nobody else uses; they stay
// the caller's to close.
func (e *Engine) Attach(ctx context.Context, req AttachRequest, io Stdio) (*Attached, error) {
	a := &entrance{e: e, point: policy.PointAttach, actor: req.Actor, asked: req.Container, id: newID()}
	if err := a.resolve(ctx); err != nil {
		if a.c.ID != "" && !a.c.Running() {
			err = fault.New(fault.Invalid, "container.state", "cannot attach to a stopped container, start it first", "ward start -ai "+a.c.Name)
		}
		return nil, a.refuse(ctx, "resolve", err)
	}
	ev, err := a.verify(ctx)
	if err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}
	in := a.input(ev)
	in.Attach = policy.Attach{Stdin: req.Stdin && a.plan.Process.Stdin, Terminal: a.plan.Process.Terminal != nil}
	dec, err := a.decide(ctx, in)
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	if !in.Attach.Stdin {
		io.In = nil
	}
	streams := []string{"stdout", "stderr"}
	if io.In != nil {
		streams = append(streams, "stdin")
	}
	why, err := e.explained(dec)
	if err != nil {
		return nil, a.refuse(ctx, "record", err)
	}
	rec := about(audit.ContainerAttach, req.Actor, a.c, audit.ContainerEvent{Attach: a.id, Streams: streams, Decision: why, Input: dec.InputDigest()})
	rec.Run = a.c.Status.Run
	if err := e.append(ctx, rec); err != nil {
		return nil, a.refuse(ctx, "record", unrecorded(err))
	}
	m, err := sandbox.Dial(e.layout.runtime(a.c.ID))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "monitor.dial", err, "see how it is: ward ps -a")
	}
	if err := m.Attach(ctx, a.id, io.In, io.Out, io.Err); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &Attached{Container: a.c, e: e, monitor: m}, nil
}

// Resize gives the container's terminal another size. Not while Wait waits.
func (a *Attached) Resize(ctx context.Context, size sandbox.Terminal) error {
	return a.monitor.Resize(ctx, "", size)
}

// Wait returns how the container ended. It is for after the streams' end.
func (a *Attached) Wait(ctx context.Context) (sandbox.Exit, error) {
	if exit, err := a.monitor.Wait(ctx); err == nil {
		return exit, nil
	}
	return a.e.Wait(ctx, a.Container)
}

// Close lets go of the container, which goes on.
func (a *Attached) Close() error { return a.monitor.Close() }

// Resize gives the terminal of a container that runs another size.
func (e *Engine) Resize(ctx context.Context, c Container, size sandbox.Terminal) error {
	return e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Resize(ctx, "", size) })
}

// Detached puts on record that the client a container was started by has left
// it running.
func (e *Engine) Detached(ctx context.Context, actor audit.Actor, c Container) error {
	return e.append(ctx, about(audit.ContainerDetach, actor, c, audit.ContainerEvent{}))
}

// Terminal reports whether the container has a terminal.
func (c Container) Terminal() bool { return c.Request.Terminal != nil }
