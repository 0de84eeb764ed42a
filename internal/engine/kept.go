package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/verify"
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

// KeptBytes names bytes beside the log by their digest. They lie in one file of
// that digest, or, where Parts is not empty, in several: Rest is what is left
// without the parts, each of which goes in at its place.
type KeptBytes struct {
	Digest string     `json:"digest"`
	Size   int        `json:"size"`
	Rest   string     `json:"rest,omitempty"`
	Parts  []KeptPart `json:"parts,omitempty"`
}

// KeptPart is a file that many may share: a predicate is the same in every
// decision about its image.
type KeptPart struct {
	At     int    `json:"at"`
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

// minPart is how large a predicate is before it gets a file of its own.
const minPart = 4 << 10

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
	if in := d.Input(); len(in) > 0 && len(in) <= maxInline && !documented(in) {
		x.Input = in
	} else if len(in) > 0 {
		x.InputKept, errs[1] = keepInput(l, d, in)
	}
	return rawJSON(x), errors.Join(errs[:]...)
}

// documented says whether an input holds a document. Documents are whole files,
// with the values of environment variables that stand in them: records, which
// are exported, hold none.
func documented(in []byte) bool {
	var x struct {
		Document json.RawMessage `json:"document"`
	}
	return json.Unmarshal(in, &x) != nil || string(x.Document) != "null"
}

// keepInput keeps an input, large predicates by themselves.
func keepInput(l Layout, d policy.Decision, in []byte) (*KeptBytes, error) {
	var parts []KeptPart
	var rest []byte
	at := 0
	for _, s := range d.Predicates() {
		if s.Size < minPart {
			continue
		}
		if err := keepOnce(l, s.Digest, in[s.At:s.At+s.Size]); err != nil {
			return nil, err
		}
		rest = append(rest, in[at:s.At]...)
		at = s.At + s.Size
		parts = append(parts, KeptPart{s.At, s.Digest, s.Size})
	}
	if len(parts) == 0 {
		return keep(l, in)
	}
	k, err := keep(l, append(rest, in[at:]...))
	if err != nil {
		return nil, err
	}
	return &KeptBytes{Digest: d.InputDigest(), Size: len(in), Rest: k.Digest, Parts: parts}, nil
}

// keepOnce keeps what is not there whole already.
func keepOnce(l Layout, digest string, b []byte) error {
	if have, err := audit.Kept(l.Audit(), digest); err == nil && len(have) == len(b) {
		return nil
	}
	k, err := keep(l, b)
	if err == nil && k.Digest != digest {
		err = fault.New(fault.Internal, "audit.keep", "a predicate is not what its digest says", "")
	}
	return err
}

// assemble is what was kept in parts.
func (k KeptBytes) assemble(read func(digest string) ([]byte, error)) ([]byte, error) {
	rest, err := read(k.Rest)
	if err != nil {
		return nil, err
	}
	var b []byte
	from := 0
	for _, p := range k.Parts {
		next := p.At - len(b) // so much of the rest stands before it
		if next < 0 || next > len(rest)-from {
			return nil, fmt.Errorf("%w: its parts do not fit", ErrNotKept)
		}
		b = append(b, rest[from:from+next]...)
		from += next
		part, err := read(p.Digest)
		if err != nil {
			return nil, err
		}
		b = append(b, part...)
	}
	b = append(b, rest[from:]...)
	if sum := sha256.Sum256(b); "sha256:"+hex.EncodeToString(sum[:]) != k.Digest {
		return nil, fmt.Errorf("%w: its parts make something else", ErrNotKept)
	}
	return b, nil
}

// maxEvidence bounds evidence in a record. More of it lists what is stated
// without saying by whom; all of it is in the input of the decision.
const maxEvidence = 8 << 10

// RecordedEvidence is evidence for a record, which has a bound.
func RecordedEvidence(ev verify.Evidence) json.RawMessage {
	whole := rawJSON(ev)
	if len(whole) <= maxEvidence {
		return whole
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(whole, &m) != nil {
		return whole
	}
	as := ev.Attestations()
	short := make([]string, 0, len(as))
	for _, a := range as {
		short = append(short, a.Envelope)
	}
	m["attestations"], m["refused"] = rawJSON(short), rawJSON([]string{})
	return rawJSON(m)
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
