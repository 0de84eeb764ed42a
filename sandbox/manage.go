package sandbox

import "context"

// What ward's other commands ask of the monitor of a container that runs.
const (
	// OpPause stops all of the container's processes where they are, OpResume
	// lets them go on.
	OpPause  MonitorOp = "pause"
	OpResume MonitorOp = "resume"
	// OpUpdate replaces the limits.
	OpUpdate MonitorOp = "update"
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

// Update replaces the container's limits and returns once they have been read
// back. If one of them does not hold, those from before do.
func (m *Monitor) Update(ctx context.Context, l Limits) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpUpdate, Limits: &l})
	return err
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
