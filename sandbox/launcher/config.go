package launcher

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// cgroupParent is where every container's cgroup is, in each hierarchy.
const cgroupParent = "/ward"

// containerConfig translates a checked plan into libcontainer's terms. It
// adds nothing a plan could not also lack: namespaces, fresh kernel file
// systems and the empty inheritable and ambient sets are for all.
func containerConfig(p sandbox.Plan, s *scratch) (*configs.Config, error) {
	seccomp, err := seccompConfig(p.Seccomp)
	if err != nil {
		return nil, err
	}
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
		Seccomp:       seccomp,
		Rlimits:       rlimits,
		MaskPaths:     p.MaskedPaths,
		ReadonlyPaths: p.ReadonlyPaths,
		Mounts:        containerMounts(p, s),
		Devices:       nodes(),
		Cgroups:       &cgroups.Cgroup{Path: cgroupPath(p), Resources: resources(p.Limits)},
	}
	if p.Network == sandbox.NetworkNone {
		c.Namespaces.Add(configs.NEWNET, "")
		c.Networks = []*configs.Network{{Type: "loopback"}}
	}
	return c, nil
}

func cgroupPath(p sandbox.Plan) string { return filepath.Join(cgroupParent, p.Run) }

func resources(l sandbox.Limits) *cgroups.Resources {
	pids := l.PIDs
	r := &cgroups.Resources{
		Memory:     l.Memory,
		MemorySwap: l.Memory + l.Swap,
		PidsLimit:  &pids,
		CpuQuota:   l.CPUQuota,
		CpuPeriod:  l.CPUPeriod,
		Devices:    []*devices.Rule{{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}},
	}
	for _, n := range nodes() {
		r.Devices = append(r.Devices, &n.Rule)
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

// containerMounts lists what is mounted inside, in order: the kernel's file
// systems, writable memory where the root is read-only, the files every
// program expects in /etc, and what the plan asks for.
func containerMounts(p sandbox.Plan, s *scratch) []*configs.Mount {
	m := func(device, target string, flags int, data string) *configs.Mount {
		return &configs.Mount{Device: device, Source: device, Destination: target, Flags: flags, Data: data}
	}
	all := []*configs.Mount{
		m("proc", "/proc", plain, ""),
		m("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_STRICTATIME, "mode=755,size=64k"),
		m("devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		m("tmpfs", "/dev/shm", plain, "mode=1777,size="+strconv.FormatInt(sandbox.TmpfsSize, 10)),
		m("mqueue", "/dev/mqueue", plain, ""),
		sysMount(p),
	}
	if !cgroups.IsCgroup2UnifiedMode() {
		// libcontainer leaves the directory above the version 1 hierarchies
		// writable, but makes every tmpfs of this list read-only at the end,
		// by its path: this one, soon covered, stands in for it.
		all = append(all, m("tmpfs", "/sys/fs/cgroup", shared, "mode=755,size=4k"))
	}
	all = append(all, m("cgroup", "/sys/fs/cgroup", shared, ""))
	taken := map[string]bool{}
	for _, pm := range p.Mounts {
		taken[pm.Target] = true
	}
	size := ",size=" + strconv.FormatInt(sandbox.TmpfsSize, 10)
	if !p.Root.Writable && !taken["/tmp"] {
		all = append(all, m("tmpfs", "/tmp", plain, "mode=1777"+size))
	}
	if !p.Root.Writable && !taken["/run"] {
		all = append(all, m("tmpfs", "/run", plain, "mode=755"+size))
	}
	for _, name := range etcNames {
		if target := "/etc/" + name; !taken[target] {
			bind := m("bind", target, unix.MS_BIND|shared, "")
			bind.Source = s.path("etc", name)
			all = append(all, bind)
		}
	}
	for i, pm := range p.Mounts {
		all = append(all, planMount(pm, s.path("binds", strconv.Itoa(i))))
	}
	return all
}

// sysMount is a fresh /sys, which the kernel ties to the network namespace;
// with the host's network only the host's can be shown, read-only throughout.
func sysMount(p sandbox.Plan) *configs.Mount {
	if p.Network == sandbox.NetworkNone {
		return &configs.Mount{Device: "sysfs", Source: "sysfs", Destination: "/sys", Flags: shared}
	}
	return &configs.Mount{Device: "bind", Source: "/sys", Destination: "/sys", Flags: unix.MS_BIND | unix.MS_REC | shared,
		RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}}
}

// planMount translates one mount of the plan; a bind's source has been placed
// at bindAt on the scratch already.
func planMount(pm sandbox.Mount, bindAt string) *configs.Mount {
	flags := unix.MS_NOSUID | unix.MS_NODEV
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if pm.ReadOnly {
		flags |= unix.MS_RDONLY
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if !pm.Exec {
		flags |= unix.MS_NOEXEC
		attr |= unix.MOUNT_ATTR_NOEXEC
	}
	if pm.Type == sandbox.MountTmpfs {
		return &configs.Mount{Device: "tmpfs", Source: "tmpfs", Destination: pm.Target, Flags: flags,
			Data: fmt.Sprintf("mode=%04o,size=%d", pm.Mode, pm.Size)}
	}
	// Recursive, and so are the flags: what is mounted below the source must
	// not keep set-user-id programs or stay writable (CVE-2021-43816 class).
	return &configs.Mount{Device: "bind", Source: bindAt, Destination: pm.Target, Flags: flags | unix.MS_BIND | unix.MS_REC,
		RecAttr: &unix.MountAttr{Attr_set: attr}}
}

// seccompConfig translates the profile the plan names. The floor has matched
// name and digest already; this matches them against the data itself.
func seccompConfig(want sandbox.Seccomp) (*configs.Seccomp, error) {
	p := profile.Default()
	if want.Profile != p.Name || want.Digest != profile.Digest() {
		return nil, fmt.Errorf("seccomp profile %q is not this launcher's", want.Profile)
	}
	ops := map[profile.Op]configs.Operator{
		profile.Equal: configs.EqualTo, profile.GreaterEqual: configs.GreaterThanOrEqualTo,
		profile.MaskedEqual: configs.MaskEqualTo,
	}
	// No architectures: the native one alone.
	out := &configs.Seccomp{DefaultAction: configs.Errno, DefaultErrnoRet: &p.DefaultErrno}
	for _, r := range p.Rules {
		var args []*configs.Arg
		for _, a := range r.Args {
			arg := &configs.Arg{Index: a.Index, Op: ops[a.Op], Value: a.Value}
			if a.Op == profile.MaskedEqual {
				arg.Value, arg.ValueTwo = a.Mask, a.Value
			}
			args = append(args, arg)
		}
		for _, name := range r.Names {
			call := &configs.Syscall{Name: name, Action: configs.Allow, Args: args}
			if r.Action == profile.Refuse {
				if r.Errno == p.DefaultErrno && len(args) == 0 {
					continue // the default says the same; libseccomp refuses the repetition
				}
				errno := r.Errno
				call.Action, call.ErrnoRet = configs.Errno, &errno
			}
			out.Syscalls = append(out.Syscalls, call)
		}
	}
	return out, nil
}
