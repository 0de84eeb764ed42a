package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Plan reads back the plan a container was launched with. One of another
// version of ward may say what this one does not know, or mean something else
// by the same words; so nothing is decided by it, and the refusal says what to
// do. Starting the container again seals a plan of this version.
func (e *Engine) Plan(c Container) (sandbox.Plan, []byte, error) {
	b, err := e.encodedPlan(c)
	if err != nil {
		return sandbox.Plan{}, nil, err
	}
	p, err := sandbox.DecodePlan(b)
	if by, other := otherVersion(b); err != nil && other {
		remedy := "start it again with this one: ward restart " + c.Name
		if !c.Running() {
			remedy = "start it with this one: ward start " + c.Name
		}
		return sandbox.Plan{}, nil, fault.New(fault.Unavailable, "container.version",
			fmt.Sprintf("container %s was started by another version of ward (%s)", c.Name, by), remedy)
	}
	return p, b, err
}

// PlanToShow is Plan for those who only print it: of one of another version it
// is what this version understands, and the whole of it as bytes.
func (e *Engine) PlanToShow(c Container) (sandbox.Plan, []byte, error) {
	p, b, err := e.Plan(c)
	var f *fault.Error
	if !errors.As(err, &f) || f.Rule != "container.version" {
		return p, b, err
	}
	if b, err = e.encodedPlan(c); err != nil {
		return p, nil, err
	}
	// A field that has another type now stays empty.
	if err := json.Unmarshal(b, &p); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return p, nil, fault.Wrap(fault.Internal, "containers.plan", err, "")
	}
	return p, b, nil
}

func (e *Engine) encodedPlan(c Container) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(e.layout.container(c.ID), planFile))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "containers.plan", err, "")
	}
	return b, nil
}

// otherVersion says by which ward a plan was sealed, if not by this one.
func otherVersion(plan []byte) (by string, other bool) {
	var p struct {
		Version int    `json:"version"`
		Build   string `json:"build"`
	}
	if json.Unmarshal(plan, &p) != nil || p.Build == "" {
		return "", false // damaged
	}
	return fmt.Sprintf("build %.64q, plan version %d", p.Build, p.Version), p.Build != sandbox.Build || p.Version != sandbox.PlanVersion
}

// knows turns the answer of an older monitor, that it does not know what was
// asked, into no answer.
func knows(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Rule == "monitor.op" {
		return nil
	}
	return err
}
