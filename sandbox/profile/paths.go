package profile

// Path is a path inside the container and why it is out of reach.
type Path struct{ Path, Why string }

// MaskedPaths are hidden: files read as empty, directories are empty.
func MaskedPaths() []Path {
	return []Path{
		{"/proc/acpi", "switches hardware; fingerprints the host"},
		{"/proc/asound", "the host's sound devices"},
		{"/proc/interrupts", "timing of the host's devices: a side channel on keystrokes"},
		{"/proc/kcore", "the host's memory"},
		{"/proc/keys", "keys of other users; not namespaced"},
		{"/proc/latency_stats", "what the host's other processes wait for"},
		{"/proc/sched_debug", "names and cgroups of the host's processes"},
		{"/proc/scsi", "removes and adds the host's disks"},
		{"/proc/timer_list", "kernel addresses and other processes' timers"},
		{"/proc/timer_stats", "other processes' timers"},
		{"/sys/devices/virtual/powercap", "power readings: a side channel (CVE-2020-8694)"},
		{"/sys/firmware", "firmware tables and variables"},
	}
}

// ReadonlyPaths can be read and not written, whatever ids and capabilities.
func ReadonlyPaths() []Path {
	return []Path{
		{"/proc/bus", "configures the host's buses"},
		{"/proc/fs", "tunes the host's file systems"},
		{"/proc/irq", "moves the host's interrupts"},
		{"/proc/sys", "kernel settings; not all are namespaced"},
		{"/proc/sysrq-trigger", "restarts or halts the host (CVE-2025-52881)"},
	}
}
