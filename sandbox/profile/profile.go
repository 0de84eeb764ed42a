// Package profile is the container's hardening as annotated data: which system
// calls, which capabilities by name, which paths of /proc and /sys, and for
// each entry who needs it or why it is kept away.
//
// It promises that an entry without a reason does not exist (a test checks)
// and that Digest changes with every change of meaning. It imports nothing of
// ours, applies nothing, and does not promise that a payload needing more than
// a web server, a database, a compiler or a language runtime runs.
package profile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
)

// Name is the name of Default.
const Name = "default"

// Action is what the kernel does with a matching call.
type Action string

// The actions a rule can have. What no rule names gets ENOSYS, so that
// programs probing for a newer call fall back to the older one.
const (
	Allow  Action = "allow"
	Refuse Action = "errno"
)

// Op compares one argument of a call.
type Op string

// The comparisons.
const (
	Equal        Op = "=="
	NotEqual     Op = "!="
	Greater      Op = ">"
	GreaterEqual Op = ">="
	Less         Op = "<"
	LessEqual    Op = "<="
	// MaskedEqual compares the argument's bits under Mask.
	MaskedEqual Op = "&=="
)

var ops = []Op{Equal, NotEqual, Greater, GreaterEqual, Less, LessEqual, MaskedEqual}

// Arg is a condition on argument number Index of a call.
type Arg struct {
	Index uint   `json:"index"`
	Op    Op     `json:"op"`
	Value uint64 `json:"value"`
	Mask  uint64 `json:"mask,omitempty"`
}

// Rule is one line of the filter: calls, an action, and who needs it.
type Rule struct {
	// Why names who needs the calls, or why they are refused.
	Why    string   `json:"-"`
	Names  []string `json:"names"`
	Action Action   `json:"action"`
	// Errno is what a refused call returns.
	Errno uint `json:"errno,omitempty"`
	// Quiet refusals are answered by the kernel alone and appear in no report:
	// for what every program tries and then does without.
	Quiet bool  `json:"quiet,omitempty"`
	Args  []Arg `json:"args,omitempty"`
}

// Profile is a whole filter. DefaultErrno is what calls no rule names return.
type Profile struct {
	Name         string `json:"name"`
	DefaultErrno uint   `json:"default_errno"`
	Rules        []Rule `json:"rules"`
}

// Linux error numbers, the same on every architecture ward runs on.
const (
	eperm           = 1
	enosys          = 38
	eprotonosupport = 93
	eopnotsupp      = 95
	eafnosupport    = 97
)

// Default returns the one profile there is. It is for the native architecture
// alone: a call through another one (int 0x80) kills the caller.
func Default() Profile {
	return Profile{Name: Name, DefaultErrno: enosys, Rules: slices.Concat(allowed(), refused, terminals)}
}

// Digest names the meaning of Default: two builds with the same digest let
// the same calls through.
func Digest() string { return digest() }

var digest = sync.OnceValue(func() string {
	b, err := json.Marshal(Default())
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
})
