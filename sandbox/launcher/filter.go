package launcher

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// filterOf is the filter the plan describes. The floor has looked at its form;
// this matches the default's name and digest against the data itself, and
// proves anew that a custom one allows no more than the default and what the
// plan says that policy let through. Some calls no policy can let through.
func filterOf(want sandbox.Seccomp) (*profile.Filter, error) {
	p := profile.Default()
	if want.Profile != sandbox.SeccompCustom {
		if want.Profile != p.Name || want.Digest != profile.Digest() {
			return nil, refusedFilter(fmt.Sprintf("seccomp profile %q is not this launcher's", want.Profile))
		}
		f, err := p.Filter()
		return plainTCP(f, want), err
	}
	base, err := p.Filter()
	if err != nil {
		return nil, err
	}
	f, err := customProfile(want).Filter()
	if err != nil {
		return nil, refusedFilter("seccomp profile: " + err.Error())
	}
	if lacks := f.Lacks(); lacks != "" {
		return nil, refusedFilter("the seccomp profile does not allow " + lacks + ", without which no program starts")
	}
	never := profile.Never()
	for _, name := range f.Beyond(base) {
		if slices.Contains(never, name) {
			return nil, refusedFilter("the seccomp profile allows " + name + ", which no container may have")
		}
		if !slices.Contains(want.Beyond, name) {
			return nil, refusedFilter("the seccomp profile may allow more of " + name + " than policy let through")
		}
	}
	return plainTCP(f, want), nil
}

// plainTCP adds to f what goes with Landlock's rules for TCP, if want has it.
func plainTCP(f *profile.Filter, want sandbox.Seccomp) *profile.Filter {
	if f != nil && want.PlainTCP {
		f.Refuse(profile.AroundTCP())
	}
	return f
}

func refusedFilter(cause string) error {
	return fault.New(fault.Denied, "floor.seccomp", cause, "calls every profile must allow: "+strings.Join(profile.Requires(), ", "))
}

func customProfile(s sandbox.Seccomp) profile.Profile {
	p := profile.Profile{Name: profile.Custom, DefaultErrno: s.Errno}
	for _, r := range s.Rules {
		rule := profile.Rule{Names: r.Names, Action: profile.Action(r.Action), Errno: r.Errno}
		for _, a := range r.Args {
			rule.Args = append(rule.Args, profile.Arg{Index: a.Index, Op: profile.Op(a.Op), Value: a.Value, Mask: a.Mask})
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}
