package sandbox

import (
	"context"
	"errors"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// OpDenied asks which system calls were refused so far.
const OpDenied MonitorOp = "denied"

// DeniedSyscall is what the filter did not let a container do.
type DeniedSyscall struct {
	// Name is the kernel's name of the call; "syscall_N" for number N that has
	// none, "others" for all that came when the list was full.
	Name  string    `json:"name"`
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Denied is what was refused to the container so far, its processes that were
// started later included; nothing from a monitor of an older ward, which
// cannot say.
func (m *Monitor) Denied(ctx context.Context) ([]DeniedSyscall, error) {
	r, err := m.ask(ctx, MonitorRequest{Op: OpDenied})
	if f := (*fault.Error)(nil); errors.As(err, &f) && f.Rule == fault.As(UnknownOp(OpDenied)).Rule {
		return nil, nil
	}
	return r.Denied, err
}
