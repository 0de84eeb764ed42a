package engine

import (
	"encoding/json"

	"github.com/ward-project/ward/policy"
)

// What internal/engine/oci, a gate of its own, says in the engine's words.

// Explained is a decision with the input it was made on, for a record.
func Explained(d policy.Decision) json.RawMessage { return kept(d) }

// Denial turns a decision that does not allow into the refusal people read.
func Denial(d policy.Decision) error { return denial(d) }
