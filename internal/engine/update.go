package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// Update changes a container's limits, for as long as it runs and for its next
// starts. It passes the gate: image and evidence are judged as they are now,
// and policy decides about the container as it would be. The change is on
// record before it is made, and so is what came of it; killed half-way, the
// next command brings kernel, record and log together.
func (e *Engine) Update(ctx context.Context, actor audit.Actor, name string, edit func(*Resources) error) (Container, error) {
	a := &entrance{e: e, point: policy.PointUpdate, actor: actor, asked: name, id: newID()}

	// resolve: the container, the image it was made from, the limits it has.
	hold, err := a.resolveAny(ctx)
	if err != nil {
		return a.c, a.refuse(ctx, "resolve", err)
	}
	defer hold.Unlock()

	// verify: who vouches for that image today?
	ev, err := a.verify(ctx)
	if err != nil {
		return a.c, a.refuse(ctx, "verify", err)
	}

	// decide: may it have these limits?
	asked := a.c.Request
	if err := edit(&asked.Resources); err != nil {
		return a.c, a.refuse(ctx, "decide", err)
	}
	old := a.plan.Limits
	if a.plan.Limits, err = limits(asked, runtime.NumCPU()); err != nil {
		return a.c, a.refuse(ctx, "decide", err)
	}
	// What a start alone can set stays.
	set := &a.plan.Limits
	set.Shm, set.IO, set.Output, set.OutputFile, set.OutputFiles = old.Shm, old.IO, old.Output, old.OutputFile, old.OutputFiles
	dec, err := e.decider.Decide(ctx, a.input(ev))
	if err == nil {
		if a.answer = dec; !dec.Allowed() {
			err = denial(dec)
		}
	}
	if err != nil {
		return a.c, a.refuse(ctx, "decide", err)
	}

	// seal: what policy obliges to, and the floor under it.
	tight, err := tighten(a.plan, dec.Obligations())
	if err != nil {
		return a.c, a.refuse(ctx, "seal", err)
	}
	now := tight.Limits
	if err := e.floor.CheckLimits(now); err != nil {
		return a.c, a.refuse(ctx, "seal", err)
	}

	// record, launch: on disk before anything is changed, and what comes of it
	// after.
	why, err := e.explained(dec)
	if err != nil {
		return a.c, a.refuse(ctx, "record", err)
	}
	p := pendingChange{sandbox.Change{Run: a.c.Status.Run, Number: a.c.Changed.Number + 1, Limits: &now}, asked.Resources, changed(old, now)}
	return a.c, a.make(ctx, p, audit.ContainerEvent{Decision: why, Input: dec.InputDigest(), Limits: p.Differs})
}

// Updated are the limits a container was given after a start.
type Updated struct {
	// Run is the start that they are about.
	Run    string         `json:"run"`
	Limits sandbox.Limits `json:"limits"`
}

// Limits are those in force, or those a container had last.
func (c Container) Limits(p sandbox.Plan) sandbox.Limits {
	if c.Updated != nil && c.Updated.Run == c.Status.Run {
		return c.Updated.Limits
	}
	return p.Limits
}

// resolveAny finds the container, running or not, and takes the lock of those
// who change its limits.
func (a *entrance) resolveAny(ctx context.Context) (hold *fsx.Lock, err error) {
	if a.c, err = a.e.Find(ctx, a.asked); err != nil {
		return nil, err
	}
	if hold, err = a.e.holdChange(ctx, &a.c); err != nil {
		return nil, err
	}
	if err = a.resolveHeld(ctx); err != nil {
		return nil, errors.Join(err, hold.Unlock())
	}
	return hold, nil
}

func (a *entrance) resolveHeld(ctx context.Context) (err error) {
	if a.plan, a.encoded, err = a.e.Plan(a.c); err != nil {
		return err
	}
	if a.c.live() && !a.c.Running() || a.c.Running() && a.plan.Run != a.c.Status.Run {
		return fault.New(fault.Invalid, "container.state", "container "+a.c.Name+" is being started anew", "try again")
	}
	a.plan.Limits = a.c.Limits(a.plan)
	a.img, err = a.e.resolveAgain(ctx, &a.c)
	return err
}

// changed are the limits that differ, by Docker's names, before and after.
func changed(old, now sandbox.Limits) map[string][2]string {
	out := map[string][2]string{}
	for _, l := range []struct {
		name string
		of   func(sandbox.Limits) string
	}{
		{"memory", func(l sandbox.Limits) string { return strconv.FormatInt(l.Memory, 10) }},
		{"memory-swap", func(l sandbox.Limits) string { return strconv.FormatInt(l.Memory+l.Swap, 10) }},
		{"memory-reservation", func(l sandbox.Limits) string { return strconv.FormatInt(l.Reservation, 10) }},
		{"pids-limit", func(l sandbox.Limits) string { return strconv.FormatInt(l.PIDs, 10) }},
		{"cpus", func(l sandbox.Limits) string {
			return fmt.Sprintf("%g", float64(l.CPUQuota)/float64(max(l.CPUPeriod, 1)))
		}},
		{"cpu-period", func(l sandbox.Limits) string { return strconv.FormatUint(l.CPUPeriod, 10) }},
		{"cpu-shares", func(l sandbox.Limits) string { return strconv.FormatUint(l.CPUShares, 10) }},
		{"cpuset-cpus", func(l sandbox.Limits) string { return cmp.Or(l.CPUSet, "all") }},
		{"cpuset-mems", func(l sandbox.Limits) string { return cmp.Or(l.MemSet, "all") }},
		{"blkio-weight", func(l sandbox.Limits) string { return strconv.FormatUint(l.IOWeight, 10) }},
	} {
		if a, b := l.of(old), l.of(now); a != b {
			out[l.name] = [2]string{a, b}
		}
	}
	return out
}
