package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/types"

	"github.com/ward-project/ward/sandbox"
)

// ociEvents prints the container's usage, once or every interval, and each
// time the kernel kills for memory, until the container ends.
func ociEvents(ct *libcontainer.Container, r sandbox.OCIRequest) error {
	every := time.Duration(r.Interval)
	if every <= 0 {
		return errors.New("duration interval must be greater than 0")
	}
	status, err := ct.Status()
	if err != nil {
		return err
	}
	if status == libcontainer.Stopped {
		return fmt.Errorf("container with id %s is not running", ct.ID())
	}
	out := json.NewEncoder(os.Stdout)
	report := func() error {
		s, err := ct.Stats()
		if err != nil {
			return err
		}
		return out.Encode(types.Event{Type: "stats", ID: ct.ID(), Data: ociStats(s)})
	}
	if r.Stats {
		return report()
	}
	oom, err := ct.NotifyOOM()
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case _, more := <-oom:
			if !more {
				return nil // the cgroup is gone, and the container with it
			}
			if err := out.Encode(types.Event{Type: "oom", ID: ct.ID()}); err != nil {
				return err
			}
		case <-tick.C:
			if err := report(); err != nil {
				return err
			}
		}
	}
}

// ociStats gives libcontainer's figures the names callers read them under.
func ociStats(ls *libcontainer.Stats) *types.Stats {
	cg := ls.CgroupStats
	if cg == nil {
		return nil
	}
	memory := func(d cgroups.MemoryData) types.MemoryEntry {
		return types.MemoryEntry{Limit: d.Limit, Usage: d.Usage, Max: d.MaxUsage, Failcnt: d.Failcnt}
	}
	blkio := func(list []cgroups.BlkioStatEntry) (out []types.BlkioEntry) {
		for _, e := range list {
			out = append(out, types.BlkioEntry(e))
		}
		return out
	}
	s := &types.Stats{CPUSet: types.CPUSet(cg.CPUSetStats), Hugetlb: map[string]types.Hugetlb{}, NetworkInterfaces: ls.Interfaces}
	s.Pids = types.Pids{Current: cg.PidsStats.Current, Limit: cg.PidsStats.Limit}
	u, t := cg.CpuStats.CpuUsage, cg.CpuStats.ThrottlingData
	s.CPU.Usage = types.CpuUsage{Kernel: u.UsageInKernelmode, User: u.UsageInUsermode, Total: u.TotalUsage,
		Percpu: u.PercpuUsage, PercpuKernel: u.PercpuUsageInKernelmode, PercpuUser: u.PercpuUsageInUsermode}
	s.CPU.Throttling = types.Throttling{Periods: t.Periods, ThrottledPeriods: t.ThrottledPeriods, ThrottledTime: t.ThrottledTime}
	s.CPU.PSI = cg.CpuStats.PSI
	m := cg.MemoryStats
	s.Memory = types.Memory{Cache: m.Cache, Kernel: memory(m.KernelUsage), KernelTCP: memory(m.KernelTCPUsage),
		Swap: memory(m.SwapUsage), Usage: memory(m.Usage), Raw: m.Stats, PSI: m.PSI}
	b := cg.BlkioStats
	s.Blkio = types.Blkio{IoServiceBytesRecursive: blkio(b.IoServiceBytesRecursive), IoServicedRecursive: blkio(b.IoServicedRecursive),
		IoQueuedRecursive: blkio(b.IoQueuedRecursive), IoServiceTimeRecursive: blkio(b.IoServiceTimeRecursive),
		IoWaitTimeRecursive: blkio(b.IoWaitTimeRecursive), IoMergedRecursive: blkio(b.IoMergedRecursive),
		IoTimeRecursive: blkio(b.IoTimeRecursive), SectorsRecursive: blkio(b.SectorsRecursive), PSI: b.PSI}
	for size, h := range cg.HugetlbStats {
		s.Hugetlb[size] = types.Hugetlb{Usage: h.Usage, Max: h.MaxUsage, Failcnt: h.Failcnt}
	}
	return s
}
