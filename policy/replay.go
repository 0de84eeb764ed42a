package policy

import (
	"bytes"
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/ward-project/ward/internal/fault"
)

// Replayer decides again about inputs as they were recorded, byte for byte,
// whichever point they are of. Not safe for concurrent use.
type Replayer struct {
	cfg     Config
	engines map[string]*Engine
}

// NewReplayer opens the policy that cfg names, without regard to cfg.Point. A
// policy that cannot be opened is an error now, not at the first input.
func NewReplayer(cfg Config) (*Replayer, error) {
	r := &Replayer{cfg: cfg, engines: map[string]*Engine{}}
	_, err := r.engine(PointRun)
	return r, err
}

func (r *Replayer) engine(point string) (*Engine, error) {
	if e := r.engines[point]; e != nil {
		return e, nil
	}
	cfg := r.cfg
	cfg.Point = point
	e, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	r.engines[point] = e
	return e, nil
}

// Decide answers about a recorded input. The same policy gives the very answer
// that was recorded. An input of another version, or of a point that this ward
// does not know, is fault.Invalid with rule policy.input-version or policy.input.
func (r *Replayer) Decide(ctx context.Context, input []byte) (Decision, error) {
	if len(input) > maxInput+maxPredicates {
		return Decision{}, invalidInput("%d bytes are more than %d", len(input), maxInput+maxPredicates)
	}
	// The reader that Decide uses, so that both see the same input in the same bytes.
	parsed, err := ast.ValueFromReader(bytes.NewReader(input))
	if err != nil {
		return Decision{}, invalidInput("%v", err)
	}
	obj, ok := parsed.(ast.Object)
	if !ok {
		return Decision{}, invalidInput("it is not an object")
	}
	version := obj.Get(ast.StringTerm("version"))
	if version == nil || version.Value.Compare(ast.Number(fmt.Sprint(InputVersion))) != 0 {
		return Decision{}, fault.New(fault.Invalid, "policy.input-version", fmt.Sprintf("policy input: its version is not %d", InputVersion), "use the version of ward that recorded it")
	}
	point, ok := ast.String(""), false
	if t := obj.Get(ast.StringTerm("point")); t != nil {
		point, ok = t.Value.(ast.String)
	}
	if _, known := decisionFiles[string(point)]; !ok || !known {
		return Decision{}, invalidInput("point %.40q is not one this version decides", string(point))
	}
	e, err := r.engine(string(point))
	if err != nil {
		return Decision{}, err
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, (&stop{context.Cause(ctx)}).fault()
	}
	return e.judge(ctx, input, parsed)
}

// Level and Revision are those of what decides at a point.
func (r *Replayer) Level(point string) (level, revision string, err error) {
	e, err := r.engine(point)
	if err != nil {
		return "", "", err
	}
	return e.level, e.revision, nil
}
