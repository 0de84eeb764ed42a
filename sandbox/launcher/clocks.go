package launcher

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ownClocks gives the container a time namespace in which the clocks since
// boot start with it: how long the host has been up tells which of its kernel's
// holes are mended, and two containers with the same clock are on one host.
// The time of day is no namespace's. A kernel without time namespaces (they
// are a build option) has nothing to apply.
func ownClocks(c *configs.Config) error {
	if !configs.IsNamespaceSupported(configs.NEWTIME) {
		return nil
	}
	c.Namespaces.Add(configs.NEWTIME, "")
	c.TimeOffsets = map[string]specs.LinuxTimeOffset{}
	for name, id := range map[string]int32{"monotonic": unix.CLOCK_MONOTONIC, "boottime": unix.CLOCK_BOOTTIME} {
		var now unix.Timespec
		if err := unix.ClockGettime(id, &now); err != nil {
			return fmt.Errorf("clock_gettime: %w", err)
		}
		// Whole seconds: no clock may be set below zero.
		c.TimeOffsets[name] = specs.LinuxTimeOffset{Secs: -now.Sec}
	}
	return nil
}
