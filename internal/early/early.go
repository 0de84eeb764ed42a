// Package early does what must happen before other packages are initialised.
// It imports next to nothing, and packages are initialised in the order of
// their dependencies, then of their paths; so it comes before cosign and OPA,
// which allocate almost three megabytes there. It promises only that: importing
// it sets the garbage collector's pace and does nothing else.
package early

import "runtime/debug"

// A command lives for some milliseconds and starts with a heap of a few
// megabytes: collecting at the usual pace would be a tenth of its cost. Set in
// main it came too late in one run of three, whose first collection had begun.
func init() { debug.SetGCPercent(800) }
