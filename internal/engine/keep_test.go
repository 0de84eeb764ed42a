package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
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
