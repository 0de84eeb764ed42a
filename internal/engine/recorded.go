package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// Recorded is a decision as the audit log has it.
type Recorded struct {
	Index int64
	Time  time.Time
	Type  audit.Type
	// Run is the run it is about; Container, Name and Image what the record says.
	Run, Container, Name string
	Image                audit.Image
	Args                 []string
	// Point is the gate's entry. Stage, Rule, Cause and Remedy are a refusal's:
	// what was let through by policy may have been refused by a later step.
	Point, Stage, Rule, Cause, Remedy string
	Actor                             audit.Actor
	// Input is the digest of what was decided on.
	Input string

	layout  Layout
	decided Explanation
}

// ErrNotKept says that a decision's input, or its answer, is not there any
// more or is not what the log says it was.
var ErrNotKept = errors.New("not kept")

// Decisions calls fn for each decision on record between two moments, oldest
// first, as the log is read: nothing of it is held in memory. What the log does
// not bear out (see audit.Read) ends it.
func Decisions(l Layout, since, until time.Time, fn func(Recorded) error) error {
	return audit.Read(l.Audit(), 0, func(e audit.Entry) error {
		// Most records are about something else; reading those would cost more.
		if e.Time.Before(since) || e.Time.After(until) || !bytes.Contains(e.Data, []byte(`"input":"sha256:`)) {
			return nil
		}
		r, ok := recorded(l, e)
		if !ok || r.Input == "" {
			return nil
		}
		return fn(r)
	})
}

// FindDecision returns the newest decision about what ref names: the index of
// a record, a run's id, a container's name or id, or the beginning of an id, or
// an image's full name. A
// refusal that came before policy was asked is one too, without Input. Others
// is how many more there are.
func FindDecision(l Layout, ref string) (found Recorded, others int, err error) {
	index, nerr := strconv.ParseInt(ref, 10, 64)
	isIndex := nerr == nil && len(ref) < 12
	n := 0
	err = audit.Read(l.Audit(), 0, func(e audit.Entry) error {
		if isIndex && e.Index != index || !bytes.Contains(e.Data, []byte(`"input":"sha256:`)) && !bytes.Contains(e.Data, []byte(`"stage":"`)) {
			return nil
		}
		r, ok := recorded(l, e)
		if !ok || r.Input == "" && r.Stage == "" || !isIndex && !r.named(ref) {
			return nil
		}
		found, n = r, n+1
		return nil
	})
	if err == nil && n == 0 {
		err = fault.New(fault.NotFound, "audit.decision", fmt.Sprintf("the log has no decision about %.128q", ref), "list what was refused: ward audit log --type run.denied; what ran: ward audit log --type run.intent")
	}
	return found, max(n-1, 0), err
}

func (r Recorded) named(ref string) bool {
	begins := func(id string) bool { return len(ref) >= 4 && strings.HasPrefix(id, ref) }
	return ref != "" && (r.Name == ref || r.Image.Reference == ref || begins(r.Run) || begins(r.Container))
}

// recorded reads the decision of one record, if it has one.
func recorded(l Layout, e audit.Entry) (Recorded, bool) {
	var d struct {
		Point, Stage, Rule, Cause, Remedy, Container, Name, Input string
		// Reference is an image record's, Image another's.
		Reference string
		Image     audit.Image
		Args      []string
		Decision  Explanation
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return Recorded{}, false
	}
	if d.Point == "" {
		d.Point = pointOf[e.Type]
	}
	if d.Image.Reference == "" {
		d.Image.Reference = d.Reference
	}
	return Recorded{
		Index: e.Index, Time: e.Time, Type: e.Type, Run: e.Run, Container: d.Container, Name: d.Name, Image: d.Image, Args: d.Args,
		Point: d.Point, Stage: d.Stage, Rule: d.Rule, Cause: d.Cause, Remedy: d.Remedy, Actor: e.Actor, Input: d.Input, layout: l, decided: d.Decision,
	}, true
}

// pointOf are the points of records that do not name theirs.
var pointOf = map[audit.Type]string{
	audit.ContainerCreate: policy.PointRun, audit.ContainerCopy: policy.PointCp, audit.ContainerAttach: policy.PointAttach, audit.ContainerUpdate: policy.PointUpdate, audit.ImageFetch: policy.PointPull,
	audit.RunStart: policy.PointOCI, // of ward-oci alone is it a request
}

// Answer is what was decided.
func (r Recorded) Answer() (policy.Answer, error) {
	b, err := r.bytes(r.decided.Answer, r.decided.AnswerKept, "")
	if err != nil {
		return policy.Answer{}, fmt.Errorf("the answer was %w", err)
	}
	a, err := policy.ReadAnswer(b)
	if err == nil && a.InputDigest != r.Input {
		err = fmt.Errorf("the answer was %w: it is about another input", ErrNotKept)
	}
	return a, err
}

// InputBytes is what was decided on, exactly; its digest has been checked.
func (r Recorded) InputBytes() ([]byte, error) {
	b, err := r.bytes(r.decided.Input, r.decided.InputKept, r.Input)
	if err != nil {
		return nil, fmt.Errorf("its input was %w", err)
	}
	return b, nil
}

// bytes is what a record has of something itself, or names by digest.
func (r Recorded) bytes(inline json.RawMessage, kept *KeptBytes, digest string) ([]byte, error) {
	if kept != nil && len(inline) == 0 {
		if digest != "" && kept.Digest != digest {
			return nil, fmt.Errorf("%w: the record names two digests", ErrNotKept)
		}
		read := func(digest string) ([]byte, error) { return audit.Kept(r.layout.Audit(), digest) }
		b, err := []byte(nil), error(nil)
		if len(kept.Parts) > 0 {
			b, err = kept.assemble(read)
		} else {
			b, err = read(kept.Digest)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotKept
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotKept, err)
		}
		return b, nil
	}
	if len(inline) == 0 {
		return nil, ErrNotKept
	}
	if sum := sha256.Sum256(inline); digest != "" && "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: the record holds another", ErrNotKept)
	}
	return inline, nil
}
