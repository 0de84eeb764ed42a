package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// DeviceRequest asks for a device of the host, as Docker's --device does.
type DeviceRequest struct {
	// Source is its path on the host, Target its name in the container's /dev;
	// empty means the same.
	Source, Target string
	// Access is "r", "w" or "rw"; empty means "rw".
	Access string
}

// devices looks each device up: policy judges, and the container gets, what
// the path was at this moment.
func devices(asked []DeviceRequest) ([]sandbox.Device, error) {
	var out []sandbox.Device
	for _, a := range asked {
		bad := func(err error) error {
			return fault.Wrap(fault.Invalid, "run.device", fmt.Errorf("device %.200q: %w", a.Source, err), "name a device of this host: --device /dev/NAME[:/dev/NAME][:rw]")
		}
		real, err := filepath.EvalSymlinks(a.Source)
		if err != nil {
			return nil, bad(err)
		}
		if real, err = filepath.Abs(real); err != nil {
			return nil, bad(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(real, &st); err != nil {
			return nil, bad(err)
		}
		kind := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			kind = "c"
		case unix.S_IFBLK:
			kind = "b"
		case unix.S_IFDIR:
			return nil, bad(errors.New("a directory of devices is not there yet"))
		default:
			return nil, bad(errors.New("not a device"))
		}
		d := sandbox.Device{Source: real, Target: a.Target, Type: kind, Access: a.Access,
			Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
		if d.Target == "" {
			d.Target = filepath.Clean(a.Source)
		}
		if d.Access == "" {
			d.Access = "rw"
		}
		out = append(out, d)
	}
	return out, nil
}

// sysctls are the settings sorted by name; written with dots or slashes.
func sysctls(asked map[string]string) []sandbox.Sysctl {
	var out []sandbox.Sysctl
	for name, value := range asked {
		out = append(out, sandbox.Sysctl{Name: strings.ReplaceAll(name, "/", "."), Value: value})
	}
	slices.SortFunc(out, func(a, b sandbox.Sysctl) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// groupAdd adds groups, by number or by a name of the image's, to those that
// the user has.
func groupAdd(have []uint32, asked []string, group []byte) ([]uint32, error) {
	for _, g := range asked {
		n, isNumber, ok := number(g)
		if isNumber && !ok {
			return nil, fault.New(fault.Invalid, "run.group", fmt.Sprintf("--group-add %.64q is not a group", g), "give a name, or a number from 0 to 65535")
		}
		if !isNumber {
			for _, f := range accounts(group, 3) {
				if f[0] == g {
					n, _, ok = number(f[2])
					break
				}
			}
			if !ok {
				return nil, fault.New(fault.Invalid, "run.group", fmt.Sprintf("the image's /etc/group has no %.64q", g), "give a number from 0 to 65535")
			}
		}
		if !slices.Contains(have, n) {
			have = append(have, n)
		}
	}
	return have, nil
}

// hostNames are the lines of /etc/hosts asked for as NAME:ADDRESS.
func hostNames(asked []string) ([]sandbox.HostName, error) {
	var out []sandbox.HostName
	for _, h := range asked {
		name, addr, ok := strings.Cut(h, ":")
		if n, a, eq := strings.Cut(h, "="); eq && !strings.Contains(n, ":") {
			name, addr, ok = n, a, true // Docker's newer spelling, for IPv6
		}
		addr = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
		if addr == "host-gateway" {
			return nil, fault.New(fault.Invalid, "run.add-host", "host-gateway needs a network with a gateway, which is not there yet", "give an address")
		}
		ip, err := netip.ParseAddr(addr)
		if !ok || err != nil || ip.Zone() != "" {
			return nil, fault.New(fault.Invalid, "run.add-host", fmt.Sprintf("--add-host %.128q is not NAME:ADDRESS", h), "give a name and an IP address")
		}
		out = append(out, sandbox.HostName{Name: name, Address: ip.String()})
	}
	return out, nil
}
