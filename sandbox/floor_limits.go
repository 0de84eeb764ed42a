package sandbox

import "fmt"

// Bounds on relative weights, as the kernel has them, and on throttled devices.
const (
	maxShares    = 1 << 18
	minIOWeight  = 10
	maxIOWeight  = 1000
	maxIODevices = 64
	maxRate      = 1 << 50
	maxIOPS      = 1 << 30 // the kernel has 32 bits for it

	maxOOMScoreAdj = 1000
	rlimInfinity   = 1<<64 - 1
)

func (f Floor) limits(p Plan) error {
	l := p.Limits
	switch {
	case l.Memory <= 0 || l.Memory > maxMemory:
		return below("memory", fmt.Sprintf("a memory limit of %d bytes is not a limit", l.Memory), "set --memory")
	case l.Swap < 0 || l.Swap > maxMemory:
		return below("swap", fmt.Sprintf("a swap limit of %d bytes is not a limit", l.Swap), "set --memory-swap")
	case l.Reservation < 0 || l.Reservation > l.Memory:
		return below("reservation", fmt.Sprintf("a reservation of %d bytes is not within the memory limit of %d", l.Reservation, l.Memory),
			"set --memory-reservation to at most --memory")
	case l.Output < 0 || l.Output > maxMemory:
		return below("output", fmt.Sprintf("keeping %d bytes of output is not a limit", l.Output), "")
	case l.OutputFiles != 0 && (l.OutputFiles < 0 || l.OutputFiles > 1000 || l.OutputFile < minOutputFile || l.OutputFile > maxMemory/1000),
		l.OutputFiles == 0 && l.OutputFile != 0:
		return below("output", fmt.Sprintf("%d files of %d bytes of output are not a limit", l.OutputFiles, l.OutputFile),
			"set --log-opt max-size to at least 64k and max-file to at most 1000")
	case l.Shm <= 0 || l.Shm > maxMemory:
		return below("shm", fmt.Sprintf("a /dev/shm of %d bytes is not a limit", l.Shm), "set --shm-size")
	case l.PIDs <= 0 || l.PIDs > maxPIDs:
		return below("pids", fmt.Sprintf("a limit of %d processes is not a limit", l.PIDs), "set --pids-limit")
	case l.CPUPeriod < 1000 || l.CPUPeriod > 1_000_000:
		return below("cpu", fmt.Sprintf("a processor period of %d µs is outside 1000–1000000", l.CPUPeriod), "set --cpus or --cpu-period")
	case l.CPUQuota < 1000 || l.CPUQuota > int64(l.CPUPeriod)*maxCPUs:
		return below("cpu", fmt.Sprintf("a processor quota of %d µs is not a limit", l.CPUQuota), "set --cpus or --cpu-quota")
	case l.CPUShares == 1 || l.CPUShares > maxShares:
		return below("cpu-shares", fmt.Sprintf("%d processor shares are outside 2–%d", l.CPUShares, maxShares), "set --cpu-shares")
	case p.Process.OOMScoreAdj < 0 || p.Process.OOMScoreAdj > maxOOMScoreAdj:
		return below("oom-score", fmt.Sprintf("an OOM score adjustment of %d is outside 0–%d: others would be killed for the container", p.Process.OOMScoreAdj, maxOOMScoreAdj),
			"set --oom-score-adj to 0 or more")
	}
	return nil
}

// sets are written to files of the kernel: only the one canonical spelling.
func (f Floor) sets(p Plan) error {
	for what, set := range map[string]string{"processors": p.Limits.CPUSet, "memory nodes": p.Limits.MemSet} {
		if set == "" {
			continue
		}
		if canonical, _, ok := ParseSet(set); !ok || canonical != set {
			return below("cpuset", fmt.Sprintf("%.64q is not a list of %s", set, what), "write it like 0-2,7")
		}
	}
	return nil
}

func (f Floor) io(p Plan) error {
	l := p.Limits
	if l.IOWeight != 0 && (l.IOWeight < minIOWeight || l.IOWeight > maxIOWeight) {
		return below("io", fmt.Sprintf("an I/O weight of %d is outside %d–%d", l.IOWeight, minIOWeight, maxIOWeight), "set --blkio-weight")
	}
	if len(l.IO) > maxIODevices {
		return below("size", fmt.Sprintf("limits at more than %d devices", maxIODevices), "")
	}
	if !inOrder(l.IO) {
		return below("io", "the devices of the I/O limits are out of order or there twice", "")
	}
	for _, d := range l.IO {
		switch {
		case cleanPath(d.Path) != nil || d.Major < 0 || d.Minor < 0 || d.Major > 1<<20 || d.Minor > 1<<20:
			return below("io", fmt.Sprintf("%.200q is not a block device", d.Path), "name a block device of this host")
		case d.Weight != 0 && (d.Weight < minIOWeight || d.Weight > maxIOWeight):
			return below("io", fmt.Sprintf("an I/O weight of %d is outside %d–%d", d.Weight, minIOWeight, maxIOWeight), "set --blkio-weight-device")
		case max(d.ReadBPS, d.WriteBPS) > maxRate || max(d.ReadIOPS, d.WriteIOPS) > maxIOPS:
			return below("io", fmt.Sprintf("a rate at %s is too high to be a limit", d.Path), "")
		case d.Weight == 0 && d.ReadBPS == 0 && d.WriteBPS == 0 && d.ReadIOPS == 0 && d.WriteIOPS == 0:
			return below("io", "there is no limit for "+d.Path, "")
		}
	}
	return nil
}

func (f Floor) rlimits(p Plan) error {
	seen := map[string]bool{}
	for _, r := range p.Process.Rlimits {
		if _, known := RlimitNumber(r.Type); !known || seen[r.Type] || r.Soft > r.Hard {
			return below("rlimits", fmt.Sprintf("%q is unknown, listed twice or has a soft limit above its hard one", r.Type), "")
		}
		seen[r.Type] = true
		switch {
		case r.Hard == rlimInfinity:
			return below("rlimits", r.Type+" is not a finite limit", "give a number: --ulimit NAME=SOFT:HARD")
		case r.Hard > 0 && (r.Type == "RLIMIT_NICE" || r.Type == "RLIMIT_RTPRIO"):
			// Both let a process without privilege go before all others.
			return below("rlimits", r.Type+" would let the payload raise its own priority", "run without it")
		}
	}
	if !seen["RLIMIT_NOFILE"] {
		return below("rlimits", "there is no limit on open files", "")
	}
	return nil
}
