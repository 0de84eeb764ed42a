package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Reason is why a policy denies or warns.
type Reason struct {
	// Code is a stable dotted word: "restricted.capabilities".
	Code string `json:"code"`
	// Msg says what is wrong, naming the value; Fix what would mend it.
	Msg string `json:"msg"`
	Fix string `json:"fix"`
	// Evidence is what the rule looked at, as JSON, if it says so; a shipped
	// rule names the member of the input, its values, and what was expected.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	// Mode is Warn or Audit for a denial that was not enforced, else empty.
	Mode Mode `json:"mode,omitempty"`
}

// Obligations are what an allowed run must do besides. They only tighten;
// the zero value asks for nothing.
type Obligations struct {
	// DropCapabilities must not be held by the process ("CAP_CHOWN").
	DropCapabilities []string `json:"drop_capabilities,omitempty"`
	// ReadOnlyRoot demands a read-only root file system.
	ReadOnlyRoot bool `json:"read_only_root,omitempty"`
	// NoNewPrivs demands that no process can gain privileges.
	NoNewPrivs bool `json:"no_new_privs,omitempty"`
	// DenySyscalls are taken out of what the system-call filter allows.
	DenySyscalls []string `json:"deny_syscalls,omitempty"`
	// RequireGVisor demands a kernel of the container's own.
	RequireGVisor bool `json:"require_gvisor,omitempty"`
	// MaxMemory, MaxSwap (bytes), MaxPIDs and MaxCPUs bound the limits; nil or
	// zero is no bound. Only for swap is none a bound too.
	MaxMemory int64   `json:"max_memory,omitempty"`
	MaxSwap   *int64  `json:"max_swap,omitempty"`
	MaxPIDs   int64   `json:"max_pids,omitempty"`
	MaxCPUs   float64 `json:"max_cpus,omitempty"`
}

// Any reports whether anything is asked for.
func (o Obligations) Any() bool { return len(o.Lines()) > 0 }

// Decision is the answer of a policy to one Input. Only this package makes
// one that allows; the zero Decision denies.
type Decision struct {
	allowed     bool
	deny, warn  []Reason
	obligations Obligations
	level       string
	revision    string
	inputDigest string
	input       []byte
	spans       []Span
	obligedBy   Obligations
	bundles     []Bundle
}

// Allowed reports whether the run may go ahead, under the Obligations.
func (d Decision) Allowed() bool { return d.allowed }

// Reasons are why the run was denied: none exactly if it is allowed.
func (d Decision) Reasons() []Reason {
	if !d.allowed && len(d.deny) == 0 {
		return []Reason{{Code: "policy.undecided", Msg: "no policy has decided about this run"}}
	}
	return slices.Clone(d.deny)
}

// Warnings are what the policy wants said without denying.
func (d Decision) Warnings() []Reason { return slices.Clone(d.warn) }

// Obligations are what an allowed run must do besides.
func (d Decision) Obligations() Obligations {
	o := d.obligations
	o.DropCapabilities, o.DenySyscalls = slices.Clone(o.DropCapabilities), slices.Clone(o.DenySyscalls)
	return o
}

// Obliged is the same decision, marked as one about a run that had by applied
// to it. The mark is for records; it changes nothing.
func (d Decision) Obliged(by Obligations) Decision {
	d.obligedBy = by
	return d
}

// ObligedBy are the obligations of a first answer that were met in what this
// one is about.
func (d Decision) ObligedBy() Obligations { return d.obligedBy }

// Level is the shipped policy that decided: "restricted", "baseline", "privileged", or
// "custom" where a decision.rego of the policy directory replaced them.
func (d Decision) Level() string { return d.level }

// Revision is the digest ("sha256:…") of every policy source that took part.
func (d Decision) Revision() string { return d.revision }

// Bundles are the signed bundles that took part, by name.
func (d Decision) Bundles() []Bundle { return slices.Clone(d.bundles) }

// InputDigest is the digest ("sha256:…") of the exact input decided about.
func (d Decision) InputDigest() string { return d.inputDigest }

// Input is the exact JSON decided about, as InputDigest was taken of it.
func (d Decision) Input() []byte { return slices.Clone(d.input) }

// Predicates says where in Input predicates stand, in order. They may be large
// and the same in many inputs.
func (d Decision) Predicates() []Span { return slices.Clone(d.spans) }

// MarshalJSON writes the decision for records and machines; docs/policy.md
// documents the form. There is no way back: a decision is made, never read.
func (d Decision) MarshalJSON() ([]byte, error) {
	list := func(r []Reason) []Reason {
		if r == nil {
			return []Reason{}
		}
		return r
	}
	return json.Marshal(struct {
		Allow       bool        `json:"allow"`
		Deny        []Reason    `json:"deny"`
		Warn        []Reason    `json:"warn"`
		Obligations Obligations `json:"obligations"`
		Level       string      `json:"level"`
		Revision    string      `json:"revision"`
		InputDigest string      `json:"input_digest"`
		Bundles     []Bundle    `json:"bundles,omitempty"`
	}{d.allowed, list(d.Reasons()), list(d.warn), d.obligations, d.level, d.revision, d.inputDigest, d.bundles})
}

// textReasons is how many reasons fit on one screen.
const textReasons = 8

// WriteText writes the decision for a person, on one screen: the verdict, then
// each reason with its code, message and fix. It holds no control characters of the
// image's or the user's making.
func (d Decision) WriteText(w io.Writer) error {
	var b strings.Builder
	verdict := "denied"
	if d.allowed {
		verdict = "allowed"
	}
	fmt.Fprintf(&b, "%s by policy %s (revision %s)\n", verdict, orNone(d.level), short(d.revision))
	left := textReasons
	section := func(kind string, rs []Reason) {
		for i, r := range rs {
			if left--; left < 0 {
				fmt.Fprintf(&b, "\n  and %d more to %s (the JSON form has all)\n", len(rs)-i, kind)
				return
			}
			note := ""
			if r.Mode != "" {
				note = " (denied, but not enforced)"
			}
			fmt.Fprintf(&b, "\n  %s %s%s\n    %s\n", kind, r.Code, note, r.Msg)
			if r.Fix != "" {
				fmt.Fprintf(&b, "    fix: %s\n", r.Fix)
			}
		}
	}
	if !d.allowed {
		section("deny", d.Reasons())
	}
	section("warn", slices.DeleteFunc(d.Warnings(), func(r Reason) bool { return r.Mode == Audit }))
	if lines := d.obligations.Lines(); d.allowed && len(lines) > 0 {
		fmt.Fprintf(&b, "\n  obligations\n    %s\n", strings.Join(lines, "\n    "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Lines are what is asked for, each for a person to read.
func (o Obligations) Lines() []string {
	var l []string
	if len(o.DropCapabilities) > 0 {
		l = append(l, "drop capabilities "+strings.Join(o.DropCapabilities, ", "))
	}
	if o.ReadOnlyRoot {
		l = append(l, "read-only root file system")
	}
	if o.NoNewPrivs {
		l = append(l, "no new privileges")
	}
	if len(o.DenySyscalls) > 0 {
		l = append(l, "refuse system calls "+strings.Join(o.DenySyscalls, ", "))
	}
	if o.RequireGVisor {
		l = append(l, "run under gVisor")
	}
	if o.MaxSwap != nil {
		l = append(l, "swap at most "+strconv.FormatInt(*o.MaxSwap, 10)+" bytes")
	}
	if o.MaxMemory > 0 {
		l = append(l, "memory at most "+strconv.FormatInt(o.MaxMemory, 10)+" bytes")
	}
	if o.MaxPIDs > 0 {
		l = append(l, "at most "+strconv.FormatInt(o.MaxPIDs, 10)+" processes")
	}
	if o.MaxCPUs > 0 {
		l = append(l, "cpus at most "+strconv.FormatFloat(o.MaxCPUs, 'g', -1, 64))
	}
	return l
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// short is the first 12 digits of a digest: enough to compare by eye.
func short(digest string) string {
	s := strings.TrimPrefix(digest, "sha256:")
	return orNone(s[:min(12, len(s))])
}

func digestOf(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}
