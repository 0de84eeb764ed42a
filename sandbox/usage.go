package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what a container used over its life. A figure the kernel does not
// offer is zero: usage is a report, never a ground to allow anything.
type Usage struct {
	CPUNanos       uint64 `json:"cpu_nanos"`
	CPUUserNanos   uint64 `json:"cpu_user_nanos"`
	CPUSystemNanos uint64 `json:"cpu_system_nanos"`
	// Throttled counts the periods in which it would have used more of a
	// processor than it may, ThrottledNanos the time it waited for that.
	Throttled       uint64 `json:"throttled"`
	ThrottledNanos  uint64 `json:"throttled_nanos"`
	MemoryPeakBytes uint64 `json:"memory_peak_bytes"`
	PIDsPeak        uint64 `json:"pids_peak"`
	// OOMKills counts processes killed for memory, PIDsRefused forks refused.
	OOMKills    uint64 `json:"oom_kills"`
	PIDsRefused uint64 `json:"pids_refused"`
	// What went to and came from disks.
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	ReadOps    uint64 `json:"read_ops"`
	WriteOps   uint64 `json:"write_ops"`
}

// Stats is what a running container uses at one moment.
type Stats struct {
	Time  time.Time `json:"time"`
	Usage Usage     `json:"usage"`
	// MemoryBytes includes CacheBytes, which is what the kernel can take back
	// at once; docker stats shows the difference.
	MemoryBytes uint64 `json:"memory_bytes"`
	CacheBytes  uint64 `json:"cache_bytes"`
	MemoryLimit uint64 `json:"memory_limit"`
	PIDs        uint64 `json:"pids"`
	PIDsLimit   uint64 `json:"pids_limit"`
	// IO is by device, sorted; Network by interface, without loopback.
	IO      []DeviceIO  `json:"io,omitempty"`
	Network []Interface `json:"network,omitempty"`
}

// DeviceIO is what went to and came from one disk.
type DeviceIO struct {
	// Device is "major:minor".
	Device                                   string
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// Interface is what passed one network interface.
type Interface struct {
	Name                               string
	RxBytes, RxPackets, RxErrs, RxDrop uint64
	TxBytes, TxPackets, TxErrs, TxDrop uint64
}

// ReadUsage reads what was used in these cgroups so far.
func ReadUsage(c Cgroups) Usage {
	u, _ := readUsage(c)
	return u
}

func readUsage(c Cgroups) (Usage, []DeviceIO) {
	var u Usage
	var io []DeviceIO
	if dir, ok := c.unified(); ok {
		cpu := figures(dir, "cpu.stat")
		u = Usage{
			CPUNanos: 1000 * cpu["usage_usec"], CPUUserNanos: 1000 * cpu["user_usec"], CPUSystemNanos: 1000 * cpu["system_usec"],
			Throttled: cpu["nr_throttled"], ThrottledNanos: 1000 * cpu["throttled_usec"],
			MemoryPeakBytes: figure(dir, "memory.peak"), PIDsPeak: figure(dir, "pids.peak"),
			OOMKills: figures(dir, "memory.events")["oom_kill"], PIDsRefused: figures(dir, "pids.events")["max"],
		}
		io = ioStat(content(dir, "io.stat"))
	} else {
		cpu := figures(c["cpu"], "cpu.stat")
		u = Usage{
			CPUNanos: figure(c["cpuacct"], "cpuacct.usage"), CPUUserNanos: figure(c["cpuacct"], "cpuacct.usage_user"),
			CPUSystemNanos: figure(c["cpuacct"], "cpuacct.usage_sys"), Throttled: cpu["nr_throttled"], ThrottledNanos: cpu["throttled_time"],
			MemoryPeakBytes: figure(c["memory"], "memory.max_usage_in_bytes"), PIDsPeak: figure(c["pids"], "pids.peak"),
			OOMKills: figures(c["memory"], "memory.oom_control")["oom_kill"], PIDsRefused: figures(c["pids"], "pids.events")["max"],
		}
		io = blkio(content(c["blkio"], "blkio.throttle.io_service_bytes_recursive"), content(c["blkio"], "blkio.throttle.io_serviced_recursive"))
	}
	for _, d := range io {
		u.ReadBytes += d.ReadBytes
		u.WriteBytes += d.WriteBytes
		u.ReadOps += d.ReadOps
		u.WriteOps += d.WriteOps
	}
	return u, io
}

// ReadStats takes a sample of the container whose first process has this id,
// in the caller's PID namespace. fs.ErrNotExist means that it has ended.
func ReadStats(c Cgroups, pid int) (Stats, error) {
	pids, err := c.Processes()
	if err != nil {
		return Stats{}, err
	}
	if len(pids) == 0 {
		return Stats{}, fmt.Errorf("container's cgroup: %w", fs.ErrNotExist)
	}
	s := Stats{Time: time.Now()}
	s.Usage, s.IO = readUsage(c)
	if dir, ok := c.unified(); ok {
		s.MemoryBytes, s.MemoryLimit = figure(dir, "memory.current"), figure(dir, "memory.max")
		s.CacheBytes = figures(dir, "memory.stat")["inactive_file"]
		s.PIDs, s.PIDsLimit = figure(dir, "pids.current"), figure(dir, "pids.max")
	} else {
		memory := c["memory"]
		s.MemoryBytes, s.MemoryLimit = figure(memory, "memory.usage_in_bytes"), figure(memory, "memory.limit_in_bytes")
		s.CacheBytes = figures(memory, "memory.stat")["total_inactive_file"]
		s.PIDs, s.PIDsLimit = figure(c["pids"], "pids.current"), figure(c["pids"], "pids.max")
	}
	s.CacheBytes = min(s.CacheBytes, s.MemoryBytes)
	// The id may be another process's by now; one in the container's cgroup is
	// in its network namespace.
	if slices.Contains(pids, pid) {
		s.Network = interfaces(content("/proc/"+strconv.Itoa(pid), "net/dev"))
	}
	return s, nil
}

// maxFigures bounds what is read of one file of the kernel.
const maxFigures = 256 << 10

func content(dir, file string) string {
	if dir == "" {
		return ""
	}
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for n := 0; ; {
		m, err := f.Read(buf[n:])
		n += m
		if err != nil || n == maxFigures {
			return string(buf[:n])
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// figure is the only number of a file, or 0.
func figure(dir, file string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(content(dir, file)), 10, 64)
	return n
}

// figures are the numbers of a file of "key number" lines.
func figures(dir, file string) map[string]uint64 { return keyed(content(dir, file)) }

func keyed(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 {
			continue
		}
		if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
			out[words[0]] = n
		}
	}
	return out
}

// device returns the entry of a device, made if need be.
func device(io *[]DeviceIO, name string) *DeviceIO {
	i, found := slices.BinarySearchFunc(*io, name, func(d DeviceIO, n string) int { return strings.Compare(d.Device, n) })
	if !found {
		*io = slices.Insert(*io, i, DeviceIO{Device: name})
	}
	return &(*io)[i]
}

// blkio reads version 1's "major:minor Operation number" lines.
func blkio(bytes, ops string) []DeviceIO {
	var io []DeviceIO
	each := func(text string, read, write func(*DeviceIO) *uint64) {
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			if len(words) != 3 {
				continue
			}
			n, err := strconv.ParseUint(words[2], 10, 64)
			if err != nil {
				continue
			}
			switch words[1] {
			case "Read":
				*read(device(&io, words[0])) = n
			case "Write":
				*write(device(&io, words[0])) = n
			}
		}
	}
	each(bytes, func(d *DeviceIO) *uint64 { return &d.ReadBytes }, func(d *DeviceIO) *uint64 { return &d.WriteBytes })
	each(ops, func(d *DeviceIO) *uint64 { return &d.ReadOps }, func(d *DeviceIO) *uint64 { return &d.WriteOps })
	return io
}

// ioStat reads version 2's "major:minor key=number …" lines.
func ioStat(text string) []DeviceIO {
	var io []DeviceIO
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		d := device(&io, words[0])
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
	}
	return io
}

// interfaces reads /proc/PID/net/dev: two lines of headings, then a name, a
// colon and sixteen numbers a line. The names are the container's own choice.
func interfaces(text string) []Interface {
	var out []Interface
	for line := range strings.Lines(text) {
		i := strings.LastIndexByte(line, ':')
		if i < 0 {
			continue
		}
		words := strings.Fields(line[i+1:])
		name := strings.TrimSpace(line[:i])
		if len(words) < 16 || name == "lo" {
			continue
		}
		var n [16]uint64
		for j := range n {
			n[j], _ = strconv.ParseUint(words[j], 10, 64)
		}
		out = append(out, Interface{Name: name, RxBytes: n[0], RxPackets: n[1], RxErrs: n[2], RxDrop: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrs: n[10], TxDrop: n[11]})
	}
	return out
}

// OOMKills is how many processes were killed for memory so far.
func OOMKills(c Cgroups) uint64 {
	if dir, ok := c.unified(); ok {
		return figures(dir, "memory.events")["oom_kill"]
	}
	return figures(c["memory"], "memory.oom_control")["oom_kill"]
}
