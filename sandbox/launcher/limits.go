package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// checkLimits reads back what the kernel made of the limits, in these cgroups.
// A limit that is not there, or is laxer than planned, refuses the run: whether
// it was not written, not supported or written elsewhere makes no difference.
func checkLimits(paths map[string]string, l sandbox.Limits) error {
	if dir, ok := unified(paths); ok {
		return errors.Join(checkUnified(dir, l), checkIOUnified(dir, l))
	}
	cpu, memory := paths["cpu"], paths["memory"]
	return errors.Join(
		atMost(filepath.Join(memory, "memory.limit_in_bytes"), l.Memory),
		atMost(filepath.Join(memory, "memory.memsw.limit_in_bytes"), l.Memory+l.Swap),
		atMost(filepath.Join(paths["pids"], "pids.max"), l.PIDs),
		quotaAtMost(filepath.Join(cpu, "cpu.cfs_quota_us"), 0, filepath.Join(cpu, "cpu.cfs_period_us"), 0, l),
		exactly(filepath.Join(cpu, "cpu.shares"), int64(l.CPUShares)),
		reserved(filepath.Join(memory, "memory.soft_limit_in_bytes"), l.Reservation),
		checkSets(paths["cpuset"], "cpuset.effective_cpus", "cpuset.effective_mems", l),
		checkIO(paths["blkio"], l),
	)
}

// unified returns the container's one cgroup on a host with version 2 alone. A
// hybrid host has one there as well, without any controller of use.
func unified(paths map[string]string) (string, bool) {
	dir, ok := paths[""]
	return dir, ok && len(paths) == 1
}

func checkUnified(dir string, l sandbox.Limits) error {
	cpu := filepath.Join(dir, "cpu.max") // "quota period"
	err := errors.Join(
		atMost(filepath.Join(dir, "memory.max"), l.Memory),
		atMost(filepath.Join(dir, "pids.max"), l.PIDs),
		quotaAtMost(cpu, 0, cpu, 1, l),
		exactly(filepath.Join(dir, "cpu.weight"), int64(cgroups.ConvertCPUSharesToCgroupV2Value(l.CPUShares))),
		reserved(filepath.Join(dir, "memory.low"), l.Reservation),
		checkSets(dir, "cpuset.cpus.effective", "cpuset.mems.effective", l),
	)
	swap := filepath.Join(dir, "memory.swap.max")
	if _, serr := os.Stat(swap); errors.Is(serr, os.ErrNotExist) {
		return err // a kernel without swap: nothing can be swapped
	}
	return errors.Join(err, atMost(swap, l.Swap))
}

// atMost refuses unless file holds a number of at most most.
func atMost(file string, most int64) error {
	v, err := limit(file, 0)
	if err == nil && v > most {
		err = notApplied(fmt.Sprintf("limit %s is %d and must be at most %d", filepath.Base(file), v, most))
	}
	return err
}

// exactly refuses unless file holds just this number; zero asks for nothing.
func exactly(file string, want int64) error {
	if want == 0 {
		return nil
	}
	v, err := limit(file, 0)
	if err == nil && v != want {
		err = notApplied(fmt.Sprintf("limit %s is %d and must be %d", filepath.Base(file), v, want))
	}
	return err
}

// reserved refuses unless file holds this many bytes; the kernel counts whole
// pages.
func reserved(file string, want int64) error {
	if want == 0 {
		return nil
	}
	page := int64(os.Getpagesize())
	return exactly(file, max(want/page*page, 1))
}

// quotaAtMost refuses unless quota and period come to no more of a processor
// than planned: either alone says nothing.
func quotaAtMost(quotaFile string, quotaField int, periodFile string, periodField int, l sandbox.Limits) error {
	quota, err := limit(quotaFile, quotaField)
	if err != nil {
		return err
	}
	period, err := limit(periodFile, periodField)
	if err != nil {
		return err
	}
	if period == 0 || float64(quota)/float64(period) > float64(l.CPUQuota)/float64(l.CPUPeriod) {
		return notApplied(fmt.Sprintf("the processor limit is %d µs of %d and must be %d of %d", quota, period, l.CPUQuota, l.CPUPeriod))
	}
	return nil
}

// checkSets refuses unless the processors and memory nodes that the container
// really has are among those planned. The file that was written may say more
// than the host gives.
func checkSets(dir, cpusFile, memsFile string, l sandbox.Limits) error {
	var all error
	for file, want := range map[string]string{cpusFile: l.CPUSet, memsFile: l.MemSet} {
		if want == "" {
			continue
		}
		have, err := text(filepath.Join(dir, file))
		if err == nil && (have == "" || !sandbox.SetWithin(have, want)) {
			err = notApplied(fmt.Sprintf("%s is %q and must be within %s", file, have, want))
		}
		all = errors.Join(all, err)
	}
	return all
}

// limit reads word n of a cgroup file as a number; "max" is none.
func limit(file string, n int) (int64, error) {
	s, err := text(file)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(s)
	if len(words) <= n {
		return 0, notApplied(fmt.Sprintf("limit %s is %q", filepath.Base(file), s))
	}
	v, err := strconv.ParseInt(words[n], 10, 64)
	if err != nil || v < 0 {
		return 0, notApplied(fmt.Sprintf("limit %s is %q", filepath.Base(file), words[n]))
	}
	return v, nil
}

// text reads a cgroup file.
func text(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", notApplied(fmt.Sprintf("limit %s: %v", filepath.Base(file), err))
	}
	return strings.TrimSpace(string(b)), nil
}

// missing explains a start that failed because a limit has no file to be
// written to: libcontainer enables for the container what controllers it may,
// and says nothing of the others. Nil is no explanation.
func missing(l sandbox.Limits) error {
	if !cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(cgroupRoot, cgroupParent, "cgroup.subtree_control"))
	if err != nil {
		return nil
	}
	enabled := strings.Fields(string(b))
	need := []string{"cpu", "memory", "pids"}
	if l.CPUSet != "" || l.MemSet != "" {
		need = append(need, "cpuset")
	}
	if l.IOWeight != 0 || len(l.IO) > 0 {
		need = append(need, "io")
	}
	for _, c := range need {
		if !slices.Contains(enabled, c) {
			return notApplied(fmt.Sprintf("the %s cgroup controller is not delegated to %s", c, cgroupRoot))
		}
	}
	return nil
}

func notApplied(cause string) error {
	return fault.New(fault.Unavailable, "launch.limits", cause, "ask for limits that this kernel has, or enable the cgroup controller: cpu, memory, pids, cpuset, io")
}
