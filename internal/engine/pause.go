package engine

import (
	"context"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Paused reports whether the container's processes are stopped where they are.
func (c Container) Paused() bool { return c.Running() && c.Status.Paused }

// Pause stops all processes of a container where they are, once it is on
// record that it will.
func (e *Engine) Pause(ctx context.Context, actor audit.Actor, c Container) error {
	if !c.Running() {
		return notRunning(c)
	}
	if c.Paused() {
		return fault.New(fault.Invalid, "container.paused", "container "+c.Name+" is paused already", "let it go on: ward unpause "+c.Name)
	}
	if err := e.append(ctx, about(audit.ContainerPause, actor, c, audit.ContainerEvent{})); err != nil {
		return err
	}
	return e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Pause(ctx) })
}

// Unpause lets a paused container go on, once it is on record that it will.
func (e *Engine) Unpause(ctx context.Context, actor audit.Actor, c Container) error {
	if !c.Running() {
		return notRunning(c)
	}
	if !c.Paused() {
		return fault.New(fault.Invalid, "container.paused", "container "+c.Name+" is not paused", "see how it is: ward ps")
	}
	if err := e.append(ctx, about(audit.ContainerUnpause, actor, c, audit.ContainerEvent{})); err != nil {
		return err
	}
	return e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Resume(ctx) })
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
