package sandbox

import "slices"

// What a plan gets when the request says nothing. The engine copies these
// into the plan: a plan itself has no defaults.
const (
	// IDRange is the size of every container's id range, and the only size
	// the floor lets through.
	IDRange = 65536
	// MinIDBase is the lowest base of a range: below it are the host's users.
	MinIDBase = 65536

	// DefaultMemory bytes, DefaultPIDs processes, DefaultCPUQuota of every
	// DefaultCPUPeriod microseconds (two processors).
	DefaultMemory    int64  = 512 << 20
	DefaultPIDs      int64  = 512
	DefaultCPUQuota  int64  = 200_000
	DefaultCPUPeriod uint64 = 100_000

	// DefaultShm is the size of /dev/shm, in bytes; it counts as memory.
	DefaultShm int64 = 64 << 20

	// DefaultOutput is how much output of a run is kept, in bytes: a payload
	// that writes without end must not fill the disk the audit log is on.
	DefaultOutput int64 = 1 << 30

	// DefaultNoFile is the soft and hard limit on open files.
	DefaultNoFile = 4096
	// DefaultCore keeps a crashing payload from writing its memory to disk. One
	// byte and not zero: where the kernel's core_pattern is a program (which
	// then runs as the host's root, on what the payload has prepared), it does
	// not heed a limit of zero, but takes one byte for "not this one".
	DefaultCore = 1

	// TmpfsSize bounds the /tmp and /run of a read-only root, in bytes.
	TmpfsSize int64 = 64 << 20

	// SeccompProfile and SeccompDigest name the one system-call filter this
	// build accepts. The digest is written out here, not computed: a change
	// of the filter is a change of the floor and takes two edits.
	SeccompProfile = "default"
	SeccompDigest  = "sha256:ebcd33b63a73c5498d0537beba58301e10f5d8353cd53a7326cbc195ad65a1ae"
)

// DefaultRlimits returns the resource limits of a plan whose request sets none.
func DefaultRlimits() []Rlimit {
	return []Rlimit{
		{Type: "RLIMIT_CORE", Soft: DefaultCore, Hard: DefaultCore},
		{Type: "RLIMIT_NOFILE", Soft: DefaultNoFile, Hard: DefaultNoFile},
	}
}

// DefaultLimits returns the cgroup limits of a plan whose request sets none.
func DefaultLimits() Limits {
	return Limits{Memory: DefaultMemory, PIDs: DefaultPIDs, CPUQuota: DefaultCPUQuota, CPUPeriod: DefaultCPUPeriod, Shm: DefaultShm, Output: DefaultOutput}
}

// DefaultSeccomp returns the filter every plan must carry.
func DefaultSeccomp() Seccomp { return Seccomp{Profile: SeccompProfile, Digest: SeccompDigest} }

// MaskedPaths returns the paths every plan must hide; sandbox/profile says why
// each is there.
func MaskedPaths() []string { return slices.Clone(maskedPaths) }

// ReadonlyPaths returns the paths every plan must make read-only;
// sandbox/profile says why each is there.
func ReadonlyPaths() []string { return slices.Clone(readonlyPaths) }

var maskedPaths = []string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
}

var readonlyPaths = []string{
	"/proc/bus",
	"/proc/fs",
	"/proc/irq",
	"/proc/sys",
	"/proc/sysrq-trigger",
}

// Capabilities are the names a plan may use, in the kernel's order.
func Capabilities() []string { return slices.Clone(capabilities) }

var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}
