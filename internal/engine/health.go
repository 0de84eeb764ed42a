package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// What Docker uses where a health check does not say.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	// leastInterval is the shortest pause between probes an image can ask for.
	leastInterval = time.Second
	// keptProbes is how many results are kept, each with maxProbeOutput bytes.
	keptProbes     = 5
	maxProbeOutput = 4096
)

// HealthCheck is how a container's health is found out.
type HealthCheck struct {
	// Test is the command, executed as it is.
	Test []string `json:"test"`
	// Interval between probes, Timeout of each, Retries failures in a row that
	// make it unhealthy. Within StartPeriod after the start failures do not
	// count, and probes are StartInterval apart. Zero means Docker's default.
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"start_period,omitempty"`
	StartInterval time.Duration `json:"start_interval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// lookedAfter is the health check of a new container: what the request says,
// over what the image says. It refuses a request that no keeper can look after.
func (e *Engine) lookedAfter(req Request, img images.Image) (*HealthCheck, error) {
	h, err := healthCheck(req, img.Config.Healthcheck)
	if err != nil {
		return nil, err
	}
	if req.Restart.Name != "" && req.Remove {
		return nil, fault.New(fault.Invalid, "run.restart", "a container that is removed when it ends cannot be started again", "give --restart or --rm, not both")
	}
	if e.keep == nil && (req.Restart.Name != "" || h != nil) {
		return nil, fault.New(fault.Unavailable, "run.keeper", "nothing here can look after a restart policy or a health check", "run it without")
	}
	return h, nil
}

func healthCheck(req Request, img *images.Healthcheck) (*HealthCheck, error) {
	h := HealthCheck{}
	if img != nil {
		h = HealthCheck(*img)
		// Each probe passes the gate and is on record: how much of that a host
		// does is not for an image to say.
		for _, d := range []*time.Duration{&h.Interval, &h.StartInterval} {
			if *d >= time.Millisecond {
				*d = max(*d, leastInterval)
			}
		}
	}
	if r := req.Health; r != nil {
		if len(r.Test) > 0 {
			h.Test = r.Test
		}
		h.Interval, h.Timeout, h.StartPeriod = cmp.Or(r.Interval, h.Interval), cmp.Or(r.Timeout, h.Timeout), cmp.Or(r.StartPeriod, h.StartPeriod)
		h.StartInterval, h.Retries = cmp.Or(r.StartInterval, h.StartInterval), cmp.Or(r.Retries, h.Retries)
	}
	if req.NoHealth || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil, nil
	}
	switch {
	case h.Test[0] == "CMD" && len(h.Test) > 1:
		h.Test = h.Test[1:]
	case h.Test[0] == "CMD-SHELL" && len(h.Test) == 2:
		h.Test = []string{"/bin/sh", "-c", h.Test[1]}
	default:
		return nil, fault.New(fault.Invalid, "run.health", fmt.Sprintf("%.200q is not a health check", h.Test), "use --health-cmd, or --no-healthcheck")
	}
	for _, d := range []time.Duration{h.Interval, h.Timeout, h.StartPeriod, h.StartInterval} {
		if d != 0 && d < time.Millisecond {
			return nil, fault.New(fault.Invalid, "run.health", fmt.Sprintf("a time of %v in a health check", d), "give at least 1ms")
		}
	}
	if h.Retries < 0 {
		return nil, fault.New(fault.Invalid, "run.health", "fewer than no retries of a health check", "give --health-retries a positive number")
	}
	return &h, nil
}

// Health is how a container is, as far as its check can tell.
type Health struct {
	// Status is "starting", "healthy" or "unhealthy".
	Status        string  `json:"Status"`
	FailingStreak int     `json:"FailingStreak"`
	Log           []Probe `json:"Log"`
}

// Probe is one result of a health check.
type Probe struct {
	Start    time.Time `json:"Start"`
	End      time.Time `json:"End"`
	ExitCode int       `json:"ExitCode"`
	Output   string    `json:"Output"`
}

// Prober executes a health check in a running container and returns its exit
// code and the beginning of its output. It ends when ctx does.
type Prober func(ctx context.Context, c Container, test []string) (code int, output []byte, err error)

// Probe is the Prober that goes through the gate, as any exec does.
func (e *Engine) Probe(ctx context.Context, c Container, test []string) (int, []byte, error) {
	r, err := e.ExecOutput(ctx, ExecRequest{Actor: audit.Caller(), Container: c.ID, Args: test, Purpose: "health"}, maxProbeOutput)
	var start *sandbox.StartError
	if errors.As(err, &start) {
		return start.Code, []byte(start.Error()), nil
	}
	return r.Exit.Code, r.Output, err
}

// watch probes the container until ctx ends, and keeps its health in the
// keeper's file.
func (e *Engine) watch(ctx context.Context, c Container, probe Prober) {
	h := c.Request.Health
	state := Health{Status: "starting", Log: []Probe{}}
	recorded := state.Status
	started := c.Status.Started
	if started.IsZero() {
		started = time.Now()
	}
	for {
		inStart := time.Since(started) < h.StartPeriod
		k := e.kept(c)
		k.Health, k.Next = &state, time.Time{}
		// A health that cannot be written is not worth ending the keeper for.
		_ = e.say(c.ID, k)
		pause := cmp.Or(h.Interval, defaultInterval)
		if inStart && state.Status == "starting" {
			pause = min(pause, cmp.Or(h.StartInterval, defaultStartInterval))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if now, err := e.load(c.ID); err == nil && now.Paused() {
			continue // it cannot answer, and is not unwell for that
		}
		state = state.after(h.probe(ctx, c, probe), time.Since(started) < h.StartPeriod, h.Retries)
		if ctx.Err() != nil {
			return
		}
		// What cannot be recorded now is tried again after the next probe.
		if state.Status != recorded && e.append(ctx, about(audit.ContainerHealth, audit.Caller(), c, audit.ContainerEvent{Health: state.Status})) == nil {
			recorded = state.Status
		}
	}
}

// probe executes the test once. One that cannot be executed, or takes too
// long, failed.
func (h *HealthCheck) probe(ctx context.Context, c Container, probe Prober) Probe {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Timeout, defaultTimeout))
	defer cancel()
	p := Probe{Start: time.Now().UTC()}
	code, output, err := probe(ctx, c, h.Test)
	p.End, p.ExitCode = time.Now().UTC(), code
	if len(output) > maxProbeOutput {
		output = output[:maxProbeOutput]
	}
	p.Output = string(output)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		p.ExitCode, p.Output = -1, "Health check exceeded timeout ("+cmp.Or(h.Timeout, defaultTimeout).String()+")"
	case err != nil:
		p.ExitCode, p.Output = -1, err.Error()
	}
	return p
}

// after is the health once a probe has ended.
func (s Health) after(p Probe, starting bool, retries int) Health {
	if retries <= 0 {
		retries = defaultRetries
	}
	s.Log = append(append([]Probe{}, s.Log...), p)
	s.Log = s.Log[max(0, len(s.Log)-keptProbes):]
	if p.ExitCode == 0 {
		s.Status, s.FailingStreak = "healthy", 0
		return s
	}
	if starting && s.Status == "starting" {
		return s
	}
	if s.FailingStreak++; s.FailingStreak >= retries {
		s.Status = "unhealthy"
	}
	return s
}
