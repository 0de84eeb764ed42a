package engine

import "github.com/ward-project/ward/policy"

// What internal/engine/oci, a gate of its own, says in the engine's words.

// Denial turns a decision that does not allow into the refusal people read.
func Denial(d policy.Decision) error { return denial(d) }
