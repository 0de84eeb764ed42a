package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/ward-project/ward/internal/fault"
)

// Bounds on one evaluation. The shipped policy takes a few hundred steps and
// about a millisecond.
const (
	maxTime = 2 * time.Second
	// grace is how long a stopped evaluation may take to notice. After it the
	// caller gets its answer, and the goroutine is left to itself.
	grace = 250 * time.Millisecond
	// maxSteps counts expressions evaluated, elements of ranges made, and
	// pieces written into strings.
	maxSteps = 1_000_000
	// maxMemory bounds the heap's growth during one evaluation, in bytes. It is
	// the whole process's heap: other work counts too, on the safe side.
	maxMemory = 256 << 20
	// The heap is looked at every so many steps and every so often: within one
	// built-in call there are no steps.
	lookSteps = 512
	lookTime  = 20 * time.Millisecond
	// maxString bounds a string that is made in one piece, maxWritten the
	// values in one that is written out as text.
	maxString  = 16 << 20
	maxWritten = 1_000_000
)

// budget stops an evaluation that costs too much. It stands in for OPA's
// cancellation flag, which the evaluator asks before every expression: that
// makes it a step counter too, which (unlike a clock) gives the same answer on
// a busy machine.
type budget struct {
	steps atomic.Int64
	base  atomic.Uint64
	ended atomic.Pointer[stop]
	once  sync.Once
	late  chan struct{} // closed when waiting any longer is pointless
	watch *time.Timer
}

// newBudget starts the clocks; close stops them.
func newBudget() *budget {
	b := &budget{late: make(chan struct{})}
	b.watch = time.AfterFunc(time.Hour, func() {
		if b.look(); b.ended.Load() == nil {
			b.watch.Reset(lookTime)
		}
	})
	b.watch.Reset(lookTime) // only now: the function reads b.watch
	return b
}

func (b *budget) close() { b.watch.Stop(); b.ended.CompareAndSwap(nil, &stop{errDone}) }

// Cancel implements topdown.Cancel.
func (b *budget) Cancel() { b.end(context.Canceled) }

// Cancelled implements topdown.Cancel: one step.
func (b *budget) Cancelled() bool {
	if b.ended.Load() != nil {
		return true
	}
	n := b.steps.Add(1)
	if n > maxSteps {
		b.end(fmt.Errorf("more than %d steps", maxSteps))
	} else if n%lookSteps == 0 {
		b.look()
	}
	return b.ended.Load() != nil
}

// look measures the heap against what it was at the first look; most
// evaluations end before that.
func (b *budget) look() {
	h := heap()
	if b.base.CompareAndSwap(0, h) {
		return
	}
	if base := b.base.Load(); h > base && h-base > maxMemory {
		b.end(fmt.Errorf("more than %d MiB of memory", maxMemory>>20))
	}
}

// end stops the evaluation; the first reason stays.
func (b *budget) end(why error) {
	if b.ended.CompareAndSwap(nil, &stop{why}) {
		b.once.Do(func() { time.AfterFunc(grace, func() { close(b.late) }) })
	}
}

func (b *budget) stopped() *stop { return b.ended.Load() }

var errDone = errors.New("the evaluation is over")

// The evaluator asks for cancellation between calls of built-ins, and some
// built-ins within; these would not come to an end by themselves.
func init() {
	// concat allocates its whole result before it writes any of it: a separator
	// of megabytes between a million strings would kill the process.
	guard(ast.Concat.Name, func(args []*ast.Term) error {
		sep, _ := args[0].Value.(ast.String)
		n := 0
		switch l := args[1].Value.(type) {
		case *ast.Array:
			n = l.Len()
		case ast.Set:
			n = l.Len()
		}
		if len(sep) > 0 && n > maxString/len(sep) {
			return fmt.Errorf("a string of more than %d bytes", maxString)
		}
		return nil
	})
	// These write out values whose shared parts may multiply.
	for _, b := range []*ast.Builtin{ast.JSONMarshal, ast.JSONMarshalWithOptions, ast.YAMLMarshal, ast.Sprintf, ast.InternalTemplateString} {
		guard(b.Name, func(args []*ast.Term) error {
			left := maxWritten
			for _, a := range args {
				if !small(a, &left) {
					return fmt.Errorf("more than %d values to write out", maxWritten)
				}
			}
			return nil
		})
	}
}

// guard puts a check before a built-in; what it refuses stops the evaluation.
func guard(name string, check func([]*ast.Term) error) {
	builtin := topdown.GetBuiltin(name)
	topdown.RegisterBuiltinFunc(name, func(bctx topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		if err := check(args); err != nil {
			return topdown.Halt{Err: &stop{err}}
		}
		return builtin(bctx, args, iter)
	})
}

// stop says that an evaluation was ended before it was done.
type stop struct{ why error }

func (s *stop) Error() string { return "evaluation stopped: " + s.why.Error() }

func (s *stop) fault() error {
	rule, cause := "policy.cost", "the policy was stopped: it took "+s.why.Error()
	switch {
	case errors.Is(s.why, context.DeadlineExceeded):
		rule, cause = "policy.timeout", fmt.Sprintf("the policy was stopped: it had not decided after %v", maxTime)
	case errors.Is(s.why, context.Canceled):
		rule, cause = "policy.cancelled", "the decision was called off before it was made"
	}
	return &fault.Error{Class: fault.Unavailable, Rule: rule, Cause: cause, Remedy: "make the policy's rules cheaper: ward policy test times them", Err: s.why}
}

// heap is the size of all objects on the Go heap, in bytes.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
