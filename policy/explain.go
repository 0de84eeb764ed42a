package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// Explanation is why an input is answered as it is, and the least that would
// have it answered otherwise. Everything in it was found by deciding again.
type Explanation struct {
	// Now is the answer of the policy that was asked.
	Now Answer `json:"now"`
	// Rules say where the rules behind its reasons are, and what they look at.
	Rules []RuleAt `json:"rules"`
	// Request is the least change of a denied request that is allowed; nil where
	// none of those that could be tried is. Minimal says that leaving out any
	// one of them was tried, and denied.
	Request []RequestChange `json:"request,omitempty"`
	// Remaining are the reasons that no change of the request takes away.
	Remaining []string `json:"remaining,omitempty"`
	// Grants is what would have to be added to the grants document instead,
	// which is looser: it holds for other requests too. GrantsFile is the file.
	Grants     json.RawMessage `json:"grants,omitempty"`
	GrantsFile string          `json:"grants_file,omitempty"`
	// Rests are the parts of the grants document without which an allowed
	// request is denied, and the level, if restricted would deny it.
	Rests []string `json:"rests,omitempty"`
	// Decisions is how many were made to find this out; Complete says that
	// nothing was left untried for want of time.
	Decisions int  `json:"decisions"`
	Complete  bool `json:"complete"`
}

// RequestChange is one thing to ask less of.
type RequestChange struct {
	// Do says it in the words of the command line.
	Do string `json:"do"`
	// Input is the member of the input, Was and Becomes its value.
	Input   string          `json:"input"`
	Was     json.RawMessage `json:"was"`
	Becomes json.RawMessage `json:"becomes"`
	// Rules are the codes that come back if this alone is not done.
	Rules []string `json:"rules"`
}

// Bounds on finding an explanation.
const (
	maxTries   = 3000
	maxExplain = 20 * time.Second
)

// explainer looks for the least change under one policy.
type explainer struct {
	r     *Replayer
	in    map[string]any
	moves []move
	tries int
	until time.Time
}

// errTries says that the search was ended.
var errTries = fault.New(fault.Unavailable, "policy.explain", "no more was tried: it takes too long", "")

// Explain says why the input is answered as it is by the policy that cfg names.
func Explain(ctx context.Context, cfg Config, input []byte) (Explanation, error) {
	r, err := NewReplayer(cfg)
	if err != nil {
		return Explanation{}, err
	}
	d, err := r.Decide(ctx, input)
	if err != nil {
		return Explanation{}, err
	}
	x := &explainer{r: r, until: time.Now().Add(maxExplain), tries: 1}
	dec := json.NewDecoder(bytes.NewReader(input))
	dec.UseNumber()
	if err := dec.Decode(&x.in); err != nil {
		return Explanation{}, invalidInput("%v", err)
	}
	out := Explanation{Now: d.Answer(), Complete: true}
	if d.Allowed() {
		out.Rests, err = x.rests(ctx, input)
	} else {
		err = x.denied(ctx, input, &out)
	}
	if err == errTries {
		out.Complete, err = false, nil
	}
	if err != nil {
		return out, err
	}
	out.Decisions = x.tries
	out.Rules, err = x.rules(out)
	return out, err
}

// decide answers about an input under a policy.
func (x *explainer) decide(ctx context.Context, r *Replayer, in map[string]any) (Decision, error) {
	if x.tries++; x.tries > maxTries || time.Now().After(x.until) {
		return Decision{}, errTries
	}
	b, err := json.Marshal(in)
	if err != nil {
		return Decision{}, invalidInput("%v", err)
	}
	return r.Decide(ctx, b)
}

// with is the input with the moves made that are on, each in its last way
// unless chosen says otherwise.
func (x *explainer) with(on []bool, chosen map[int]way) map[string]any {
	in := cloned(x.in)
	for i, m := range x.moves {
		if !on[i] {
			continue
		}
		w, ok := chosen[i]
		if !ok {
			w = m.ways[len(m.ways)-1]
		}
		w.apply(in)
	}
	return in
}

// denied finds the least change of a denied request, and the grants that
// would do instead.
func (x *explainer) denied(ctx context.Context, input []byte, out *Explanation) error {
	if x.moves = moves(x.in); len(x.moves) > maxMoves {
		x.moves = x.moves[:maxMoves]
		out.Complete = false
	}
	if err := x.grants(ctx, input, out); err != nil {
		return err
	}
	all := slices.Repeat([]bool{true}, len(x.moves))
	d, err := x.decide(ctx, x.r, x.with(all, nil))
	if err != nil {
		return err
	}
	if !d.Allowed() {
		out.Remaining = d.Answer().Codes()
		return nil
	}
	allowed := func(on []bool) (bool, error) {
		d, err := x.decide(ctx, x.r, x.with(on, nil))
		return d.Allowed(), err
	}
	on, err := fewest(len(x.moves), allowed)
	if err != nil {
		return err
	}
	if on, err = smaller(on, allowed); err != nil {
		return err
	}
	chosen, err := x.mildest(ctx, on)
	if err != nil {
		return err
	}
	return x.describe(ctx, on, chosen, out)
}

// mildest finds, for each move that is needed, the way that changes least: the
// first that is allowed, or the largest limit.
func (x *explainer) mildest(ctx context.Context, on []bool) (map[int]way, error) {
	chosen := map[int]way{}
	try := func(i int, w way) (bool, error) {
		before, had := chosen[i]
		chosen[i] = w
		d, err := x.decide(ctx, x.r, x.with(on, chosen))
		if err == nil && d.Allowed() {
			return true, nil
		}
		if delete(chosen, i); had {
			chosen[i] = before
		}
		return false, err
	}
	for i, m := range x.moves {
		if !on[i] {
			continue
		}
		for _, w := range m.ways[:len(m.ways)-1] {
			if ok, err := try(i, w); err != nil {
				return nil, err
			} else if ok {
				break
			}
		}
		if m.number == nil {
			continue
		}
		low, high := m.number.low, m.number.at
		if high <= 0 { // no limit at all: more than anybody has
			high = 1 << 50
		}
		for low < high-1 {
			mid := low + (high-low)/2
			ok, err := try(i, m.value(mid))
			if err != nil {
				return nil, err
			}
			if ok {
				low = mid
			} else {
				high = mid
			}
		}
	}
	return chosen, nil
}

// describe says what the change is, and which rules each part answers.
func (x *explainer) describe(ctx context.Context, on []bool, chosen map[int]way, out *Explanation) error {
	final := x.with(on, chosen)
	d, err := x.decide(ctx, x.r, final)
	if err != nil {
		return err
	}
	if !d.Allowed() { // never said without having been seen
		return fault.New(fault.Internal, "policy.explain", "the change that was found is denied", "this is a defect of ward")
	}
	for i, m := range x.moves {
		if !on[i] {
			continue
		}
		w, ok := chosen[i]
		if !ok {
			w = m.ways[len(m.ways)-1]
		}
		without := slices.Clone(on)
		without[i] = false
		d, err := x.decide(ctx, x.r, x.with(without, chosen))
		if err != nil {
			return err
		}
		alone := cloned(x.in)
		w.apply(alone)
		out.Request = append(out.Request, RequestChange{Do: w.do, Input: m.path, Was: member(x.in, m.path), Becomes: member(alone, m.path), Rules: d.Answer().Codes()})
	}
	return nil
}

// fewest finds as few of n things as are needed for ok to hold, which it does
// with all of them: none can be left out of the answer.
func fewest(n int, ok func(on []bool) (bool, error)) ([]bool, error) {
	on := slices.Repeat([]bool{true}, n)
	var without func(from, to int) error
	without = func(from, to int) error {
		if from == to {
			return nil
		}
		saved := slices.Clone(on)
		for i := from; i < to; i++ {
			on[i] = false
		}
		good, err := ok(on)
		if err != nil || good {
			return err
		}
		copy(on, saved)
		if to-from == 1 {
			return nil
		}
		mid := from + (to-from)/2
		if err := without(from, mid); err != nil {
			return err
		}
		return without(mid, to)
	}
	// Until nothing more goes: what one thing needed may have gone after it.
	for before := n + 1; count(on) < before; {
		before = count(on)
		if err := without(0, n); err != nil {
			return nil, err
		}
	}
	return on, nil
}

// maxSmaller bounds the tries at finding an answer of fewer parts.
const maxSmaller = 400

// smaller looks for an answer with fewer parts, all of each size in turn: one
// thing may answer two rules that two others answer too.
func smaller(found []bool, ok func(on []bool) (bool, error)) ([]bool, error) {
	tries := 0
	for size := 1; size < count(found); size++ {
		pick := make([]int, size)
		for i := range pick {
			pick[i] = i
		}
		for {
			if tries++; tries > maxSmaller {
				return found, nil
			}
			on := make([]bool, len(found))
			for _, i := range pick {
				on[i] = true
			}
			if good, err := ok(on); err != nil || good {
				return on, err
			}
			i := size - 1
			for i >= 0 && pick[i] == len(found)-size+i {
				i--
			}
			if i < 0 {
				break
			}
			for pick[i]++; i+1 < size; i++ {
				pick[i+1] = pick[i] + 1
			}
		}
	}
	return found, nil
}

func count(on []bool) (n int) {
	for _, o := range on {
		if o {
			n++
		}
	}
	return n
}

// maxShown bounds a value that is shown.
const maxShown = 512

// member is the value of a member of the input ("run.user.uid"), or a note of
// its size.
func member(in map[string]any, path string) json.RawMessage {
	b, err := json.Marshal(dig(in, splitPath(path)...))
	if err == nil && len(b) > maxShown {
		b, err = json.Marshal(fmt.Sprintf("(%d bytes)", len(b)))
	}
	if err != nil {
		return nil
	}
	return b
}
