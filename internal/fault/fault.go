// Package fault is the closed set of reasons ward gives for not doing what it
// was asked. Every error that reaches a user carries exactly one Class; the
// class alone decides the exit code and the HTTP status, never the text.
//
// It promises that a class survives wrapping (errors.Is) and a process
// boundary (the wire form of Error). It does not promise stable texts.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Class says what kind of refusal an error is. A Class is itself an error, so
// errors.Is(err, fault.Denied) works on anything that wraps one. The zero
// value is Internal: an error nobody classified is a defect, never a "maybe".
type Class uint8

// The closed set. Nothing outside this package adds to it.
const (
	// Internal is a defect or an unexpected failure of the machine.
	Internal Class = iota
	// Invalid is a request, file or plan that makes no sense.
	Invalid
	// NotFound is a thing that was named and does not exist.
	NotFound
	// Unverified is an image that nothing trusted vouches for.
	Unverified
	// Denied is a policy or the floor saying no.
	Denied
	// Unrecorded is an audit log that could not take the record.
	Unrecorded
	// Unavailable is an answer that could not be had: registry down, deadline
	// passed, helper missing. It is never the same as a "no".
	Unavailable
)

var names = [...]string{
	Internal:    "internal",
	Invalid:     "invalid",
	NotFound:    "not found",
	Unverified:  "unverified",
	Denied:      "denied",
	Unrecorded:  "unrecorded",
	Unavailable: "unavailable",
}

// Error implements error: it is the class's name in lower case.
func (c Class) Error() string {
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Error is a refusal as its reader needs it: what is wrong with which thing,
// the rule that says so, and what would mend it. All texts are single
// sentences in lower case without a full stop.
type Error struct {
	// Class is the kind of refusal.
	Class Class
	// Rule names what refused, as a stable dotted word: "trust.unsigned".
	Rule string
	// Cause says what is wrong with which thing.
	Cause string
	// Remedy is the command or change that would mend it; may be empty only
	// where nothing the user does can.
	Remedy string
	// Err is the underlying error, or nil. It is not sent over the wire.
	Err error
}

// New returns a refusal of class c.
func New(c Class, rule, cause, remedy string) *Error {
	return &Error{Class: c, Rule: rule, Cause: cause, Remedy: remedy}
}

// Wrap returns a refusal of class c caused by err. If err already carries a
// refusal, that one wins: the layer nearest the cause knows best.
func Wrap(c Class, rule string, err error, remedy string) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Class: e.Class, Rule: e.Rule, Cause: err.Error(), Remedy: e.Remedy, Err: err}
	}
	return &Error{Class: c, Rule: rule, Cause: err.Error(), Remedy: remedy, Err: err}
}

// Error implements error: the cause alone, so that wrapping stays readable.
func (e *Error) Error() string { return e.Cause }

// Unwrap makes errors.Is find both the class and the underlying error.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}

// maxReport bounds a text in Report: a cause may quote what was asked for, and
// somebody may have asked for a name of a megabyte.
const maxReport = 2 << 10

func short(s string) string {
	if len(s) <= maxReport {
		return s
	}
	return strings.ToValidUTF8(s[:maxReport], "") + fmt.Sprintf("… (%d bytes)", len(s))
}

// Report is the text for a person: cause, rule and remedy, one a line.
func (e *Error) Report() string {
	var b strings.Builder
	b.WriteString(short(e.Cause))
	if e.Rule != "" {
		b.WriteString("\n  rule:   " + e.Rule + " (" + e.Class.Error() + ")")
	}
	if e.Remedy != "" {
		b.WriteString("\n  remedy: " + short(e.Remedy))
	}
	return b.String()
}

// ClassOf returns the class of err; Internal when nothing classified it.
// A refusal's own class wins over classes buried deeper in its chain.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	var c Class
	if errors.As(err, &c) {
		return c
	}
	return Internal
}

// As returns the refusal in err's chain, or one of its class made from the
// text, so that a reporter always has cause, rule and remedy to print.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		// Keep the whole chain's text: the outer layers name the thing.
		return &Error{Class: e.Class, Rule: e.Rule, Cause: err.Error(), Remedy: e.Remedy, Err: err}
	}
	return &Error{Class: ClassOf(err), Cause: err.Error(), Err: err}
}
