package launcher

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapTimeout is how long the monitor waits for somebody else's parent to take
// a child's exit status, after which the kernel shows it to holders of a pidfd.
const reapTimeout = 5 * time.Second

// pidfdInfo is the kernel's struct pidfd_info, in its first size.
type pidfdInfo struct {
	Mask     uint64
	CgroupID uint64
	PID, TGID, PPID,
	RUID, RGID, EUID, EGID, SUID, SGID, FSUID, FSGID uint32
	ExitCode int32
}

const (
	// pidfdGetInfo is PIDFD_GET_INFO, _IOWR(0xFF, 11, struct pidfd_info).
	pidfdGetInfo  = 3<<30 | 64<<16 | 0xFF<<8 | 11
	pidfdInfoExit = 1 << 3
)

var _ [64]byte = [unsafe.Sizeof(pidfdInfo{})]byte{}

// exitStatus returns the exit status of a process that has ended and is not a
// child of this one. Kernels before 6.15 do not show it, and none does before
// the parent has waited; it is then not known.
func exitStatus(pidfd int) (unix.WaitStatus, bool) {
	// POLLHUP comes when the parent has waited.
	if err := poll(pidfd, 0, reapTimeout); err != nil {
		return 0, false
	}
	info := pidfdInfo{Mask: pidfdInfoExit}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return 0, false
	}
	return unix.WaitStatus(info.ExitCode), info.Mask&pidfdInfoExit != 0
}
