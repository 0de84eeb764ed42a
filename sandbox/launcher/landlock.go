package launcher

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// domain is the Landlock domain that the stage puts itself in, as the kernel's
// interface has it: what is handled, and so refused unless a rule allows it.
// All that is handled of files is allowed beneath "/" by the stage itself.
type domain struct {
	fs, net, scoped uint64
	// ports are what of net is allowed.
	ports []portRule
}

// portRule is struct landlock_net_port_attr.
type portRule struct{ access, port uint64 }

// domainOf translates what the plan says. The kernel must be the one that the
// plan was made on: an older one would take less, and the record said more.
//
// Signals are not scoped: each process that is started in a container later
// has a domain of its own, and could not signal the first one.
func domainOf(p sandbox.Landlock) (domain, error) {
	var d domain
	if abi := sandbox.LandlockABI(); abi != p.ABI {
		return d, fault.New(fault.Unavailable, "launch.landlock",
			fmt.Sprintf("the kernel offers version %d of Landlock, and the plan was made for %d", abi, p.ABI), "start the container again")
	}
	if p.Paths {
		d.fs = fileAccess(p.ABI)
	}
	if p.AbstractSockets {
		d.scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	if !p.TCP {
		return d, nil
	}
	for _, l := range []struct {
		access uint64
		ports  []string
	}{{unix.LANDLOCK_ACCESS_NET_BIND_TCP, p.TCPBind}, {unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, p.TCPConnect}} {
		if slices.Contains(l.ports, sandbox.AnyPort) {
			continue
		}
		d.net |= l.access
		for _, s := range l.ports {
			port, err := strconv.ParseUint(s, 10, 16)
			if err != nil {
				return domain{}, err
			}
			d.ports = append(d.ports, portRule{l.access, port})
		}
	}
	return d, nil
}

// fileAccess is every access to files that a version of Landlock knows.
func fileAccess(abi int) uint64 {
	access := uint64(unix.LANDLOCK_ACCESS_FS_REFER)<<1 - 1
	if abi >= 3 {
		access |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		access |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return access
}

// encode appends d as the end of struct settings in stage.c; at is where the
// rules will be.
func (d domain) encode(b []byte, at int) []byte {
	for _, v := range []uint64{d.fs, d.net, d.scoped} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	return binary.LittleEndian.AppendUint32(b, uint32(len(d.ports)))
}

// rules are d's, as the kernel reads them.
func (d domain) rules() []byte {
	var b []byte
	for _, r := range d.ports {
		b = binary.LittleEndian.AppendUint64(b, r.access)
		b = binary.LittleEndian.AppendUint64(b, r.port)
	}
	return b
}
