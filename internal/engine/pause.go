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
