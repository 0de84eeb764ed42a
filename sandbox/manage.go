package sandbox

import "context"

// What ward's other commands ask of the monitor of a container that runs.
const (
	// OpPause stops all of the container's processes where they are, OpResume
	// lets them go on.
	OpPause  MonitorOp = "pause"
	OpResume MonitorOp = "resume"
	// OpUpdate replaces the limits. OpSettle asks which change of them was the
	// last one made, after which those that were asked for before never are.
	OpUpdate MonitorOp = "update"
	OpSettle MonitorOp = "settle"
)

// Pause stops all processes of the container and returns when they are.
// fault.Invalid with rule "container.paused" if they are already.
func (m *Monitor) Pause(ctx context.Context) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpPause})
	return err
}

// Resume lets a paused container go on; fault.Invalid with rule
// "container.paused" if it is not.
func (m *Monitor) Resume(ctx context.Context) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpResume})
	return err
}

// Change is one change of a running container's limits.
type Change struct {
	// Run is the start it is for: no later one takes it.
	Run string `json:"run"`
	// Number counts the changes of a container, from 1.
	Number int `json:"number"`
	// Limits are those asked for; a question about a change has none.
	Limits *Limits `json:"limits,omitempty"`
}

// Update replaces the container's limits and returns once they have been read
// back. If one of them does not hold, those from before do.
func (m *Monitor) Update(ctx context.Context, c Change) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpUpdate, Change: &c})
	return err
}

// Settle reports whether the change was made. One that was not, because who
// asked for it was killed, will not be any more.
func (m *Monitor) Settle(ctx context.Context, c Change) (made bool, err error) {
	r, err := m.ask(ctx, MonitorRequest{Op: OpSettle, Change: &Change{Run: c.Run, Number: c.Number}})
	return err == nil && r.Changed == c.Number, err
}

// CheckLimits is the part of the floor that a change of limits has to pass.
func (f Floor) CheckLimits(l Limits) error {
	if f.idRange == 0 {
		return below("unset", "no floor is set", "")
	}
	p := Plan{Limits: l}
	for _, check := range []func(Plan) error{f.limits, f.sets, f.io} {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}
