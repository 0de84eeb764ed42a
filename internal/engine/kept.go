package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// Bounds on what goes into a record of a decision itself: below them a record
// holds all of it, with whatever else it says (arguments, labels and evidence
// are in the input too, so together they are at most as long again). What is
// larger lies beside the log, and the record names it by its digest.
const (
	maxInline = 16 << 10
	maxAnswer = 8 << 10
)

// Explanation is what a record says of a decision: the answer and the input it
// was made on, each as it is or by digest, so that the decision can be
// explained and made again from the log.
type Explanation struct {
	Answer json.RawMessage `json:"answer,omitempty"`
	Input  json.RawMessage `json:"input,omitempty"`
	// Obliged is what a first answer asked for: it was applied, and Answer and
	// Input are about what came of it.
	Obliged *policy.Obligations `json:"obliged,omitempty"`
	// AnswerKept and InputKept stand for what is too large for a record.
	AnswerKept *KeptBytes `json:"answer_kept,omitempty"`
	InputKept  *KeptBytes `json:"input_kept,omitempty"`
}

// KeptBytes names a file beside the log by the digest of its content.
type KeptBytes struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

// Explained is a decision for a record, with the input it was made on. What is
// too large for one is on disk when it returns. If it cannot be put there the
// error says so and the rest is returned all the same, for a refusal, which has
// to be recorded with what there is; nothing may run on it.
func Explained(l Layout, d policy.Decision) (json.RawMessage, error) {
	var x Explanation
	var errs [2]error
	if by := d.ObligedBy(); by.Any() {
		x.Obliged = &by
	}
	if answer := rawJSON(d); len(answer) <= maxAnswer {
		x.Answer = answer
	} else {
		x.AnswerKept, errs[0] = keep(l, answer)
	}
	if in := d.Input(); len(in) > 0 && len(in) <= maxInline {
		x.Input = in
	} else if len(in) > 0 {
		x.InputKept, errs[1] = keep(l, in)
	}
	return rawJSON(x), errors.Join(errs[:]...)
}

func keep(l Layout, b []byte) (*KeptBytes, error) {
	digest, err := audit.Keep(l.Audit(), b)
	if err != nil {
		return nil, fault.Wrap(fault.Unrecorded, "audit.keep", fmt.Errorf("keep what was decided on: %w", err),
			"nothing runs whose decision could not be explained later: free space for the audit log, or make it writable")
	}
	return &KeptBytes{Digest: digest, Size: len(b)}, nil
}

func (e *Engine) explained(d policy.Decision) (json.RawMessage, error) { return Explained(e.layout, d) }

// intend records an intent and the decision behind it.
func (e *Engine) intend(ctx context.Context, in audit.Intent, dec policy.Decision) (audit.Permit, error) {
	var err error
	if in.Decision, err = e.explained(dec); err != nil {
		return audit.Permit{}, err
	}
	in.Input = dec.InputDigest()
	return e.log.Intend(ctx, in)
}
