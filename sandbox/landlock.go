package sandbox

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Landlock is what the kernel's Landlock adds to a container's other walls, for
// its first process and for each later one. It follows from the rest of the
// plan and from the kernel (Plan.Landlocked); what it could do and does not has
// its reason in Missing.
type Landlock struct {
	// ABI is the version the kernel offered when the plan was made; 0 is no
	// Landlock. A launcher that finds another one refuses.
	ABI int `json:"abi"`
	// Paths: no file is opened, made or removed but beneath the container's own
	// "/", whatever descriptor somebody got hold of.
	Paths bool `json:"paths"`
	// AbstractSockets: those of the host's network are out of reach.
	AbstractSockets bool `json:"abstract_sockets"`
	// TCP: on the host's network only the ports of these lists can be bound to
	// and connected to. Their elements are numbers; AnyPort alone is all.
	TCP        bool     `json:"tcp"`
	TCPBind    []string `json:"tcp_bind"`
	TCPConnect []string `json:"tcp_connect"`
	// Missing is why not all of it is there; empty if nothing is missing.
	Missing LandlockMissing `json:"missing"`
}

// LandlockMissing is why a container has less than all of Landlock.
type LandlockMissing string

// The reasons.
const (
	// LandlockOff was asked for, and policy has let it through.
	LandlockOff LandlockMissing = "off"
	// LandlockPtrace: a process in a domain can look into those of its own
	// domain alone, whatever its capabilities, and each start has its own.
	LandlockPtrace LandlockMissing = "CAP_SYS_PTRACE"
	// LandlockKernel: the kernel is too old, or was told to do without.
	LandlockKernel LandlockMissing = "kernel"
)

// Versions of Landlock, and what came with them: renaming across directories
// (before, a domain forbade it outright), TCP, abstract sockets.
const (
	landlockPaths    = 2
	landlockTCP      = 4
	landlockAbstract = 6
)

// AnyPort in a list of ports is all of them.
const AnyPort = "*"

// maxPorts bounds a list of ports: each is a system call at each start.
const maxPorts = 256

// LandlockABI is the version of Landlock that this kernel offers, 0 for none.
func LandlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 { // not built in, or not switched on
		return 0
	}
	return int(abi)
}

// Landlocked returns p with all of Landlock that fits it on a kernel that
// offers this version, and with the part of the system-call filter that belongs
// to it. The ports are p's own.
func (p Plan) Landlocked(abi int, off bool) Plan {
	host := p.Network == NetworkHost
	debugger := slices.Contains(p.Process.Capabilities, "CAP_SYS_PTRACE")
	l := Landlock{ABI: abi, TCPBind: p.Landlock.TCPBind, TCPConnect: p.Landlock.TCPConnect}
	switch {
	case off:
		l.Missing = LandlockOff
	case abi < landlockPaths, host && abi < landlockAbstract:
		l.Missing = LandlockKernel
	case debugger:
		l.Missing = LandlockPtrace
	}
	if !off {
		l.Paths = abi >= landlockPaths && !debugger
		l.AbstractSockets = host && abi >= landlockAbstract
		l.TCP = host && abi >= landlockTCP
	}
	p.Landlock, p.Seccomp.PlainTCP = l, l.TCP
	return p
}

// landlock refuses a plan with less of Landlock than it could have. Whether it
// may be off is policy's.
func (f Floor) landlock(p Plan) error {
	l := p.Landlock
	if l.ABI < 0 {
		return below("landlock", fmt.Sprintf("%d is not a version of Landlock", l.ABI), "")
	}
	if full := p.Landlocked(l.ABI, l.Missing == LandlockOff); !reflect.DeepEqual(full.Landlock, l) {
		return below("landlock", "the plan leaves out a part of Landlock, or says so wrongly", "")
	} else if full.Seccomp.PlainTCP != p.Seccomp.PlainTCP {
		return below("seccomp", "the system-call filter does not go with what Landlock does about TCP", "")
	}
	return CheckTCPPorts(p.Network, l.TCPBind, l.TCPConnect)
}

// CheckTCPPorts returns nil if these are lists of ports that a plan may carry
// for a container on this network.
func CheckTCPPorts(n Network, lists ...[]string) error {
	for _, ports := range lists {
		if err := checkPorts(n, ports); err != nil {
			return err
		}
	}
	return nil
}

func checkPorts(n Network, ports []string) error {
	if n != NetworkHost && len(ports) > 0 {
		return below("tcp-ports", "ports of the host are named, and the container is not on its network", "leave them out, or use --network host")
	}
	if len(ports) > maxPorts {
		return below("size", fmt.Sprintf("more than %d TCP ports", maxPorts), "")
	}
	for i, port := range ports {
		n, err := strconv.ParseUint(port, 10, 16)
		if port == AnyPort && len(ports) == 1 {
			return nil
		}
		if err != nil || strconv.FormatUint(n, 10) != port {
			return below("tcp-ports", fmt.Sprintf("%.32q is not a TCP port", port), `name numbers from 0 to 65535, or "*" alone`)
		}
		if slices.Contains(ports[:i], port) {
			return below("tcp-ports", "port "+port+" is listed twice", "")
		}
	}
	return nil
}
