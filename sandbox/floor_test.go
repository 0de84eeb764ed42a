package sandbox_test

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func TestZeroFloorRefusesEverything(t *testing.T) {
	if err := (sandbox.Floor{}).Check(good()); !errors.Is(err, fault.Denied) {
		t.Fatalf("the zero floor let a plan through: %v", err)
	}
	if err := sandbox.DefaultFloor().Check(sandbox.Plan{}); !errors.Is(err, fault.Denied) {
		t.Fatalf("the zero plan passed the floor: %v", err)
	}
	if err := sandbox.DefaultFloor().Check(good()); err != nil {
		t.Fatalf("a plan at the floor: %v", err)
	}
}

func tmpfs(target string) sandbox.Mount {
	return sandbox.Mount{Type: sandbox.MountTmpfs, Target: target, Size: 1 << 20}
}

func bind(source, target string) sandbox.Mount {
	return sandbox.Mount{Type: sandbox.MountBind, Source: source, Target: target}
}

type spoil struct {
	rule, name string
	do         func(p *sandbox.Plan)
}

func processSpoils() []spoil {
	return []spoil{
		{"run", "short", func(p *sandbox.Plan) { p.Run = "ab" }},
		{"run", "upper case", func(p *sandbox.Plan) { p.Run = strings.Repeat("AB", 32) }},
		{"image", "no digest", func(p *sandbox.Plan) { p.Image.Digest = "" }},
		{"name", "path", func(p *sandbox.Plan) { p.Name = "../x" }},
		{"hostname", "empty", func(p *sandbox.Plan) { p.Hostname = "" }},
		{"hostname", "newline", func(p *sandbox.Plan) { p.Hostname = "a\nb" }},
		{"hostname", "long", func(p *sandbox.Plan) { p.Hostname = strings.Repeat("a", 65) }},
		{"user-namespace", "none", func(p *sandbox.Plan) { p.IDMap = sandbox.IDMap{} }},
		{"user-namespace", "host ids", func(p *sandbox.Plan) { p.IDMap.Base = 0 }},
		{"user-namespace", "last host id", func(p *sandbox.Plan) { p.IDMap.Base = 65535 }},
		{"user-namespace", "small", func(p *sandbox.Plan) { p.IDMap.Size = 1 }},
		{"user-namespace", "large", func(p *sandbox.Plan) { p.IDMap.Size = 65537 }},
		{"user-namespace", "wraps", func(p *sandbox.Plan) { p.IDMap.Base = 1<<32 - 65536 }},
		{"no-new-privs", "off", func(p *sandbox.Plan) { p.Process.NoNewPrivs = false }},
		{"capabilities", "unknown", func(p *sandbox.Plan) { p.Process.Capabilities = []string{"CAP_ALL"} }},
		{"capabilities", "no prefix", func(p *sandbox.Plan) { p.Process.Capabilities = []string{"CHOWN"} }},
		{"capabilities", "twice", func(p *sandbox.Plan) { p.Process.Capabilities = []string{"CAP_KILL", "CAP_KILL"} }},
		{"network", "empty", func(p *sandbox.Plan) { p.Network = "" }},
		{"network", "unknown", func(p *sandbox.Plan) { p.Network = "bridge" }},
		{"seccomp", "none", func(p *sandbox.Plan) { p.Seccomp = sandbox.Seccomp{} }},
		{"seccomp", "default with rules", func(p *sandbox.Plan) {
			p.Seccomp.Rules = []sandbox.SeccompRule{{Names: []string{"bpf"}, Action: "allow"}}
		}},
		{"seccomp", "default and beyond", func(p *sandbox.Plan) { p.Seccomp.Beyond = []string{"bpf"} }},
		{"seccomp", "custom by another name", func(p *sandbox.Plan) { p.Seccomp.Profile = sandbox.SeccompCustom }},
		{"seccomp", "unconfined", func(p *sandbox.Plan) { p.Seccomp.Profile = "unconfined" }},
		{"seccomp", "other digest", func(p *sandbox.Plan) { p.Seccomp.Digest = "sha256:" + strings.Repeat("0", 64) }},
		{"args", "none", func(p *sandbox.Plan) { p.Process.Args = nil }},
		{"args", "empty", func(p *sandbox.Plan) { p.Process.Args = []string{""} }},
		{"args", "NUL", func(p *sandbox.Plan) { p.Process.Args = []string{"/bin/a\x00b"} }},
		{"env", "no value", func(p *sandbox.Plan) { p.Process.Env = []string{"A"} }},
		{"env", "no name", func(p *sandbox.Plan) { p.Process.Env = []string{"=A"} }},
		{"env", "NUL", func(p *sandbox.Plan) { p.Process.Env = []string{"A=\x00"} }},
		{"size", "entries", func(p *sandbox.Plan) { p.Process.Env = make([]string, 20000) }},
		{"size", "an argument", func(p *sandbox.Plan) { p.Process.Args = []string{"sh", strings.Repeat("a", 128<<10)} }},
		{"size", "an entry", func(p *sandbox.Plan) { p.Process.Env = []string{"A=" + strings.Repeat("a", 128<<10)} }},
		{"cwd", "empty", func(p *sandbox.Plan) { p.Process.Cwd = "" }},
		{"cwd", "relative", func(p *sandbox.Plan) { p.Process.Cwd = "tmp" }},
		{"cwd", "proc", func(p *sandbox.Plan) { p.Process.Cwd = "/proc" }},
		{"cwd", "descriptor", func(p *sandbox.Plan) { p.Process.Cwd = "/proc/self/fd/7" }},
		{"cwd", "dots", func(p *sandbox.Plan) { p.Process.Cwd = "/a/../proc/self/fd/7" }},
		{"user", "uid", func(p *sandbox.Plan) { p.Process.UID = 65536 }},
		{"user", "gid", func(p *sandbox.Plan) { p.Process.GID = 1<<32 - 1 }},
		{"user", "group", func(p *sandbox.Plan) { p.Process.Groups = []uint32{70000} }},
		{"rlimits", "none", func(p *sandbox.Plan) { p.Process.Rlimits = nil }},
		{"rlimits", "unknown", func(p *sandbox.Plan) { p.Process.Rlimits[0].Type = "RLIMIT_X" }},
		{"rlimits", "twice", func(p *sandbox.Plan) { p.Process.Rlimits[0] = p.Process.Rlimits[1] }},
		{"rlimits", "crossed", func(p *sandbox.Plan) { p.Process.Rlimits[1].Hard = 1 }},
	}
}

func vol(name string) sandbox.Mount {
	return sandbox.Mount{Type: sandbox.MountVolume, Name: name, Source: "/var/lib/ward/volumes/" + name + "/_data", Target: "/x"}
}

func img() sandbox.Mount {
	return sandbox.Mount{Type: sandbox.MountImage, Name: "example.test/b:1", Digest: "sha256:" + strings.Repeat("2", 64), ReadOnly: true, Target: "/x",
		Layers: []sandbox.Layer{{DiffID: "sha256:" + strings.Repeat("3", 64), Path: "/var/lib/ward/images/layers/3"}}}
}

// volumeSpoils spoil a mount of a volume or an image.
func volumeSpoils() []spoil {
	var out []spoil
	add := func(name string, m sandbox.Mount, do func(p *sandbox.Plan, m *sandbox.Mount)) {
		out = append(out, spoil{"mounts", name, func(p *sandbox.Plan) {
			do(p, &m)
			p.Mounts = []sandbox.Mount{m}
		}})
	}
	add("a volume without a directory of volumes", vol("v1"), func(p *sandbox.Plan, _ *sandbox.Mount) { p.Host.VolumeDir = "" })
	add("a host directory as a volume", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Source = "/etc" })
	add("another volume's content", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Source = vol("v2").Source })
	add("a volume's record", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Source = "/var/lib/ward/volumes/v1" })
	for _, name := range []string{"", "..", ".", "a/b", "../etc", ".lock"} {
		add("volume "+name, vol(name), func(*sandbox.Plan, *sandbox.Mount) {})
	}
	for _, sub := range []string{"/", "/etc", "..", "../v2", "a/../../b", "a/", "a//b", ".", "a\x00"} {
		add("subpath "+sub, vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Subpath = sub })
		add("image subpath "+sub, img(), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Subpath = sub })
	}
	add("filled in part", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Subpath, m.CopyUp = "a", true })
	add("a volume with a size", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Size = 1 })
	add("a volume with layers", vol("v1"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Layers = img().Layers })
	add("a writable image", img(), func(_ *sandbox.Plan, m *sandbox.Mount) { m.ReadOnly = false })
	add("an image without a digest", img(), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Digest = "" })
	add("an image without a name", img(), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Name = "" })
	add("an image with a source", img(), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Source = "/etc" })
	add("a bind that is filled", bind("/srv/data", "/x"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.CopyUp = true })
	add("a bind with a name", bind("/srv/data", "/x"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.Name = "v1" })
	add("the directory of volumes", bind("/var/lib/ward/volumes", "/x"), func(*sandbox.Plan, *sandbox.Mount) {})
	add("a volume by bind", bind("/var/lib/ward/volumes/v1/_data", "/x"), func(*sandbox.Plan, *sandbox.Mount) {})
	add("above the directory of volumes", bind("/var/lib", "/x"), func(p *sandbox.Plan, _ *sandbox.Mount) {
		p.Host.ContainerDir, p.Host.AuditDir = "/x/c", "/x/a"
	})
	add("tmpfs of nobody", tmpfs("/x"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.UID = 65536 })
	add("tmpfs of no group", tmpfs("/x"), func(_ *sandbox.Plan, m *sandbox.Mount) { m.GID = 1<<32 - 1 })
	return append(out,
		spoil{"layers", "image without layers", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{img()}; p.Mounts[0].Layers = nil }},
		spoil{"layers", "image of the whole host", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{img()}; p.Mounts[0].Layers[0].Path = "/" }},
		spoil{"host", "volumes", func(p *sandbox.Plan) { p.Host.VolumeDir = "volumes" }},
		spoil{"host", "volumes everywhere", func(p *sandbox.Plan) { p.Host.VolumeDir = "/" }},
	)
}

func placeSpoils() []spoil {
	spoils := []spoil{
		{"masked-paths", "none", func(p *sandbox.Plan) { p.MaskedPaths = nil }},
		{"masked-paths", "one less", func(p *sandbox.Plan) { p.MaskedPaths = p.MaskedPaths[1:] }},
		{"readonly-paths", "none", func(p *sandbox.Plan) { p.ReadonlyPaths = nil }},
		{"paths", "dots", func(p *sandbox.Plan) { p.MaskedPaths = append(p.MaskedPaths, "/a/../b") }},
		{"output", "negative", func(p *sandbox.Plan) { p.Limits.Output = -1 }},
		{"output", "small files", func(p *sandbox.Plan) { p.Limits.OutputFile, p.Limits.OutputFiles = 10, 2 }},
		{"output", "no files", func(p *sandbox.Plan) { p.Limits.OutputFile = 1 << 20 }},
		{"output", "huge", func(p *sandbox.Plan) { p.Limits.Output = 1<<63 - 1 }},
		{"memory", "none", func(p *sandbox.Plan) { p.Limits.Memory = 0 }},
		{"memory", "unlimited", func(p *sandbox.Plan) { p.Limits.Memory = -1 }},
		{"memory", "huge", func(p *sandbox.Plan) { p.Limits.Memory = 1<<63 - 1 }},
		{"swap", "unlimited", func(p *sandbox.Plan) { p.Limits.Swap = -1 }},
		{"pids", "none", func(p *sandbox.Plan) { p.Limits.PIDs = 0 }},
		{"pids", "unlimited", func(p *sandbox.Plan) { p.Limits.PIDs = -1 }},
		{"reservation", "above the limit", func(p *sandbox.Plan) { p.Limits.Reservation = p.Limits.Memory + 1 }},
		{"reservation", "negative", func(p *sandbox.Plan) { p.Limits.Reservation = -1 }},
		{"shm", "none", func(p *sandbox.Plan) { p.Limits.Shm = 0 }},
		{"shm", "huge", func(p *sandbox.Plan) { p.Limits.Shm = 1 << 60 }},
		{"cpu-shares", "too few", func(p *sandbox.Plan) { p.Limits.CPUShares = 1 }},
		{"cpu-shares", "too many", func(p *sandbox.Plan) { p.Limits.CPUShares = 1<<18 + 1 }},
		{"cpuset", "other spelling", func(p *sandbox.Plan) { p.Limits.CPUSet = "1,0" }},
		{"cpuset", "newline", func(p *sandbox.Plan) { p.Limits.MemSet = "0\n1" }},
		{"cpuset", "huge", func(p *sandbox.Plan) { p.Limits.CPUSet = "0-99999" }},
		{"oom-score", "negative", func(p *sandbox.Plan) { p.Process.OOMScoreAdj = -1 }},
		{"oom-score", "huge", func(p *sandbox.Plan) { p.Process.OOMScoreAdj = 1001 }},
		{"io", "small weight", func(p *sandbox.Plan) { p.Limits.IOWeight = 9 }},
		{"io", "no limit", func(p *sandbox.Plan) { p.Limits.IO = []sandbox.IOLimits{{Path: "/dev/vda", Major: 8}} }},
		{"io", "relative", func(p *sandbox.Plan) { p.Limits.IO = []sandbox.IOLimits{{Path: "vda", Major: 8, ReadBPS: 1}} }},
		{"io", "twice", func(p *sandbox.Plan) {
			p.Limits.IO = []sandbox.IOLimits{{Path: "/dev/vda", Major: 8, ReadBPS: 1}, {Path: "/dev/vda", Major: 8, ReadBPS: 1}}
		}},
		{"rlimits", "infinite", func(p *sandbox.Plan) { p.Process.Rlimits[1].Hard = 1<<64 - 1 }},
		{"rlimits", "priority", func(p *sandbox.Plan) {
			p.Process.Rlimits = append(p.Process.Rlimits, sandbox.Rlimit{Type: "RLIMIT_NICE", Soft: 30, Hard: 30})
		}},
		{"cpu", "no quota", func(p *sandbox.Plan) { p.Limits.CPUQuota = 0 }},
		{"cpu", "unlimited", func(p *sandbox.Plan) { p.Limits.CPUQuota = -1 }},
		{"cpu", "no period", func(p *sandbox.Plan) { p.Limits.CPUPeriod = 0 }},
		{"layers", "none", func(p *sandbox.Plan) { p.Root.Layers = nil }},
		{"layers", "root", func(p *sandbox.Plan) { p.Root.Layers[0].Path = "/" }},
		{"layers", "relative", func(p *sandbox.Plan) { p.Root.Layers[0].Path = "layers/1" }},
		{"layers", "dots", func(p *sandbox.Plan) { p.Root.Layers[0].Path = "/a/../b" }},
		{"layers", "digest", func(p *sandbox.Plan) { p.Root.Layers[0].DiffID = "" }},
		{"mounts", "relative bind", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("etc", "/x")} }},
		{"mounts", "dots in source", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/a/../etc", "/x")} }},
		{"mounts", "host's /proc", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/proc", "/x")} }},
		{"mounts", "in the host's /sys", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/sys/kernel", "/x")} }},
		{"mounts", "the whole host", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/", "/x")} }},
		{"mounts", "ward's configuration", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/etc/ward", "/x")} }},
		{"mounts", "in ward's configuration", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/etc/ward/policy.d", "/x")} }},
		{"mounts", "above ward's configuration", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/etc", "/x")} }},
		{"mounts", "ward's images", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/var/lib/ward/images", "/x")} }},
		{"mounts", "another container's files", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/var/lib/ward/containers/y/upper", "/x")} }},
		{"mounts", "another monitor's socket", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind("/run/ward/c/y", "/x")} }},
		{"host", "nothing is ward's", func(p *sandbox.Plan) { p.Host.Keep = nil }},
		{"host", "ward's is relative", func(p *sandbox.Plan) { p.Host.Keep = []string{"etc"} }},
		{"host", "everything is ward's", func(p *sandbox.Plan) { p.Host.Keep = []string{"/"} }},
		{"mounts", "the audit log", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{bind(p.Host.AuditDir, "/x")} }},
		{"mounts", "above the container's directory", func(p *sandbox.Plan) {
			p.Mounts = []sandbox.Mount{bind(path.Dir(p.Host.ContainerDir), "/x")}
		}},
		{"mounts", "endless tmpfs", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{{Type: "tmpfs", Target: "/x"}} }},
		{"mounts", "type", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{{Type: "proc", Target: "/x"}} }},
		{"mounts", "same target", func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{tmpfs("/x"), tmpfs("/x")} }},
		{"host", "relative", func(p *sandbox.Plan) { p.Host.ContainerDir = "c" }},
		{"host", "dots", func(p *sandbox.Plan) { p.Host.RuntimeDir = "/run/../etc" }},
		{"host", "none", func(p *sandbox.Plan) { p.Host.AuditDir = "" }},
	}
	for _, target := range []string{"/", "/proc", "/proc/self/attr", "/sys", "/sys/fs/cgroup", "/dev", "/dev/shm",
		"/x/../proc", "/x/", "x", "", "/x\x00"} {
		spoils = append(spoils, spoil{"mounts", "target " + target,
			func(p *sandbox.Plan) { p.Mounts = []sandbox.Mount{tmpfs(target)} }})
	}
	return spoils
}

// TestFloor spoils one thing at a time and names the rule that must say no.
func TestFloor(t *testing.T) {
	for _, s := range slices.Concat(processSpoils(), placeSpoils(), volumeSpoils()) {
		t.Run(s.rule+"/"+s.name, func(t *testing.T) {
			p := good()
			s.do(&p)
			err := sandbox.DefaultFloor().Check(p)
			if !errors.Is(err, fault.Denied) {
				t.Fatalf("passed: %v", err)
			}
			if got := fault.As(err).Rule; got != "floor."+s.rule {
				t.Errorf("refused by %s: %v", got, err)
			}
		})
	}
}

func TestFloorLetsNormalPlansThrough(t *testing.T) {
	p := good()
	p.Process.Capabilities = []string{"CAP_NET_BIND_SERVICE"}
	p.Mounts = []sandbox.Mount{tmpfs("/tmp"), tmpfs("/processes"), bind("/srv/data", "/data"), vol("v1"), img()}
	p.Mounts[4].Target, p.Mounts[4].Subpath = "/y", "a/b"
	p.Network = sandbox.NetworkHost
	p.Process.Cwd = "/processes"
	p.IDMap.Base = 1<<32 - 1 - 65536
	if err := sandbox.DefaultFloor().Check(p.Landlocked(7, false)); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	p := good()
	p.Process.Env = []string{"TOKEN=hunter2\x00"}
	if err := sandbox.DefaultFloor().Check(p); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("%v", err)
	}
}

// What becomes a file name below /proc/sys, a device node or a line of a file
// must not become another one.
func TestFloorOfNamesSettingsAndDevices(t *testing.T) {
	base := good()
	base.Sysctls = []sandbox.Sysctl{{Name: "kernel.sem", Value: "250 32000 32 128"}, {Name: "net.ipv4.conf.all.rp_filter", Value: "1"}}
	base.Devices = []sandbox.Device{{Source: "/dev/fuse", Target: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Access: "rw"}}
	base.Hosts = []sandbox.HostName{{Name: "db_1.example", Address: "::1"}}
	base.Resolver = sandbox.Resolver{Servers: []string{"192.0.2.1"}, Search: []string{"."}, Options: []string{"ndots:2"}}
	if err := sandbox.DefaultFloor().Check(base); err != nil {
		t.Fatal(err)
	}
	sysctl := func(name, value string) func(*sandbox.Plan) {
		return func(p *sandbox.Plan) { p.Sysctls = []sandbox.Sysctl{{Name: name, Value: value}} }
	}
	device := func(change func(*sandbox.Device)) func(*sandbox.Plan) {
		return func(p *sandbox.Plan) { p.Devices = slices.Clone(p.Devices); change(&p.Devices[0]) }
	}
	for name, change := range map[string]func(*sandbox.Plan){
		"the host's setting":     sysctl("kernel.core_pattern", "x"),
		"a setting above":        sysctl("net....kernel.core_pattern", "x"),
		"a path":                 sysctl("net/ipv4", "1"),
		"a newline in a value":   sysctl("kernel.sem", "1\n2"),
		"a plus (CVE-2022-0811)": sysctl("kernel.sem", "1+kernel.core_pattern=x"),
		"no value":               sysctl("kernel.sem", ""),
		"twice":                  func(p *sandbox.Plan) { p.Sysctls = append(slices.Clone(p.Sysctls), p.Sysctls[1]) },
		"host network":           func(p *sandbox.Plan) { p.Network = sandbox.NetworkHost },
		"memory device":          device(func(d *sandbox.Device) { d.Major, d.Minor = 1, 1 }),
		"no type":                device(func(d *sandbox.Device) { d.Type = "" }),
		"mknod":                  device(func(d *sandbox.Device) { d.Access = "rwm" }),
		"over a device":          device(func(d *sandbox.Device) { d.Target = "/dev/null" }),
		"outside /dev":           device(func(d *sandbox.Device) { d.Target = "/dev/../etc" }),
		"below /dev":             device(func(d *sandbox.Device) { d.Target = "/dev/pts/0" }),
		"a line of its own":      func(p *sandbox.Plan) { p.Hosts = []sandbox.HostName{{Name: "a\n1.2.3.4 b", Address: "::1"}} },
		"no address":             func(p *sandbox.Plan) { p.Hosts = []sandbox.HostName{{Name: "a", Address: "b"}} },
		"a server's line":        func(p *sandbox.Plan) { p.Resolver.Servers = []string{"::1\noptions x"} },
		"a search line":          func(p *sandbox.Plan) { p.Resolver.Search = []string{"a\nb"} },
		"an option's line":       func(p *sandbox.Plan) { p.Resolver.Options = []string{"a b"} },
		"a domain's line":        func(p *sandbox.Plan) { p.Domainname = "a\n" },
	} {
		p := base
		change(&p)
		if err := sandbox.DefaultFloor().Check(p); !errors.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
