package export

import (
	"errors"
	"fmt"
	"time"
)

// Errors of this package; test with errors.Is. Damage to the log is the
// package audit's ErrDamaged.
var (
	// ErrConfig says that what was asked for makes no sense.
	ErrConfig = errors.New("export")
	// ErrLocked says that another exporter has the cursor.
	ErrLocked = errors.New("another exporter works with this cursor")
	// ErrCursor says that the cursor cannot be used.
	ErrCursor = errors.New("export cursor")
	// ErrRefused says that the receiver will not have it: sending again would
	// not help.
	ErrRefused = errors.New("refused by the receiver")
	// ErrUnavailable says that the receiver could not be reached, or did not
	// acknowledge, for as long as was to be waited.
	ErrUnavailable = errors.New("receiver unavailable")
)

// refused is an answer that stays the same however often it is asked for.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// later is an answer that says when to try again.
type later struct {
	error
	after time.Duration
}
