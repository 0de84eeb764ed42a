package fault

import (
	"encoding/json"
	"fmt"
)

// wire is the form of an Error between processes. The class travels by name:
// a number would change its meaning when the set grows.
type wire struct {
	Class  string `json:"class"`
	Rule   string `json:"rule,omitempty"`
	Cause  string `json:"cause"`
	Remedy string `json:"remedy,omitempty"`
}

// MarshalJSON writes the wire form. Err is left out.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{e.Class.Error(), e.Rule, e.Cause, e.Remedy})
}

// UnmarshalJSON reads the wire form. A class this build does not know is an
// error, not Internal: guessing would turn one refusal into another.
func (e *Error) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	for i, n := range names {
		if n == w.Class {
			*e = Error{Class: Class(i), Rule: w.Rule, Cause: w.Cause, Remedy: w.Remedy}
			return nil
		}
	}
	return fmt.Errorf("unknown refusal class %q", w.Class)
}
