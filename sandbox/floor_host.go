package sandbox

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Bounds on what reaches files and kernel settings of the container.
const (
	maxSysctls  = 128
	maxDevices  = 64
	maxHosts    = 1024
	maxResolver = 64
)

// ownSysctls are the kernel settings that belong to a namespace every
// container has of its own; those ending in a dot are whole subtrees. Anything
// else would set the host's. net. needs the network namespace too.
var ownSysctls = []string{
	"fs.mqueue.", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced", "net.",
}

func (f Floor) sysctls(p Plan) error {
	if len(p.Sysctls) > maxSysctls {
		return below("size", fmt.Sprintf("more than %d kernel settings", maxSysctls), "")
	}
	for i, s := range p.Sysctls {
		switch {
		case !isName(s.Name, 128, "._-") || strings.Contains(s.Name, ".."):
			// Dots become slashes: nothing may climb out of /proc/sys.
			return below("sysctl", fmt.Sprintf("%q is not the name of a kernel setting", s.Name), "write it with dots: net.ipv4.ip_forward")
		case i > 0 && p.Sysctls[i-1].Name >= s.Name:
			return below("sysctl", fmt.Sprintf("kernel setting %q is out of order or there twice", s.Name), "")
		case !slices.ContainsFunc(ownSysctls, func(own string) bool {
			return s.Name == own || strings.HasSuffix(own, ".") && strings.HasPrefix(s.Name, own)
		}):
			return below("sysctl", fmt.Sprintf("kernel setting %s belongs to the whole host", s.Name), "set it on the host")
		case strings.HasPrefix(s.Name, "net.") && p.Network == NetworkHost:
			return below("sysctl", fmt.Sprintf("with the host's network %s would be the host's", s.Name), "use a network of the container's own")
		case s.Value == "" || len(s.Value) > 256 || strings.Trim(s.Value, sysctlValue) != "":
			// No "+", no newline, no path: the value is a word or numbers (CVE-2022-0811).
			return below("sysctl", fmt.Sprintf("%q is not a value for %s", s.Value, s.Name), "give words or numbers")
		}
	}
	return nil
}

const sysctlValue = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-, \t"

func (f Floor) devices(p Plan) error {
	if len(p.Devices) > maxDevices {
		return below("size", fmt.Sprintf("more than %d devices", maxDevices), "")
	}
	seen := map[string]bool{}
	for _, d := range p.Devices {
		name, ok := strings.CutPrefix(d.Target, "/dev/")
		switch {
		case cleanPath(d.Target) != nil || !ok || path.Dir(name) != ".":
			return below("devices", fmt.Sprintf("%q is not a name in /dev", d.Target), "give --device PATH:/dev/NAME")
		case slices.Contains(fixedDevices, name) || seen[name]:
			return below("devices", fmt.Sprintf("%s is taken", d.Target), "choose another name in the container")
		case cleanPath(d.Source) != nil:
			return below("devices", fmt.Sprintf("%q is not an absolute, clean path", d.Source), "give --device an absolute path")
		case d.Type != "c" && d.Type != "b" || d.Major < 0 || d.Minor < 0 || d.Major > 1<<20 || d.Minor > 1<<20:
			return below("devices", fmt.Sprintf("%s is not a device", d.Source), "name a device of this host")
		case d.Access != "r" && d.Access != "w" && d.Access != "rw":
			return below("devices", fmt.Sprintf("%q is not an access to a device", d.Access), "use r, w or rw")
		case d.Type == "c" && d.Major == 1 && slices.Contains([]int64{1, 2, 4}, d.Minor):
			return below("devices", d.Source+" is the host's memory or its ports", "run without it")
		}
		seen[name] = true
	}
	return nil
}

// fixedDevices are the names in /dev that every container has.
var fixedDevices = []string{
	"console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
}

// names checks what becomes lines of the container's /etc/hosts and
// /etc/resolv.conf: a newline in one would be an entry of its own.
func (f Floor) names(p Plan) error {
	if len(p.Hosts) > maxHosts {
		return below("size", fmt.Sprintf("more than %d host names", maxHosts), "")
	}
	if p.Domainname != "" && !isName(p.Domainname, 64, ".-") {
		return below("hostname", fmt.Sprintf("%q is not a domain name", p.Domainname), "use letters, digits, dots and hyphens, 64 at most")
	}
	for _, h := range p.Hosts {
		if _, err := netip.ParseAddr(h.Address); err != nil || strings.Contains(h.Address, "%") || !isName(h.Name, 253, "_.-") {
			return below("hosts", fmt.Sprintf("%q at %q is not a host and its address", h.Name, h.Address), "give --add-host NAME:ADDRESS")
		}
	}
	r := p.Resolver
	if len(r.Servers)+len(r.Search)+len(r.Options) > maxResolver {
		return below("size", fmt.Sprintf("more than %d resolver settings", maxResolver), "")
	}
	for _, s := range r.Servers {
		if _, err := netip.ParseAddr(s); err != nil {
			return below("resolver", fmt.Sprintf("%q is not the address of a name server", s), "give --dns an IP address")
		}
	}
	for _, s := range r.Search {
		if s != "." && !isName(s, 253, "_.-") {
			return below("resolver", fmt.Sprintf("%q is not a search domain", s), "give --dns-search a domain name, or .")
		}
	}
	for _, s := range r.Options {
		if !isName(s, 64, "_:-") {
			return below("resolver", fmt.Sprintf("%q is not a resolver option", s), "see resolv.conf(5)")
		}
	}
	return nil
}
