package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// Bounds on one evaluation. The shipped policy takes about a thousand steps
// and a millisecond.
const (
	maxTime = 2 * time.Second
	// grace is how long after maxTime an evaluation may take to notice. After
	// it the caller gets its answer, and the goroutine is left to itself.
	grace = 250 * time.Millisecond
	// maxSteps counts expressions evaluated, and elements of ranges made.
	maxSteps = 2_000_000
	// maxMemory bounds the heap's growth during one evaluation, in bytes. It is
	// the whole process's heap: other work counts too, on the safe side.
	maxMemory = 256 << 20
	// memoryEvery is how many steps lie between two looks at the heap.
	memoryEvery = 512
)

// budget stops an evaluation that costs too much. It stands in for OPA's
// cancellation flag, which the evaluator asks before every expression: that
// makes it a step counter too, which (unlike a clock) gives the same answer on
// a busy machine.
type budget struct {
	steps atomic.Int64
	base  uint64
	ended atomic.Pointer[stop]
	once  sync.Once
	late  chan struct{} // closed when waiting any longer is pointless
}

func newBudget() *budget { return &budget{base: heap(), late: make(chan struct{})} }

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
	} else if n%memoryEvery == 0 {
		if h := heap(); h > b.base && h-b.base > maxMemory {
			b.end(fmt.Errorf("more than %d MiB of memory", maxMemory>>20))
		}
	}
	return b.ended.Load() != nil
}

// end stops the evaluation; the first reason stays.
func (b *budget) end(why error) {
	b.ended.CompareAndSwap(nil, &stop{why})
	b.once.Do(func() { time.AfterFunc(grace, func() { close(b.late) }) })
}

func (b *budget) stopped() *stop { return b.ended.Load() }

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
