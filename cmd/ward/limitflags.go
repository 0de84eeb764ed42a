package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/internal/engine"
)

// limitFlags are Docker's flags about limits. Every container has finite
// ones: what means "unlimited" to Docker is refused.
type limitFlags struct {
	memory, memorySwap, reservation, cpuset, memset, shm string
	cpus                                                 float64
	pids, quota, period, shares                          int64
	ioWeight                                             uint16
	devices                                              map[engine.IOKind]*[]string
	ulimits                                              []string
	oomScoreAdj                                          int
	oomKillDisable                                       bool
	swappiness                                           int64
	kernelMemory                                         string
}

// register registers those that can also be changed later (ward update).
func (f *limitFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&f.memory, "memory", "m", "", "memory limit in `bytes` (k, m, g)")
	fs.StringVar(&f.memorySwap, "memory-swap", "", "memory plus swap in `bytes`; the same as --memory means no swap")
	fs.StringVar(&f.reservation, "memory-reservation", "", "`bytes` of memory that are left to it longest when the host runs short")
	fs.Float64Var(&f.cpus, "cpus", 0, "processors")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "`microseconds` of processor time in each period")
	fs.Int64Var(&f.period, "cpu-period", 0, "length of the period in `microseconds`")
	fs.Int64VarP(&f.shares, "cpu-shares", "c", 0, "`weight` against other containers when processors are short")
	fs.StringVar(&f.cpuset, "cpuset-cpus", "", "processors it may use: `0-2,7`")
	fs.StringVar(&f.memset, "cpuset-mems", "", "memory nodes it may use: `0-1`")
	fs.Int64Var(&f.pids, "pids-limit", 0, "processes and threads")
	fs.Uint16Var(&f.ioWeight, "blkio-weight", 0, "`weight` at disks against other containers, 10 to 1000")
	fs.StringVar(&f.kernelMemory, "kernel-memory", "", "not in this kernel: refused")
}

// registerFixed registers those that hold for as long as the container lives.
func (f *limitFlags) registerFixed(fs *pflag.FlagSet) {
	f.devices = map[engine.IOKind]*[]string{}
	for _, d := range []struct {
		flag, usage string
		kind        engine.IOKind
	}{
		{"blkio-weight-device", "weight at one disk: `DEVICE:WEIGHT`", engine.IOWeight},
		{"device-read-bps", "bytes read per second: `DEVICE:RATE`", engine.IOReadBPS},
		{"device-write-bps", "bytes written per second: `DEVICE:RATE`", engine.IOWriteBPS},
		{"device-read-iops", "reads per second: `DEVICE:RATE`", engine.IOReadIOPS},
		{"device-write-iops", "writes per second: `DEVICE:RATE`", engine.IOWriteIOPS},
	} {
		f.devices[d.kind] = fs.StringArray(d.flag, nil, d.usage)
	}
	fs.StringArrayVar(&f.ulimits, "ulimit", nil, "limit of each process: `NAME=SOFT[:HARD]`")
	fs.StringVar(&f.shm, "shm-size", "", "size of /dev/shm in `bytes`; it counts as memory")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "0 to 1000: how much sooner than others it is killed when the host is out of memory")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "refused: it would hang where it is now killed")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "refused: cgroup version 2 has no such setting")
}

// size reads an amount of bytes that is finite.
func size(flag, s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return 0, invalid("run.limits", fmt.Sprintf("--%s %q is not a finite number of bytes", flag, s), "every container has finite limits; give a size such as 512m")
	}
	return n, nil
}

// apply puts what was said into r and leaves the rest of it alone.
func (f *limitFlags) apply(fs *pflag.FlagSet, r *engine.Resources) error {
	for _, refused := range []struct {
		given             bool
		rule, why, remedy string
	}{
		{fs.Changed("kernel-memory"), "run.kernel-memory", "--kernel-memory limits nothing any more: the kernel counts its own memory within --memory", "use --memory"},
		{f.oomKillDisable, "run.oom-kill-disable", "--oom-kill-disable would leave a container that is out of memory hanging, with all it holds", "give it more --memory"},
		{fs.Changed("memory-swappiness") && f.swappiness != -1, "run.memory-swappiness", "--memory-swappiness is not a setting of cgroup version 2", "say how much may be swapped: --memory-swap"},
	} {
		if refused.given {
			return invalid(refused.rule, refused.why, refused.remedy)
		}
	}
	for _, step := range []func(*pflag.FlagSet, *engine.Resources) error{f.applyMemory, f.applyProcessors, f.applyIO, f.applyFixed} {
		if err := step(fs, r); err != nil {
			return err
		}
	}
	return nil
}

func (f *limitFlags) applyMemory(fs *pflag.FlagSet, r *engine.Resources) error {
	var err error
	if fs.Changed("memory") {
		if r.Memory, err = size("memory", f.memory); err != nil {
			return err
		}
	}
	if fs.Changed("memory-swap") {
		total, err := size("memory-swap", f.memorySwap)
		if err != nil {
			return err
		}
		if r.Memory == 0 || total < r.Memory {
			return invalid("run.limits", "--memory-swap is memory plus swap and needs --memory, which it must not be below", "give both, for instance --memory 256m --memory-swap 512m")
		}
		r.Swap = total - r.Memory
	}
	if fs.Changed("memory-reservation") {
		if r.Reservation, err = size("memory-reservation", f.reservation); err != nil {
			return err
		}
	}
	if fs.Changed("pids-limit") {
		if r.PIDs = f.pids; f.pids <= 0 {
			return invalid("run.limits", fmt.Sprintf("--pids-limit %d is not a finite limit", f.pids), "every container has finite limits; give a positive number")
		}
	}
	return nil
}

func (f *limitFlags) applyProcessors(fs *pflag.FlagSet, r *engine.Resources) error {
	if fs.Changed("cpus") {
		if !(f.cpus > 0 && f.cpus < math.MaxInt32) {
			return invalid("run.limits", fmt.Sprintf("--cpus %v is not a finite number of processors", f.cpus), "give a number such as 1.5")
		}
		if fs.Changed("cpu-quota") || fs.Changed("cpu-period") {
			return invalid("run.limits", "--cpus and --cpu-quota or --cpu-period say the same thing twice", "give either")
		}
		r.CPUs, r.CPUQuota, r.CPUPeriod = f.cpus, 0, 0
	}
	if fs.Changed("cpu-quota") || fs.Changed("cpu-period") {
		r.CPUs = 0
	}
	for _, n := range []struct {
		flag  string
		value int64
		set   func(int64)
	}{
		{"cpu-quota", f.quota, func(v int64) { r.CPUQuota = v }},
		{"cpu-period", f.period, func(v int64) { r.CPUPeriod = uint64(v) }},
		{"cpu-shares", f.shares, func(v int64) { r.CPUShares = uint64(v) }},
	} {
		if !fs.Changed(n.flag) {
			continue
		}
		if n.value <= 0 {
			return invalid("run.limits", fmt.Sprintf("--%s %d is not a finite limit", n.flag, n.value), "every container has finite limits; give a positive number")
		}
		n.set(n.value)
	}
	if fs.Changed("cpuset-cpus") {
		r.CPUSet = f.cpuset
	}
	if fs.Changed("cpuset-mems") {
		r.MemSet = f.memset
	}
	return nil
}

// applyIO reads Docker's DEVICE:AMOUNT lists.
func (f *limitFlags) applyIO(fs *pflag.FlagSet, r *engine.Resources) error {
	if fs.Changed("blkio-weight") {
		if r.IOWeight = uint64(f.ioWeight); f.ioWeight == 0 {
			return invalid("run.io", "--blkio-weight 0 is not a weight", "give 10 to 1000")
		}
	}
	for _, kind := range []engine.IOKind{engine.IOWeight, engine.IOReadBPS, engine.IOWriteBPS, engine.IOReadIOPS, engine.IOWriteIOPS} {
		if f.devices[kind] == nil {
			continue
		}
		for _, text := range *f.devices[kind] {
			i := strings.LastIndexByte(text, ':')
			if i <= 0 {
				return invalid("run.io", fmt.Sprintf("%.128q is not DEVICE:AMOUNT", text), "write it like /dev/sda:10mb")
			}
			amount, err := deviceAmount(kind, text[i+1:])
			if err != nil {
				return invalid("run.io", fmt.Sprintf("%.128q: %v", text, err), "write it like /dev/sda:10mb")
			}
			r.IO = append(r.IO, engine.DeviceLimit{Path: text[:i], Kind: kind, Amount: amount})
		}
	}
	return nil
}

func deviceAmount(kind engine.IOKind, s string) (uint64, error) {
	if kind == engine.IOReadBPS || kind == engine.IOWriteBPS {
		n, err := units.RAMInBytes(s)
		if err != nil || n <= 0 {
			return 0, fmt.Errorf("%q is not a rate", s)
		}
		return uint64(n), nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a positive number", s)
	}
	return n, nil
}

func (f *limitFlags) applyFixed(fs *pflag.FlagSet, r *engine.Resources) error {
	for _, text := range f.ulimits {
		l, err := engine.ParseUlimit(text)
		if err != nil {
			return err
		}
		r.Ulimits = append(r.Ulimits, l)
	}
	if fs.Changed("shm-size") {
		n, err := size("shm-size", f.shm)
		if err != nil {
			return err
		}
		r.Shm = n
	}
	if fs.Changed("oom-score-adj") {
		r.OOMScoreAdj = f.oomScoreAdj
	}
	return nil
}
