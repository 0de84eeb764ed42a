package engine

import (
	"context"
	"errors"
	"io/fs"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Stats is what a container that runs uses at this moment. fault.NotFound if it
// has ended meanwhile. It is read from the kernel's accounts and asks nothing
// of the container or its monitor.
func (e *Engine) Stats(_ context.Context, c Container) (sandbox.Stats, error) {
	if !c.Running() {
		return sandbox.Stats{}, notRunning(c)
	}
	groups, err := sandbox.ContainerCgroups(c.ID)
	if err != nil {
		return sandbox.Stats{}, err
	}
	s, err := sandbox.ReadStats(groups, c.Status.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fault.New(fault.NotFound, "container.ended", "container "+c.Name+" has ended", "see how it is: ward ps -a")
	}
	if c.Request.Network == sandbox.NetworkHost {
		s.Network = nil // the host's, and not what the container did
	}
	return s, err
}

// Processes are the process ids of a container that runs, in the host's PID
// namespace.
func (e *Engine) Processes(_ context.Context, c Container) ([]int, error) {
	if !c.Running() {
		return nil, notRunning(c)
	}
	groups, err := sandbox.ContainerCgroups(c.ID)
	if err != nil {
		return nil, err
	}
	return groups.Processes()
}
