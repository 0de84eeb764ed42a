package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Seccomp is the system-call filter.
type Seccomp struct {
	// Profile is SeccompProfile, or SeccompCustom for one given by rules.
	Profile string `json:"profile"`
	// Digest is that profile's, so that gate and launcher mean the same one.
	Digest string `json:"digest"`

	// Errno and Rules are of a custom profile alone: what calls that no rule
	// names return, and the rules.
	Errno uint          `json:"errno,omitempty"`
	Rules []SeccompRule `json:"rules,omitempty"`
	// Beyond names, sorted, the calls with which the rules may allow more than
	// the default profile does, and which policy has let through.
	Beyond []string `json:"beyond,omitempty"`

	// PlainTCP refuses what would go around Landlock's rules for TCP; part of a
	// plan that has them, whatever the profile.
	PlainTCP bool `json:"plain_tcp,omitempty"`
}

// SeccompRule is one rule of a custom profile, in the form of sandbox/profile.
type SeccompRule struct {
	Names  []string     `json:"names"`
	Action string       `json:"action"`
	Errno  uint         `json:"errno,omitempty"`
	Args   []SeccompArg `json:"args,omitempty"`
}

// SeccompArg is a condition on one argument of a call.
type SeccompArg struct {
	Index uint   `json:"index"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
	Mask  uint64 `json:"mask,omitempty"`
}

// SeccompCustom is the name of a profile that came with the request.
const SeccompCustom = "custom"

// Bounds on a custom profile in a plan.
const (
	maxSeccompRules = 4096
	maxSeccompNames = 16384
)

// CustomDigest names the meaning of a custom profile: its rules, and the
// default profile that they are measured against.
func (s Seccomp) CustomDigest() string {
	b, err := json.Marshal(struct {
		Base  string
		Errno uint
		Rules []SeccompRule
	}{SeccompDigest, s.Errno, s.Rules})
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	return Digest(b)
}

// seccomp checks the form. That a custom profile allows no more than the
// default one and Beyond takes sandbox/profile to tell, and the launcher asks
// it (filterOf) before it makes the filter.
func (f Floor) seccomp(p Plan) error {
	s := p.Seccomp
	if s.Profile == SeccompCustom {
		return f.customSeccomp(s)
	}
	want, ok := f.profiles[s.Profile]
	switch {
	case !ok:
		return below("seccomp", fmt.Sprintf("seccomp profile %q is not known", s.Profile), "use "+SeccompProfile+", or a file with a profile of your own")
	case s.Digest != want:
		return below("seccomp", fmt.Sprintf("seccomp profile %q is another one than this build's", s.Profile),
			"install ward and ward-launch from the same build")
	case s.Errno != 0 || s.Rules != nil || s.Beyond != nil:
		return below("seccomp", fmt.Sprintf("seccomp profile %q has rules of its own", s.Profile), "")
	}
	return nil
}

func (f Floor) customSeccomp(s Seccomp) error {
	switch {
	case s.Digest != s.CustomDigest():
		return below("seccomp", "the seccomp profile is not the one its digest names", "")
	case len(s.Rules) > maxSeccompRules || len(s.Beyond) > maxSeccompRules:
		return below("size", fmt.Sprintf("more than %d seccomp rules", maxSeccompRules), "")
	case !slices.IsSorted(s.Beyond) || len(slices.Compact(slices.Clone(s.Beyond))) != len(s.Beyond):
		return below("seccomp", "the calls that the seccomp profile allows beyond the default are not a sorted list", "")
	}
	names := 0
	for _, r := range s.Rules {
		if names += len(r.Names); names > maxSeccompNames || len(r.Args) > 6 {
			return below("size", fmt.Sprintf("more than %d calls or 6 conditions in a seccomp rule", maxSeccompNames), "")
		}
	}
	return nil
}
