package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ociUpdate changes limits. What the request does not name stays, but for the
// few that libcontainer takes for unchanged when they are empty.
func ociUpdate(ct *libcontainer.Container, r sandbox.OCIRequest) error {
	if r.L3Cache != "" || r.MemBw != "" {
		return fault.New(fault.Invalid, "oci.intel-rdt", "ward-oci does not change Intel RDT settings of a container that runs", "set them in its specification")
	}
	var want specs.LinuxResources
	if err := json.Unmarshal([]byte(r.Resources), &want); err != nil {
		return err
	}
	config := ct.Config()
	if config.Cgroups == nil || config.Cgroups.Resources == nil {
		return errors.New("the container has no cgroup")
	}
	res := config.Cgroups.Resources
	updateMemory(res, want.Memory)
	updateCPU(res, want.CPU)
	if err := updateBlockIO(res, want.BlockIO); err != nil {
		return err
	}
	res.PidsLimit = nil
	if want.Pids != nil {
		res.PidsLimit = want.Pids.Limit
	}
	res.Unified = want.Unified
	config.Cgroups.SkipDevices = true // they do not change
	return ct.Set(config)
}

func updateMemory(res *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = new(int64) // no limit on memory: none on both together either
	}
	set(&res.Memory, m.Limit)
	set(&res.MemoryReservation, m.Reservation)
	set(&res.MemorySwap, m.Swap)
	set(&res.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
}

func updateCPU(res *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		c = &specs.LinuxCPU{}
	}
	if c.Idle != nil && c.Shares == nil {
		c.Shares = new(uint64) // they exclude each other
	}
	// One of the two may change alone; both are written together.
	if c.Period == nil && c.Quota == nil {
		res.CpuPeriod, res.CpuQuota = 0, 0
	}
	set(&res.CpuPeriod, c.Period)
	set(&res.CpuQuota, c.Quota)
	set(&res.CpuRtPeriod, c.RealtimePeriod)
	set(&res.CpuRtRuntime, c.RealtimeRuntime)
	if c.Shares != nil {
		res.CpuShares, res.CpuWeight = *c.Shares, cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares)
	}
	res.CpuBurst, res.CPUIdle, res.CpusetCpus, res.CpusetMems = c.Burst, c.Idle, c.Cpus, c.Mems
}

func updateBlockIO(res *cgroups.Resources, b *specs.LinuxBlockIO) error {
	if b == nil {
		return nil
	}
	set(&res.BlkioWeight, b.Weight)
	set(&res.BlkioLeafWeight, b.LeafWeight)
	for _, w := range b.WeightDevice {
		if w.Major < 0 || w.Minor < 0 {
			return fmt.Errorf("device %d:%d is none", w.Major, w.Minor)
		}
		i := slices.IndexFunc(res.BlkioWeightDevice, func(d *cgroups.WeightDevice) bool { return d.Major == w.Major && d.Minor == w.Minor })
		if i < 0 {
			i = len(res.BlkioWeightDevice)
			res.BlkioWeightDevice = append(res.BlkioWeightDevice, cgroups.NewWeightDevice(w.Major, w.Minor, 0, 0))
		}
		set(&res.BlkioWeightDevice[i].Weight, w.Weight)
		set(&res.BlkioWeightDevice[i].LeafWeight, w.LeafWeight)
	}
	for _, t := range []struct {
		have *[]*cgroups.ThrottleDevice
		want []specs.LinuxThrottleDevice
	}{
		{&res.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice}, {&res.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
		{&res.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice}, {&res.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
	} {
		for _, w := range t.want {
			i := slices.IndexFunc(*t.have, func(d *cgroups.ThrottleDevice) bool { return d.Major == w.Major && d.Minor == w.Minor })
			if i >= 0 {
				(*t.have)[i].Rate = w.Rate
			} else {
				*t.have = append(*t.have, cgroups.NewThrottleDevice(w.Major, w.Minor, w.Rate))
			}
		}
	}
	return nil
}

// set gives to the value of from, if there is one.
func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}
