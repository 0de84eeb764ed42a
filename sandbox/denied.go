package sandbox

import "time"

// DeniedSyscall is what the filter did not let a container do.
type DeniedSyscall struct {
	// Name is the kernel's name of the call; "syscall_N" for number N that has
	// none, "others" for all that came when the list was full.
	Name  string    `json:"name"`
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}
