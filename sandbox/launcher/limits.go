package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// checkLimits reads back what the kernel made of the limits. A limit that is
// not there, or is laxer than planned, refuses the run: whether it was not
// written, not supported or written elsewhere makes no difference.
func (c *container) checkLimits(l sandbox.Limits) error {
	if dir, ok := unified(c.cgroups); ok {
		return checkUnified(dir, l)
	}
	for _, check := range []struct {
		controller, file string
		most             int64
	}{
		{"memory", "memory.limit_in_bytes", l.Memory},
		{"memory", "memory.memsw.limit_in_bytes", l.Memory + l.Swap},
		{"pids", "pids.max", l.PIDs},
		{"cpu", "cpu.cfs_quota_us", l.CPUQuota},
	} {
		if err := atMost(filepath.Join(c.cgroups[check.controller], check.file), check.most); err != nil {
			return err
		}
	}
	return nil
}

// unified returns the container's one cgroup on a host with version 2 alone. A
// hybrid host has one there as well, without any controller of use.
func unified(paths map[string]string) (string, bool) {
	dir, ok := paths[""]
	return dir, ok && len(paths) == 1
}

func checkUnified(dir string, l sandbox.Limits) error {
	for _, check := range []struct {
		file string
		most int64
	}{{"memory.max", l.Memory}, {"pids.max", l.PIDs}, {"cpu.max", l.CPUQuota}} {
		if err := atMost(filepath.Join(dir, check.file), check.most); err != nil {
			return err
		}
	}
	swap := filepath.Join(dir, "memory.swap.max")
	if _, err := os.Stat(swap); errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without swap: nothing can be swapped
	}
	return atMost(swap, l.Swap)
}

// atMost refuses unless the first word of file is a number of at most most.
func atMost(file string, most int64) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return notApplied(fmt.Sprintf("limit %s: %v", filepath.Base(file), err))
	}
	word, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	v, err := strconv.ParseInt(word, 10, 64) // "max" is no number
	if err != nil || v < 0 || v > most {
		return notApplied(fmt.Sprintf("limit %s is %q and must be at most %d", filepath.Base(file), word, most))
	}
	return nil
}

func notApplied(cause string) error {
	return fault.New(fault.Unavailable, "launch.limits", cause, "enable the cpu, memory and pids cgroup controllers")
}
