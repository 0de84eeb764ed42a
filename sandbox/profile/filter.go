package profile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// maxArgs is how many arguments a system call has.
const maxArgs = 6

// Verdict is a filter's answer to one call.
type Verdict struct {
	Allow bool
	// Errno is what a call that is not allowed returns.
	Errno uint
	// Quiet says that the kernel answers it by itself, unreported.
	Quiet bool
}

// Filter answers calls by number. It is the one meaning of a Profile: both the
// kernel's program and the monitor's answers are made from it.
//
// Where several rules match a call, a refusal wins over an allowance, whatever
// their order.
type Filter struct {
	other Verdict
	calls map[int][]Rule // refusals first
}

// Filter sorts the rules by call. Names this architecture does not have are
// left out, as no call can match them; anything else that is not understood
// is an error.
func (p Profile) Filter() (*Filter, error) {
	if p.DefaultErrno == 0 || p.DefaultErrno > maxErrno {
		return nil, fmt.Errorf("default error number %d is not one", p.DefaultErrno)
	}
	f := &Filter{other: Verdict{Errno: p.DefaultErrno}, calls: make(map[int][]Rule, 512)}
	for _, r := range p.Rules {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%v: %w", r.Names, err)
		}
		for _, name := range r.Names {
			if nr, ok := CallNumber(name); ok {
				f.calls[nr] = append(f.calls[nr], r)
			}
		}
	}
	// Any other error number, and libc has no threads: it falls back to clone
	// only where clone3 is not there.
	if nr, ok := CallNumber("clone3"); ok && f.calls[nr] == nil {
		f.calls[nr] = []Rule{{Names: []string{"clone3"}, Action: Refuse, Errno: enosys, Quiet: true}}
	}
	// A profile from a file says of ioctl what everybody's says, all of it.
	if nr, ok := CallNumber("ioctl"); ok && p.Name != Name && f.calls[nr] != nil {
		f.calls[nr] = append(f.calls[nr], terminals...)
	}
	for _, rules := range f.calls {
		refusalsFirst(rules)
	}
	return f, nil
}

func refusalsFirst(rules []Rule) {
	if len(rules) > 1 {
		slices.SortStableFunc(rules, func(a, b Rule) int { return cmp.Compare(b.Action, a.Action) }) // errno before allow
	}
}

// Refuse adds rules of this package's own that refuse, before all others.
func (f *Filter) Refuse(rules []Rule) {
	for _, r := range rules {
		for _, name := range r.Names {
			nr, ok := CallNumber(name)
			if !ok || f.calls[nr] == nil {
				continue // what no rule names is refused already
			}
			f.calls[nr] = append(f.calls[nr], r)
			refusalsFirst(f.calls[nr])
		}
	}
}

// maxErrno is the kernel's MAX_ERRNO.
const maxErrno = 4095

func (r Rule) check() error {
	switch {
	case r.Action == Allow && (r.Errno != 0 || r.Quiet):
		return errors.New("an allowance has no error number")
	case r.Action == Refuse && (r.Errno == 0 || r.Errno > maxErrno):
		return fmt.Errorf("error number %d is not one", r.Errno)
	case r.Action != Allow && r.Action != Refuse:
		return fmt.Errorf("action %q is not known", string(r.Action))
	}
	for _, a := range r.Args {
		if a.Index >= maxArgs || !slices.Contains(ops, a.Op) || (a.Mask != 0) != (a.Op == MaskedEqual) {
			return fmt.Errorf("condition on argument %d is not one", a.Index)
		}
	}
	return nil
}

// Answer is what the filter says to call nr with args.
func (f *Filter) Answer(nr int, args [maxArgs]uint64) Verdict {
	for _, r := range f.calls[nr] {
		if !r.matches(args) {
			continue
		}
		if r.Action == Allow {
			return Verdict{Allow: true}
		}
		return Verdict{Errno: r.Errno, Quiet: r.Quiet}
	}
	return f.other
}

func (r Rule) matches(args [maxArgs]uint64) bool {
	for _, a := range r.Args {
		if !a.holds(args[a.Index]) {
			return false
		}
	}
	return true
}

func (a Arg) holds(v uint64) bool {
	switch a.Op {
	case Equal:
		return v == a.Value
	case NotEqual:
		return v != a.Value
	case Greater:
		return v > a.Value
	case GreaterEqual:
		return v >= a.Value
	case Less:
		return v < a.Value
	case LessEqual:
		return v <= a.Value
	case MaskedEqual:
		return v&a.Mask == a.Value
	}
	return false
}
