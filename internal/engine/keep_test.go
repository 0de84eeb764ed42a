package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

func TestRestartPolicies(t *testing.T) {
	for spec, want := range map[string][5]bool{
		// ended with 0; with 1; with 1 after two restarts; stopped by hand; lost
		"no":             {},
		"on-failure":     {false, true, true, false, true},
		"on-failure:2":   {false, true, false, false, true},
		"always":         {true, true, true, false, true},
		"unless-stopped": {true, true, true, false, true},
	} {
		p, err := ParseRestart(spec)
		if err != nil {
			t.Fatal(err)
		}
		got := [5]bool{p.again(0, 0, false), p.again(1, 0, false), p.again(1, 2, false), p.again(1, 0, true), p.again(lostCode, 0, false)}
		if got != want {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
	for _, bad := range []string{"always:1", "on-failure:", "on-failure:-1", "on-failure:x", "sometimes", "no:1"} {
		if _, err := ParseRestart(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestHealthAfterProbes(t *testing.T) {
	h := Health{Status: "starting"}
	for i, step := range []struct {
		code     int
		starting bool
		want     string
	}{
		{1, true, "starting"}, {1, true, "starting"}, {1, true, "starting"}, // do not count
		{0, true, "healthy"}, {1, true, "healthy"}, {1, false, "healthy"}, {1, false, "unhealthy"}, {1, false, "unhealthy"},
		{0, false, "healthy"},
	} {
		h = h.after(Probe{ExitCode: step.code, Start: time.Unix(int64(i), 0)}, step.starting, 0)
		if h.Status != step.want {
			t.Errorf("probe %d: %s, want %s", i, h.Status, step.want)
		}
	}
	if len(h.Log) != keptProbes || h.Log[0].Start.Unix() != 4 {
		t.Errorf("kept %d probes from %v", len(h.Log), h.Log[0].Start)
	}
}

func TestImageHealthCheckAndRequest(t *testing.T) {
	for name, c := range map[string]struct {
		test []string
		bad  bool
		want int
	}{
		"none":          {[]string{"NONE"}, false, 0},
		"command":       {[]string{"CMD", "/bin/ok"}, false, 1},
		"shell":         {[]string{"CMD-SHELL", "ok && ok"}, false, 3},
		"empty command": {[]string{"CMD"}, true, 0},
		"no form":       {[]string{"/bin/ok"}, true, 0},
	} {
		h, err := healthCheck(Request{Health: &HealthCheck{Test: c.test}}, nil)
		if (err != nil) != c.bad || h == nil != (c.want == 0) || h != nil && len(h.Test) != c.want {
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
	if h, err := healthCheck(Request{NoHealth: true, Health: &HealthCheck{Test: []string{"CMD", "x"}}}, nil); h != nil || err != nil {
		t.Errorf("switched off: %v %v", h, err)
	}
}

// ended is a container on disk that has ended and is to be started again.
func ended(t *testing.T) (*Engine, Container) {
	t.Helper()
	e, _ := newEngine(t)
	l := e.layout
	c := Container{ID: newID(), Name: "kept", StopSignal: 15, Request: Request{Restart: RestartPolicy{Name: "always"}}}
	dir := l.container(c.ID)
	b, err := json.Marshal(c)
	c.Status = sandbox.Status{Phase: sandbox.PhaseExited, Exit: &sandbox.Exit{Code: 1}}
	for _, err := range []error{err, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, recordFile), b, 0o600), sandbox.WriteStatus(dir, c.Status)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return e, c
}

func TestKeeperDoesNotStartWhatWasStoppedMeanwhile(t *testing.T) {
	e, c := ended(t)
	if err := e.markStopped(c.ID); err != nil {
		t.Fatal(err)
	}
	if s, err := e.reopen(&c, newID(), false); err == nil || fault.As(err).Rule != "container.stopped" {
		t.Errorf("its keeper starts it: %v %v", s, err)
	}
	if now, err := e.load(c.ID); err != nil || now.Status.Phase != sandbox.PhaseExited {
		t.Errorf("it is %q now: %v", now.Status.Phase, err)
	}
	if _, err := e.reopen(&c, newID(), true); err != nil {
		t.Errorf("somebody starts it by hand: %v", err)
	}
}

func TestStopWaitsForAStartItDidNotSee(t *testing.T) {
	e, c := ended(t)
	c.Request.Restart = RestartPolicy{}
	lock, err := fsx.TryLock(filepath.Join(e.layout.container(c.ID), lockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := sandbox.WriteStatus(e.layout.container(c.ID), sandbox.Status{Phase: sandbox.PhaseStarting}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Stop(ctx, audit.Actor{}, c, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped, though it is being started: %v", err)
	}
}

func TestEndingWhatIsToStartAgainIsOnRecord(t *testing.T) {
	for kind, end := range map[audit.Type]func(*Engine, Container) error{
		audit.ContainerStop:   func(e *Engine, c Container) error { return e.Stop(t.Context(), audit.Caller(), c, 0) },
		audit.ContainerSignal: func(e *Engine, c Container) error { return e.Signal(t.Context(), audit.Caller(), c, "KILL") },
	} {
		e, c := ended(t)
		if err := end(e, c); err != nil && fault.As(err).Rule != "container.state" {
			t.Error(err)
		}
		n := 0
		err := audit.Read(e.layout.Audit(), 0, func(en audit.Entry) error {
			if en.Type == kind && en.Run == c.ID {
				n++
			}
			return nil
		})
		if err != nil || n != 1 || !e.stopped(c.ID) {
			t.Errorf("%d records of %s: %v", n, kind, err)
		}
	}
}

// An image must not fill the log, or keep the host busy, with probes.
func TestImageCannotAskForManyProbes(t *testing.T) {
	img := &images.Healthcheck{Test: []string{"CMD", "/bin/ok"}, Interval: time.Millisecond, StartInterval: time.Millisecond}
	h, err := healthCheck(Request{}, img)
	if err != nil || h.Interval < time.Second || h.StartInterval < time.Second {
		t.Errorf("%+v %v", h, err)
	}
	if h, err := healthCheck(Request{Health: &HealthCheck{Interval: 50 * time.Millisecond}}, img); err != nil || h.Interval != 50*time.Millisecond {
		t.Errorf("the request's own: %+v %v", h, err)
	}
}

// Programs know containers by their ids; a name must not come before.
func TestAnIDIsNobodysName(t *testing.T) {
	e, _ := newEngine(t)
	first, second := reserveOne(t, e, "first"), reserveOne(t, e, "second")
	defer first.lock.Unlock()
	defer second.lock.Unlock()
	if err := e.Rename(t.Context(), audit.Caller(), first.container, second.container.ID); err != nil {
		t.Fatal(err)
	}
	if c, err := e.Find(t.Context(), second.container.ID); err != nil || c.ID != second.container.ID {
		t.Errorf("found %s: %v", c.ID, err)
	}
}
