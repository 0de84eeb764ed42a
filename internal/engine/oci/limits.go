package oci

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/policy"
)

// limits are resources in the policy's words, where none is 0, however it was
// said: a rule about what is too much must not take -1 for little.
func limits(r *specs.LinuxResources) policy.Limits {
	var l policy.Limits
	if m := r.Memory; m != nil {
		l.Memory, l.Reservation = above(m.Limit), above(m.Reservation)
		switch {
		case m.Swap == nil:
		case *m.Swap < 0:
			l.Swap = -1 // all there is: here 0 is not a word for it
		case l.Memory > 0:
			l.Swap = max(*m.Swap-l.Memory, 0)
		}
	}
	if r.Pids != nil {
		l.PIDs = above(r.Pids.Limit)
	}
	if c := r.CPU; c != nil {
		l.CPUSet, l.MemSet = c.Cpus, c.Mems
		if c.Shares != nil {
			l.CPUShares = *c.Shares
		}
		period := uint64(defaultPeriod)
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		l.CPUs = float64(above(c.Quota)) / float64(period)
	}
	if b := r.BlockIO; b != nil {
		if b.Weight != nil {
			l.IOWeight = uint64(*b.Weight)
		}
		l.IO = devices(b)
	}
	unified(&l, r.Unified)
	return l
}

// defaultPeriod is the kernel's, in microseconds.
const defaultPeriod = 100000

// unified are limits by the names of their files, which count on cgroup v2 and
// above the others.
func unified(l *policy.Limits, files map[string]string) {
	for name, to := range map[string]*int64{
		"memory.max": &l.Memory, "memory.swap.max": &l.Swap, "memory.low": &l.Reservation, "pids.max": &l.PIDs,
	} {
		v, said := files[name]
		if !said {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		switch {
		case err == nil:
			*to = max(n, 0)
		case name == "memory.swap.max":
			*to = -1
		default:
			*to = 0 // "max", or what cannot be read: none
		}
	}
	if v, said := files["cpu.max"]; said {
		quota, period, two := strings.Cut(strings.TrimSpace(v), " ")
		if !two {
			period = strconv.Itoa(defaultPeriod)
		}
		l.CPUs = 0
		q, qerr := strconv.ParseUint(quota, 10, 63)
		p, perr := strconv.ParseUint(period, 10, 63)
		if qerr == nil && perr == nil && p > 0 {
			l.CPUs = float64(q) / float64(p)
		}
	}
	l.CPUSet, l.MemSet = cmp.Or(files["cpuset.cpus"], l.CPUSet), cmp.Or(files["cpuset.mems"], l.MemSet)
}

// above is a limit; one that is not above 0 is none.
func above(n *int64) int64 {
	if n == nil {
		return 0
	}
	return max(*n, 0)
}

// devices are the limits at block devices, which have numbers here and no name.
func devices(b *specs.LinuxBlockIO) []policy.IOLimit {
	var out []policy.IOLimit
	at := func(major, minor int64) *policy.IOLimit {
		name := fmt.Sprintf("/dev/block/%d:%d", major, minor)
		i := slices.IndexFunc(out, func(l policy.IOLimit) bool { return l.Device == name })
		if i < 0 {
			i = len(out)
			out = append(out, policy.IOLimit{Device: name})
		}
		return &out[i]
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			at(d.Major, d.Minor).Weight = uint64(*d.Weight)
		}
	}
	for _, d := range b.ThrottleReadBpsDevice {
		at(d.Major, d.Minor).ReadBPS = d.Rate
	}
	for _, d := range b.ThrottleWriteBpsDevice {
		at(d.Major, d.Minor).WriteBPS = d.Rate
	}
	for _, d := range b.ThrottleReadIOPSDevice {
		at(d.Major, d.Minor).ReadIOPS = d.Rate
	}
	for _, d := range b.ThrottleWriteIOPSDevice {
		at(d.Major, d.Minor).WriteIOPS = d.Rate
	}
	return out
}

// merge is what limits are once an update has been made, as the launcher makes
// it: what the update does not name stays.
func merge(old, want *specs.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
	// Devices and the rest do not change: they are not limits of an update.
	for _, r := range []*specs.LinuxResources{old, want} {
		if m := r.Memory; m != nil {
			if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
				out.Memory.Swap = m.Limit // none on both together either
			}
			over(&out.Memory.Limit, m.Limit)
			over(&out.Memory.Swap, m.Swap)
			over(&out.Memory.Reservation, m.Reservation)
		}
		if c := r.CPU; c != nil {
			mergeCPU(out.CPU, c)
		}
		if r.Pids != nil {
			over(&out.Pids.Limit, r.Pids.Limit)
		}
		if b := r.BlockIO; b != nil {
			mergeBlockIO(out.BlockIO, b)
		}
		if len(r.Unified) > 0 {
			if out.Unified == nil {
				out.Unified = map[string]string{}
			}
			maps.Copy(out.Unified, r.Unified)
		}
	}
	return out
}

func mergeCPU(out, c *specs.LinuxCPU) {
	if c.Idle != nil && c.Shares == nil {
		out.Shares = nil // they exclude each other
	}
	over(&out.Shares, c.Shares)
	over(&out.Quota, c.Quota)
	over(&out.Burst, c.Burst)
	over(&out.Period, c.Period)
	over(&out.RealtimeRuntime, c.RealtimeRuntime)
	over(&out.RealtimePeriod, c.RealtimePeriod)
	over(&out.Idle, c.Idle)
	out.Cpus, out.Mems = cmp.Or(c.Cpus, out.Cpus), cmp.Or(c.Mems, out.Mems)
}

func mergeBlockIO(out, b *specs.LinuxBlockIO) {
	over(&out.Weight, b.Weight)
	over(&out.LeafWeight, b.LeafWeight)
	for _, w := range b.WeightDevice {
		same := func(o specs.LinuxWeightDevice) bool { return o.Major == w.Major && o.Minor == w.Minor }
		if i := slices.IndexFunc(out.WeightDevice, same); i >= 0 {
			over(&out.WeightDevice[i].Weight, w.Weight)
			over(&out.WeightDevice[i].LeafWeight, w.LeafWeight)
		} else {
			out.WeightDevice = append(out.WeightDevice, w)
		}
	}
	for _, t := range []struct {
		to   *[]specs.LinuxThrottleDevice
		from []specs.LinuxThrottleDevice
	}{
		{&out.ThrottleReadBpsDevice, b.ThrottleReadBpsDevice}, {&out.ThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
		{&out.ThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice}, {&out.ThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
	} {
		for _, w := range t.from {
			same := func(o specs.LinuxThrottleDevice) bool { return o.Major == w.Major && o.Minor == w.Minor }
			if i := slices.IndexFunc(*t.to, same); i >= 0 {
				(*t.to)[i] = w
			} else {
				*t.to = append(*t.to, w)
			}
		}
	}
}

func over[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// changed are the limits that differ, by the specification's names
// ("memory.limit"), before and after.
func changed(old, now *specs.LinuxResources) map[string][2]string {
	// Merged with nothing, so that what an update never touches is in neither.
	before, after := byName(merge(old, &specs.LinuxResources{})), byName(now)
	out := map[string][2]string{}
	for name, v := range after {
		if before[name] != v {
			out[name] = [2]string{before[name], v}
		}
	}
	for name, v := range before {
		if _, stays := after[name]; !stays {
			out[name] = [2]string{v, ""}
		}
	}
	return out
}

// byName are all limits by name.
func byName(r *specs.LinuxResources) map[string]string {
	out := map[string]string{}
	b, err := json.Marshal(r)
	if err != nil {
		return out
	}
	var tree map[string]json.RawMessage
	if json.Unmarshal(b, &tree) == nil {
		flatten(out, "", tree)
	}
	return out
}

func flatten(out map[string]string, prefix string, tree map[string]json.RawMessage) {
	for name, v := range tree {
		var below map[string]json.RawMessage
		if bytes.HasPrefix(v, []byte("{")) && json.Unmarshal(v, &below) == nil {
			flatten(out, prefix+name+".", below)
			continue
		}
		out[prefix+name] = strings.Trim(string(v), `"`)
	}
}
