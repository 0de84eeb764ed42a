package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"

	"github.com/ward-project/ward/sandbox"
)

// readUsage reads what the container used from its cgroups before they are
// removed. A figure this kernel does not have stays zero: usage is a report,
// never a ground to allow anything.
func readUsage(paths map[string]string) sandbox.Usage {
	if dir, ok := unified(paths); ok {
		return sandbox.Usage{
			CPUNanos:        1000 * field(dir, "cpu.stat", "usage_usec"),
			MemoryPeakBytes: field(dir, "memory.peak", ""),
			PIDsPeak:        field(dir, "pids.peak", ""),
			OOMKills:        field(dir, "memory.events", "oom_kill"),
			PIDsRefused:     field(dir, "pids.events", "max"),
		}
	}
	return sandbox.Usage{
		CPUNanos:        field(paths["cpuacct"], "cpuacct.usage", ""),
		MemoryPeakBytes: field(paths["memory"], "memory.max_usage_in_bytes", ""),
		PIDsPeak:        field(paths["pids"], "pids.peak", ""),
		OOMKills:        field(paths["memory"], "memory.oom_control", "oom_kill"),
		PIDsRefused:     field(paths["pids"], "pids.events", "max"),
	}
}

// field reads the number after key in a cgroup file of "key number" lines, or
// the only number if key is empty.
func field(dir, file, key string) uint64 {
	if dir == "" {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if key == "" && len(words) == 1 || len(words) == 2 && words[0] == key {
			n, err := strconv.ParseUint(words[len(words)-1], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// removeCgroups removes the container's cgroup from every hierarchy. They are
// empty: the payload was the first process of its PID namespace.
func removeCgroups(paths map[string]string) error {
	var all error
	for _, p := range paths {
		all = errors.Join(all, cgroups.RemovePath(p))
	}
	return all
}
