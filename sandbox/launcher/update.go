package launcher

import (
	"errors"
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// update replaces the limits of the running container and reads back what the
// kernel made of them. When one does not hold, the old ones are put back: a
// container never runs on with half of a change.
func (m *monitor) update(c *sandbox.Change) error {
	if c == nil || c.Limits == nil {
		return fault.New(fault.Invalid, "monitor.update", "no limits", "")
	}
	l := c.Limits
	if err := sandbox.DefaultFloor().CheckLimits(*l); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return err
	}
	if c.Run != m.Run || c.Number <= m.settled {
		return fault.New(fault.Invalid, "container.state", "the change is one of an earlier run, or was given up", "try again")
	}
	if err := unchangeable(m.Limits, *l); err != nil {
		return err
	}
	m.settled = c.Number
	err := m.setLimits(*l)
	if err == nil {
		m.Limits, m.changed = *l, c.Number
		m.pace.set(*l)
		return nil
	}
	err = fault.Wrap(fault.Unavailable, "launch.limits", fmt.Errorf("change the limits: %w", err), "ask for limits that this kernel has and the container fits in")
	return errors.Join(err, m.setLimits(m.Limits))
}

// settle says which change of the limits was made last. Whoever asks has taken
// the place of one who was killed while asking for this change: should that
// request still be on its way, it comes too late from here on, or what is
// written down because of this answer would be wrong.
func (m *monitor) settle(c *sandbox.Change) sandbox.MonitorReply {
	if c == nil || c.Run != m.Run {
		return sandbox.MonitorReply{Error: fault.New(fault.Invalid, "container.state", "the change is one of an earlier run", "")}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled = max(m.settled, c.Number)
	return sandbox.MonitorReply{OK: true, Changed: m.changed}
}

// unchangeable refuses to change what only a start can set, and to take away
// what the kernel's default would have to be known for.
func unchangeable(old, l sandbox.Limits) error {
	refuse := func(what string) error {
		return fault.New(fault.Invalid, "monitor.update", what+" cannot be changed while the container runs", "start it again")
	}
	switch {
	case old.Shm != l.Shm:
		return refuse("the size of /dev/shm")
	case old.Output != l.Output, old.OutputFile != l.OutputFile, old.OutputFiles != l.OutputFiles:
		return refuse("how much output is kept")
	case old.CPUSet != "" && l.CPUSet == "", old.MemSet != "" && l.MemSet == "",
		old.CPUShares != 0 && l.CPUShares == 0, old.IOWeight != 0 && l.IOWeight == 0, old.Reservation != 0 && l.Reservation == 0:
		return refuse("a limit that is there")
	case len(old.IO) != len(l.IO):
		return refuse("the limits at devices")
	}
	for i := range old.IO {
		if old.IO[i] != l.IO[i] {
			return refuse("the limits at devices")
		}
	}
	return nil
}

func (m *monitor) setLimits(l sandbox.Limits) error {
	if err := weighs(l); err != nil {
		return err
	}
	r := limitsOf(l)
	// The device rules stay those of the start. Nothing else is ever started by
	// a monitor, so it does without the functions that would write them.
	r.SkipDevices = true
	stay := func(string, *cgroups.Resources) error { return nil }
	cgroups.DevicesSetV1, cgroups.DevicesSetV2 = stay, stay
	// Version 2 would kill for a limit below what is in use; version 1 refuses.
	r.MemoryCheckBeforeUpdate = true
	mgr, err := manager.NewWithPaths(&cgroups.Cgroup{Path: cgroupParent + "/" + m.Container, Resources: r}, m.Cgroups)
	if err != nil {
		return err
	}
	if err := mgr.Set(r); err != nil {
		return err
	}
	return checkLimits(m.Cgroups, l)
}
