package engine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// Resources are the limits of a request. Zero means the finite default for
// those that every container has, and none for the others.
type Resources struct {
	// Memory, Swap and Reservation are bytes; Swap is what may be used on top
	// of Memory.
	Memory      int64
	Swap        int64
	Reservation int64 `json:",omitempty"`
	// CPUs is in processors; CPUQuota and CPUPeriod say the same in
	// microseconds.
	CPUs      float64
	CPUQuota  int64  `json:",omitempty"`
	CPUPeriod uint64 `json:",omitempty"`
	CPUShares uint64 `json:",omitempty"`
	// CPUSet and MemSet are lists like "0-2,7".
	CPUSet   string `json:",omitempty"`
	MemSet   string `json:",omitempty"`
	PIDs     int64
	IOWeight uint64        `json:",omitempty"`
	IO       []DeviceLimit `json:",omitempty"`

	// These cannot be changed once the container runs.

	// Shm is the size of /dev/shm, in bytes.
	Shm         int64            `json:",omitempty"`
	OOMScoreAdj int              `json:",omitempty"`
	Ulimits     []sandbox.Rlimit `json:",omitempty"`
}

// DeviceLimit is one limit at a block device of the host.
type DeviceLimit struct {
	Path string
	Kind IOKind
	// Amount is a weight, or bytes or operations per second.
	Amount uint64
}

// IOKind says what a DeviceLimit limits.
type IOKind string

// The limits there are at a device.
const (
	IOWeight    IOKind = "weight"
	IOReadBPS   IOKind = "read-bps"
	IOWriteBPS  IOKind = "write-bps"
	IOReadIOPS  IOKind = "read-iops"
	IOWriteIOPS IOKind = "write-iops"
)

// limits are the request's, with the defaults for the rest, on a host with so
// many processors.
func limits(req Request, cpus int) (sandbox.Limits, error) {
	l := sandbox.DefaultLimits()
	l.Memory, l.Swap, l.PIDs = cmp.Or(req.Memory, l.Memory), req.Swap, cmp.Or(req.PIDs, l.PIDs)
	l.Shm, l.Reservation, l.CPUShares, l.IOWeight = cmp.Or(req.Shm, l.Shm), req.Reservation, req.CPUShares, req.IOWeight
	if req.CPUs != 0 && (req.CPUQuota != 0 || req.CPUPeriod != 0) {
		return l, fault.New(fault.Invalid, "run.limits", "processors are given twice: as a number and as quota and period", "give --cpus, or --cpu-quota and --cpu-period")
	}
	byDefault := float64(l.CPUQuota) / float64(l.CPUPeriod)
	l.CPUPeriod = cmp.Or(req.CPUPeriod, l.CPUPeriod)
	switch {
	case req.CPUs != 0:
		l.CPUQuota = quota(req.CPUs, l.CPUPeriod)
	case req.CPUQuota != 0:
		l.CPUQuota = req.CPUQuota
	default:
		// A default beyond what the host has would be denied by policy.
		l.CPUQuota = quota(min(byDefault, float64(cpus)), l.CPUPeriod)
	}
	var err error
	if l.CPUSet, err = hostSet("cpuset-cpus", req.CPUSet, "/sys/devices/system/cpu/online"); err != nil {
		return l, err
	}
	if l.MemSet, err = hostSet("cpuset-mems", req.MemSet, "/sys/devices/system/node/online"); err != nil {
		return l, err
	}
	l.IO, err = deviceLimits(req.IO)
	return l, err
}

// quota is processors as microseconds a period. Absurd numbers become
// negative or zero, which policy and floor refuse as "not finite".
func quota(cpus float64, period uint64) int64 {
	if q := math.Round(cpus * float64(period)); q < math.MaxInt32 {
		return int64(q)
	}
	return -1
}

// hostSet reads a list of processors or memory nodes, all of which must be
// there.
func hostSet(flag, asked, file string) (string, error) {
	if asked == "" {
		return "", nil
	}
	set, _, ok := sandbox.ParseSet(asked)
	if !ok {
		return "", fault.New(fault.Invalid, "run.cpuset", fmt.Sprintf("--%s %.64q is not a list of numbers", flag, asked), "write it like 0-2,7")
	}
	online := "0" // a kernel without memory nodes has one
	b, err := os.ReadFile(file)
	if err == nil {
		online = strings.TrimSpace(string(b))
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fault.Wrap(fault.Unavailable, "run.cpuset", err, "")
	}
	if !sandbox.SetWithin(set, online) {
		return "", fault.New(fault.Invalid, "run.cpuset", fmt.Sprintf("--%s: %.64s is asked for and %s is there", flag, set, online), "name what this host has")
	}
	return set, nil
}

// deviceLimits looks each device up and gathers what is said about it.
func deviceLimits(asked []DeviceLimit) ([]sandbox.IOLimits, error) {
	var out []sandbox.IOLimits
	for _, a := range asked {
		d, err := blockDevice(a.Path)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "run.io", fmt.Errorf("device %.200q: %w", a.Path, err), "name a block device of this host, as lsblk lists them")
		}
		i := slices.IndexFunc(out, func(o sandbox.IOLimits) bool { return o.Major == d.Major && o.Minor == d.Minor })
		if i < 0 {
			i, out = len(out), append(out, d)
		}
		of := &out[i]
		at, known := map[IOKind]*uint64{IOWeight: &of.Weight, IOReadBPS: &of.ReadBPS, IOWriteBPS: &of.WriteBPS,
			IOReadIOPS: &of.ReadIOPS, IOWriteIOPS: &of.WriteIOPS}[a.Kind]
		if !known || a.Amount == 0 {
			return nil, fault.New(fault.Invalid, "run.io", fmt.Sprintf("device %.200q: %.32q of %d is not a limit", a.Path, string(a.Kind), a.Amount), "give an amount above zero")
		}
		*at = a.Amount // the last one counts, as Docker has it
	}
	slices.SortFunc(out, func(a, b sandbox.IOLimits) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor))
	})
	return out, nil
}

func blockDevice(path string) (sandbox.IOLimits, error) {
	var d sandbox.IOLimits
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return d, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(real, &st); err != nil {
		return d, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return d, errors.New("not a block device")
	}
	d.Path, d.Major, d.Minor = real, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	// The kernel counts at whole disks.
	if _, err := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d/partition", d.Major, d.Minor)); err == nil {
		return d, errors.New("a part of a disk has no limits of its own; name the disk")
	}
	return d, nil
}

// ulimitNames are the names that --ulimit takes.
var ulimitNames = map[string]string{
	"as": "RLIMIT_AS", "core": "RLIMIT_CORE", "cpu": "RLIMIT_CPU", "data": "RLIMIT_DATA", "fsize": "RLIMIT_FSIZE",
	"locks": "RLIMIT_LOCKS", "memlock": "RLIMIT_MEMLOCK", "msgqueue": "RLIMIT_MSGQUEUE", "nice": "RLIMIT_NICE",
	"nofile": "RLIMIT_NOFILE", "nproc": "RLIMIT_NPROC", "rss": "RLIMIT_RSS", "rtprio": "RLIMIT_RTPRIO",
	"rttime": "RLIMIT_RTTIME", "sigpending": "RLIMIT_SIGPENDING", "stack": "RLIMIT_STACK",
}

// ParseUlimit reads Docker's NAME=SOFT[:HARD]. "Unlimited" is not a limit.
func ParseUlimit(text string) (sandbox.Rlimit, error) {
	bad := func(why string) (sandbox.Rlimit, error) {
		return sandbox.Rlimit{}, fault.New(fault.Invalid, "run.ulimit", fmt.Sprintf("--ulimit %.64q %s", text, why), "write it like nofile=1024:2048")
	}
	name, values, ok := strings.Cut(text, "=")
	kind, known := ulimitNames[name]
	if !ok || !known {
		return bad("is not NAME=SOFT[:HARD] with a name that is known")
	}
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	if soft == "-1" || hard == "-1" || soft == "unlimited" || hard == "unlimited" {
		return bad("is not a finite limit")
	}
	s, err := strconv.ParseUint(soft, 10, 63)
	if err != nil {
		return bad("is not a number")
	}
	h, err := strconv.ParseUint(hard, 10, 63)
	if err != nil {
		return bad("is not a number")
	}
	if s > h {
		return bad("has a soft limit above its hard one")
	}
	return sandbox.Rlimit{Type: kind, Soft: s, Hard: h}, nil
}

// wanted are the defaults with what is asked for in their place, sorted.
func wanted(asked []sandbox.Rlimit) []sandbox.Rlimit {
	out := sandbox.DefaultRlimits()
	for _, a := range asked {
		if i := slices.IndexFunc(out, func(r sandbox.Rlimit) bool { return r.Type == a.Type }); i >= 0 {
			out[i] = a
		} else {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b sandbox.Rlimit) int { return strings.Compare(a.Type, b.Type) })
	return out
}

// rlimits are those of the request, none above what this process may set
// without privilege: a container needs no more than its starter has.
func rlimits(req Request) ([]sandbox.Rlimit, error) {
	out := wanted(req.Ulimits)
	for i, r := range out {
		var err error
		if out[i], err = sandbox.ClampRlimit(r); err != nil {
			return nil, fault.Wrap(fault.Invalid, "run.ulimit", err, "see ward run --help")
		}
	}
	return out, nil
}

// lowered says, for people, which limits of the request the plan does not
// have in full.
func lowered(req Request, p sandbox.Plan) []string {
	var notes []string
	for _, w := range wanted(req.Ulimits) {
		for _, r := range p.Process.Rlimits {
			if r.Type == w.Type && r != w {
				notes = append(notes, fmt.Sprintf("%s is %d:%d and not %d:%d: the caller's own hard limit",
					r.Type, r.Soft, r.Hard, w.Soft, w.Hard))
			}
		}
	}
	return notes
}

// policyLimits are the plan's limits as policy sees them.
func policyLimits(p sandbox.Plan) policy.Limits {
	l := p.Limits
	out := policy.Limits{
		Memory: l.Memory, Swap: l.Swap, PIDs: l.PIDs, CPUs: float64(l.CPUQuota) / float64(l.CPUPeriod),
		Reservation: l.Reservation, Shm: l.Shm, CPUShares: l.CPUShares, IOWeight: l.IOWeight, CPUSet: l.CPUSet, MemSet: l.MemSet,
		OOMScoreAdj: p.Process.OOMScoreAdj,
	}
	for _, d := range l.IO {
		out.IO = append(out.IO, policy.IOLimit{Device: d.Path, Weight: d.Weight, ReadBPS: d.ReadBPS, WriteBPS: d.WriteBPS,
			ReadIOPS: d.ReadIOPS, WriteIOPS: d.WriteIOPS})
	}
	for _, r := range p.Process.Rlimits {
		out.Ulimits = append(out.Ulimits, policy.Ulimit(r))
	}
	return out
}
