package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
)

// asked counts what a registry was asked, and knows no image.
type asked struct {
	Resolver
	times int
}

func (a *asked) Resolve(context.Context, string) (images.Image, error) {
	return images.Image{}, fault.New(fault.NotFound, "image.missing", "not here", "")
}

func (a *asked) Pull(context.Context, string, images.PullOptions) (images.Image, error) {
	a.times++
	return images.Image{}, fault.New(fault.Unavailable, "registry.unavailable", "down", "")
}

func (a *asked) Examine(context.Context, string, string) (images.Image, error) {
	return a.Pull(context.Background(), "", images.PullOptions{})
}

// Whatever answers without saying yes, and whatever cannot be recorded, keeps
// the registry from being asked at all.
func TestNothingIsFetchedWithoutAYes(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		class  fault.Class
		times  int
	}{
		"allowed":       {func(*Config) {}, fault.Unavailable, 1},
		"zero decision": {func(c *Config) { c.Decider = noDecision{} }, fault.Denied, 0},
	} {
		for door, ask := range map[string]func(*Engine) error{
			"pull": func(e *Engine) error {
				_, err := e.Pull(t.Context(), PullRequest{Actor: audit.Caller(), Image: testImage})
				return err
			},
			"run": func(e *Engine) error {
				_, err := e.Run(t.Context(), Request{Actor: audit.Caller(), Image: testImage}, Stdio{})
				return err
			},
			"create": func(e *Engine) error {
				_, err := e.Create(t.Context(), Request{Actor: audit.Caller(), Image: testImage})
				return err
			},
			"gate": func(e *Engine) error {
				v, err := e.Gate(t.Context(), GateRequest{Request: Request{Actor: audit.Caller(), Image: testImage}})
				return errors.Join(v.Refusal, err)
			},
		} {
			r := newRig(t)
			counted := &asked{Resolver: r.cfg.Resolver}
			r.cfg.Resolver = counted
			tc.change(&r.cfg)
			e, err := New(r.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := ask(e); !errors.Is(err, tc.class) || counted.times != tc.times {
				t.Errorf("%s, %s: %v, and the registry was asked %d times; want %v, %d", name, door, err, counted.times, tc.class, tc.times)
			}
		}
	}
}

// A log that takes nothing lets nothing be fetched either.
func TestNothingIsFetchedUnrecorded(t *testing.T) {
	r := newRig(t)
	counted := &asked{Resolver: r.cfg.Resolver}
	r.cfg.Resolver, r.cfg.Log = counted, deadLog{}
	e, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Pull(t.Context(), PullRequest{Image: testImage}); !errors.Is(err, fault.Unrecorded) || counted.times != 0 {
		t.Errorf("%v, and the registry was asked %d times", err, counted.times)
	}
}
