package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// Replayed is a recorded decision and what a policy would decide now.
type Replayed struct {
	Recorded
	// Case is the name of a built-in case; then there is no record.
	Case     string
	Old, New policy.Answer
	Change   policy.Change
	// Why says why it could not be decided again, for the changes NotReplayable
	// and Undecided.
	Why string
}

// What can become of a recorded decision beside the changes of package policy.
const (
	// NotReplayable is one whose input was not kept, or is of another version.
	NotReplayable policy.Change = "not-replayable"
	// Undecided is one the other policy had to be stopped at: it would refuse.
	Undecided policy.Change = "undecided"
)

// ReplayTotals are the counts of a replay.
type ReplayTotals struct {
	Decisions int64                   `json:"decisions"`
	Changes   map[policy.Change]int64 `json:"changes"`
	// SamePolicy counts decisions that were made by the very policy that was
	// asked now; of these, Exact came out the same byte for byte. Anything
	// less says that the log, or ward, is not to be trusted.
	SamePolicy int64 `json:"same_policy"`
	Exact      int64 `json:"exact"`
}

// maxUndecided ends a replay: a policy that has to be stopped this often would
// let nothing in, and each time costs seconds.
const maxUndecided = 16

// Replay decides again about everything on record between two moments, and
// calls fn with each result as it comes.
func Replay(ctx context.Context, l Layout, since, until time.Time, r *policy.Replayer, fn func(Replayed) error) (ReplayTotals, error) {
	t := ReplayTotals{Changes: map[policy.Change]int64{}}
	err := Decisions(l, since, until, func(rec Recorded) error {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Unavailable, "policy.cancelled", err, "")
		}
		out, err := replay(ctx, rec, r)
		if err != nil {
			return err
		}
		t.Decisions++
		t.Changes[out.Change]++
		if out.New.Revision != "" && out.New.Revision == out.Old.Revision && out.New.Level == out.Old.Level {
			t.SamePolicy++
			if out.Old.Same(out.New) {
				t.Exact++
			}
		}
		if err := fn(out); err != nil {
			return err
		}
		if n := t.Changes[Undecided]; n >= maxUndecided {
			return fault.New(fault.Unavailable, "policy.cost", fmt.Sprintf("the policy had to be stopped at %d decisions, the last one record %d: %s", n, rec.Index, out.Why),
				"make the policy's rules cheaper")
		}
		return nil
	})
	return t, err
}

// replay decides again about one. Its error is one of the policy, not of the
// recorded input.
func replay(ctx context.Context, rec Recorded, r *policy.Replayer) (Replayed, error) {
	out := Replayed{Recorded: rec, Change: NotReplayable}
	var err error
	if out.Old, err = rec.Answer(); err != nil {
		out.Why = err.Error()
		return out, nil
	}
	in, err := rec.InputBytes()
	if err != nil {
		out.Why = err.Error()
		return out, nil
	}
	dec, err := r.Decide(ctx, in)
	var f *fault.Error
	switch {
	case err == nil:
	case errors.As(err, &f) && (f.Rule == "policy.input" || f.Rule == "policy.input-version"):
		out.Why = f.Cause
		return out, nil
	case errors.Is(err, fault.Unavailable) && ctx.Err() == nil:
		out.Change, out.Why = Undecided, err.Error()
		return out, nil
	default:
		return out, err
	}
	out.New = dec.Answer()
	out.Change = policy.Compare(out.Old, out.New)
	return out, nil
}

// Diff decides about everything on record between two moments, and about the
// built-in cases, under two policies, and calls fn with each result: cases
// first, then records. What is on record decides nothing here, only its input
// is used. A log that does not exist is one with nothing in it.
func Diff(ctx context.Context, l Layout, since, until time.Time, old, now *policy.Replayer, fn func(Replayed) error) (ReplayTotals, error) {
	t := ReplayTotals{Changes: map[policy.Change]int64{}}
	take := func(out Replayed, in []byte) error {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Unavailable, "policy.cancelled", err, "")
		}
		if err := out.both(ctx, in, old, now); err != nil {
			return err
		}
		t.Decisions++
		t.Changes[out.Change]++
		if err := fn(out); err != nil {
			return err
		}
		if n := t.Changes[Undecided]; n >= maxUndecided {
			return fault.New(fault.Unavailable, "policy.cost", fmt.Sprintf("a policy had to be stopped at %d decisions: %s", n, out.Why), "make its rules cheaper")
		}
		return nil
	}
	cases, err := policy.Corpus()
	if err != nil {
		return t, err
	}
	for _, c := range cases {
		if err := take(Replayed{Case: c.Name}, c.Input); err != nil {
			return t, err
		}
	}
	err = Decisions(l, since, until, func(rec Recorded) error {
		in, err := rec.InputBytes()
		if err != nil {
			t.Decisions++
			t.Changes[NotReplayable]++
			return fn(Replayed{Recorded: rec, Change: NotReplayable, Why: err.Error()})
		}
		return take(Replayed{Recorded: rec}, in)
	})
	if errors.Is(err, audit.ErrNoLog) {
		err = nil
	}
	return t, err
}

// both decides under two policies.
func (out *Replayed) both(ctx context.Context, in []byte, old, now *policy.Replayer) error {
	for _, side := range []struct {
		r    *policy.Replayer
		into *policy.Answer
	}{{old, &out.Old}, {now, &out.New}} {
		dec, err := side.r.Decide(ctx, in)
		var f *fault.Error
		switch {
		case err == nil:
			*side.into = dec.Answer()
		case errors.As(err, &f) && (f.Rule == "policy.input" || f.Rule == "policy.input-version"):
			out.Change, out.Why = NotReplayable, f.Cause
			return nil
		case errors.Is(err, fault.Unavailable) && ctx.Err() == nil:
			out.Change, out.Why = Undecided, err.Error()
			return nil
		default:
			return err
		}
	}
	out.Change = policy.Compare(out.Old, out.New)
	return nil
}
