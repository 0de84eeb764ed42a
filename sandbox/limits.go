package sandbox

import (
	"strconv"
	"strings"
)

// Limits are what a container may use at most. Memory, swap, processes,
// processors, output and shared memory are always finite; of the others zero
// or empty means that there is none beyond these.
type Limits struct {
	// Memory is in bytes; Swap is how much may be swapped on top of it.
	Memory int64 `json:"memory"`
	Swap   int64 `json:"swap"`
	// Reservation is the part of Memory that the kernel leaves to the container
	// longest when the host runs short of it.
	Reservation int64 `json:"reservation"`
	PIDs        int64 `json:"pids"`
	// CPUQuota microseconds in each CPUPeriod microseconds.
	CPUQuota  int64  `json:"cpu_quota"`
	CPUPeriod uint64 `json:"cpu_period"`
	// CPUShares is its weight against ward's other containers when processors
	// are short, as cgroup version 1 counts: 1024 is the kernel's default.
	CPUShares uint64 `json:"cpu_shares"`
	// CPUSet and MemSet are the processors and memory nodes it may use, as
	// ParseSet writes them.
	CPUSet string `json:"cpu_set"`
	MemSet string `json:"mem_set"`
	// IOWeight is its weight against the others at a block device, 10 to 1000.
	// IO is sorted by device.
	IOWeight uint64     `json:"io_weight"`
	IO       []IOLimits `json:"io"`
	// Shm is the size of /dev/shm in bytes.
	Shm int64 `json:"shm"`
	// Output is how many bytes of what the payload writes are kept, the first
	// ones; 0 is none. The rest still reaches the caller; it is counted, and the
	// count is on record.
	Output int64 `json:"output"`
	// OutputFiles, if not 0, keeps the last ones instead: in that many files,
	// the newest of which are kept, of OutputFile bytes each.
	OutputFile  int64 `json:"output_file"`
	OutputFiles int   `json:"output_files"`
}

// IOLimits are the limits at one block device; zero is none.
type IOLimits struct {
	// Path is what the device was asked for by, its links resolved.
	Path  string `json:"path"`
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	// Weight is IOWeight at this device.
	Weight uint64 `json:"weight"`
	// Bytes and operations per second.
	ReadBPS   uint64 `json:"read_bps"`
	WriteBPS  uint64 `json:"write_bps"`
	ReadIOPS  uint64 `json:"read_iops"`
	WriteIOPS uint64 `json:"write_iops"`
}

// maxSet bounds the numbers of processors and memory nodes.
const maxSet = 8192

// ParseSet reads a list of numbers and ranges as the kernel writes them
// ("0-2,7"), in any order, and returns its one canonical form and how many
// numbers are in it.
func ParseSet(text string) (string, int, bool) {
	if len(text) > 64<<10 {
		return "", 0, false
	}
	in := make([]bool, maxSet)
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		a, ok := setNumber(first)
		b, ok2 := setNumber(last)
		if !ok || !ok2 || a > b {
			return "", 0, false
		}
		for n := a; n <= b; n++ {
			in[n] = true
		}
	}
	var out []string
	count := 0
	for n := 0; n < maxSet; n++ {
		if !in[n] {
			continue
		}
		first := n
		for n+1 < maxSet && in[n+1] {
			n++
		}
		count += n - first + 1
		s := strconv.Itoa(first)
		if n > first {
			s += "-" + strconv.Itoa(n)
		}
		out = append(out, s)
	}
	return strings.Join(out, ","), count, true
}

func setNumber(s string) (int, bool) {
	if s == "" || len(s) > 5 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n < maxSet
}

// SetWithin reports whether every number of the set a is in the set b, both as
// ParseSet reads them.
func SetWithin(a, b string) bool {
	both, n, ok := ParseSet(a + "," + b)
	canonical, m, ok2 := ParseSet(b)
	return ok && ok2 && n == m && both == canonical
}

// normal makes nil and empty lists the same.
func (l Limits) normal() Limits {
	l.IO = list(l.IO)
	return l
}

// inOrder reports whether the devices are sorted and none is there twice.
func inOrder(io []IOLimits) bool {
	for i := 1; i < len(io); i++ {
		a, b := io[i-1], io[i]
		if b.Major < a.Major || b.Major == a.Major && b.Minor <= a.Minor {
			return false
		}
	}
	return true
}
