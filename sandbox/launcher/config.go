package launcher

import (
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// cgroupParent is where every container's cgroup is, in each hierarchy.
const cgroupParent = "/" + sandbox.CgroupParent

// containerConfig translates a checked plan into libcontainer's terms. It
// adds nothing a plan could not also lack: namespaces, fresh kernel file
// systems and the empty inheritable and ambient sets are for all. The filter
// is not in it: the stage installs that (stage.go), and this program's init
// does not go on without a stage.
func containerConfig(p sandbox.Plan, s *scratch) (*configs.Config, error) {
	rlimits, err := clampedRlimits(p.Process.Rlimits)
	if err != nil {
		return nil, err
	}
	ids := []configs.IDMap{{ContainerID: 0, HostID: int64(p.IDMap.Base), Size: int64(p.IDMap.Size)}}
	c := &configs.Config{
		Rootfs:          s.path("root"),
		Readonlyfs:      !p.Root.Writable,
		RootPropagation: unix.MS_PRIVATE | unix.MS_REC,
		Hostname:        p.Hostname,
		Domainname:      p.Domainname,
		Sysctl:          sysctls(p.Sysctls),
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER}, {Type: configs.NEWPID}, {Type: configs.NEWIPC}, {Type: configs.NEWUTS},
			{Type: configs.NEWNS}, {Type: configs.NEWCGROUP},
		},
		UIDMappings:     ids,
		GIDMappings:     ids,
		NoNewPrivileges: p.Process.NoNewPrivs,
		Capabilities: &configs.Capabilities{
			Bounding:  p.Process.Capabilities,
			Permitted: p.Process.Capabilities,
			Effective: p.Process.Capabilities,
		},
		Rlimits:       rlimits,
		OomScoreAdj:   &p.Process.OOMScoreAdj,
		MaskPaths:     p.MaskedPaths,
		ReadonlyPaths: p.ReadonlyPaths,
		Mounts:        innerMounts(p, s),
		Cgroups:       &cgroups.Cgroup{Path: cgroupPath(p), Resources: resources(p)},
	}
	if p.Network == sandbox.NetworkNone {
		c.Namespaces.Add(configs.NEWNET, "")
		c.Networks = []*configs.Network{{Type: "loopback"}}
	}
	return c, ownClocks(c)
}

func cgroupPath(p sandbox.Plan) string { return filepath.Join(cgroupParent, p.Container) }

func sysctls(list []sandbox.Sysctl) map[string]string {
	m := make(map[string]string, len(list))
	for _, s := range list {
		m[s.Name] = s.Value
	}
	return m
}

func resources(p sandbox.Plan) *cgroups.Resources {
	r := limitsOf(p.Limits)
	r.Devices = []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}}
	for _, n := range nodes() {
		r.Devices = append(r.Devices, &n.Rule)
	}
	for _, d := range p.Devices {
		rule := &devices.Rule{Type: devices.Type(d.Type[0]), Major: d.Major, Minor: d.Minor,
			Permissions: devices.Permissions(d.Access), Allow: true}
		// The kernel keeps two rules about one device apart; ours read back as one.
		i := slices.IndexFunc(r.Devices, func(o *devices.Rule) bool {
			return o.Type == rule.Type && o.Major == rule.Major && o.Minor == rule.Minor
		})
		if i < 0 {
			r.Devices = append(r.Devices, rule)
		} else if r.Devices[i].Permissions != rule.Permissions {
			r.Devices[i].Permissions = "rw"
		}
	}
	// /dev/ptmx and the terminals behind it, which are the container's own.
	for _, major := range []struct{ major, minor int64 }{{5, 2}, {136, devices.Wildcard}} {
		r.Devices = append(r.Devices, &devices.Rule{Type: devices.CharDevice, Major: major.major, Minor: major.minor,
			Permissions: "rw", Allow: true})
	}
	return r
}

// nodes are the devices of every container: those that do nothing to the host.
func nodes() []*devices.Device {
	var out []*devices.Device
	for _, n := range []struct {
		path         string
		major, minor int64
	}{
		{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9},
		{"/dev/tty", 5, 0},
	} {
		out = append(out, &devices.Device{Path: n.path, FileMode: 0o666, Rule: devices.Rule{
			Type: devices.CharDevice, Major: n.major, Minor: n.minor, Permissions: "rw", Allow: true}})
	}
	return out
}

const (
	plain  = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	shared = plain | unix.MS_RDONLY
)

// innerMounts lists what has to be mounted from inside the container's
// namespaces, in order; all else is in place already (furnish).
func innerMounts(p sandbox.Plan, s *scratch) []*configs.Mount {
	m := func(device, target string, flags int) *configs.Mount {
		return &configs.Mount{Device: device, Source: device, Destination: target, Flags: flags}
	}
	bind := func(name, target string, flags int) *configs.Mount {
		return &configs.Mount{Device: "bind", Source: s.path(name), Destination: target, Flags: unix.MS_BIND | unix.MS_REC | flags}
	}
	// Of another user's processes in the container nothing shows, not even that
	// they are there: their command lines hold secrets.
	proc := m("proc", "/proc", plain)
	proc.Data = "hidepid=invisible"
	if l := p.Landlock; l.Paths || l.AbstractSockets || l.TCP {
		// Between two starts not even one's own processes would show, as each
		// has its own domain; ps and pgrep by exec are for them.
		proc.Data += ",gid=" + strconv.FormatUint(uint64(p.Process.GID), 10)
	}
	all := []*configs.Mount{proc, bind("dev", "/dev", 0), m("mqueue", "/dev/mqueue", plain)}
	// A fresh /sys is tied to the network namespace; with the host's network
	// only the host's can be shown, read-only throughout.
	if p.Network == sandbox.NetworkNone {
		all = append(all, m("sysfs", "/sys", shared))
	} else {
		all = append(all, &configs.Mount{Device: "bind", Source: "/sys", Destination: "/sys", Flags: unix.MS_BIND | unix.MS_REC | shared,
			RecAttr: &unix.MountAttr{Attr_set: noexec | unix.MOUNT_ATTR_RDONLY}})
	}
	if cgroups.IsCgroup2UnifiedMode() {
		return append(all, m("cgroup", "/sys/fs/cgroup", shared))
	}
	return append(all, bind("cgroup", "/sys/fs/cgroup", shared))
}
