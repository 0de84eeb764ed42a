package launcher

import (
	"github.com/opencontainers/cgroups"

	"github.com/ward-project/ward/sandbox"
)

// limitsOf translates limits into libcontainer's terms. What it makes of them
// is read back afterwards (checkLimits): of some it says nothing when the
// kernel does not have them.
func limitsOf(l sandbox.Limits) *cgroups.Resources {
	pids := l.PIDs
	r := &cgroups.Resources{
		Memory:            l.Memory,
		MemorySwap:        l.Memory + l.Swap,
		MemoryReservation: l.Reservation,
		PidsLimit:         &pids,
		CpuQuota:          l.CPUQuota,
		CpuPeriod:         l.CPUPeriod,
		CpuShares:         l.CPUShares,
		CpuWeight:         cgroups.ConvertCPUSharesToCgroupV2Value(l.CPUShares),
		CpusetCpus:        l.CPUSet,
		CpusetMems:        l.MemSet,
		BlkioWeight:       uint16(l.IOWeight),
	}
	throttle := func(to *[]*cgroups.ThrottleDevice, d sandbox.IOLimits, rate uint64) {
		if rate > 0 {
			*to = append(*to, cgroups.NewThrottleDevice(d.Major, d.Minor, rate))
		}
	}
	for _, d := range l.IO {
		if d.Weight > 0 {
			r.BlkioWeightDevice = append(r.BlkioWeightDevice, cgroups.NewWeightDevice(d.Major, d.Minor, uint16(d.Weight), 0))
		}
		throttle(&r.BlkioThrottleReadBpsDevice, d, d.ReadBPS)
		throttle(&r.BlkioThrottleWriteBpsDevice, d, d.WriteBPS)
		throttle(&r.BlkioThrottleReadIOPSDevice, d, d.ReadIOPS)
		throttle(&r.BlkioThrottleWriteIOPSDevice, d, d.WriteIOPS)
	}
	return r
}
