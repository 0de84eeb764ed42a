package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Answer is what a decision said, as it was written down: to be shown and
// compared. It is no Decision, and nothing runs on one.
type Answer struct {
	Allow       bool        `json:"allow"`
	Deny        []Reason    `json:"deny"`
	Warn        []Reason    `json:"warn"`
	Obligations Obligations `json:"obligations"`
	Level       string      `json:"level"`
	Revision    string      `json:"revision"`
	InputDigest string      `json:"input_digest"`
	Bundles     []Bundle    `json:"bundles,omitempty"`

	text []byte
}

// ReadAnswer reads what Decision.MarshalJSON wrote, now or in an earlier
// version: members it does not know are left alone.
func ReadAnswer(b []byte) (Answer, error) {
	a := Answer{text: slices.Clone(b)}
	if err := json.Unmarshal(b, &a); err != nil {
		return Answer{}, fmt.Errorf("a recorded decision cannot be read: %w", err)
	}
	return a, nil
}

// Answer is what the decision said.
func (d Decision) Answer() Answer {
	b, err := json.Marshal(d)
	if err == nil {
		if a, err := ReadAnswer(b); err == nil {
			return a
		}
	}
	return Answer{} // which denies; a decision always has its text
}

// Same reports whether two answers are the same, byte for byte.
func (a Answer) Same(b Answer) bool { return len(a.text) > 0 && bytes.Equal(a.text, b.text) }

// Codes are the codes of the reasons that deny, each once, in order.
func (a Answer) Codes() []string {
	var out []string
	for _, r := range a.Deny {
		out = append(out, r.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Change is how two answers about one input differ.
type Change string

// The changes, from what matters most.
const (
	NewlyDenied  Change = "newly-denied"
	NewlyAllowed Change = "newly-allowed"
	// OtherReasons is the same verdict with other reasons, warnings or obligations.
	OtherReasons Change = "other-reasons"
	Unchanged    Change = "unchanged"
)

// Compare says what becomes of an input that was answered with old and is now
// answered with now. Fixes do not count: they name the policy's own files.
func Compare(old, now Answer) Change {
	switch {
	case old.Allow && !now.Allow:
		return NewlyDenied
	case !old.Allow && now.Allow:
		return NewlyAllowed
	case !reflect.DeepEqual(texts(old.Deny), texts(now.Deny)), !reflect.DeepEqual(texts(old.Warn), texts(now.Warn)),
		!reflect.DeepEqual(old.Obligations.Lines(), now.Obligations.Lines()):
		return OtherReasons
	}
	return Unchanged
}

func texts(rs []Reason) []string {
	var out []string
	for _, r := range rs {
		out = append(out, strings.Join([]string{r.Code, r.Msg}, "\x00"))
	}
	slices.Sort(out)
	return out
}
