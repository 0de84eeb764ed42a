package launcher

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/sandbox"
)

// newOCIProcess translates a specification's process. What it asks for is what
// it gets: the capability sets as they are, inheritable and ambient ones too.
func newOCIProcess(p *specs.Process) (*libcontainer.Process, error) {
	out := &libcontainer.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Label: p.SelinuxLabel, AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Scheduler:       p.Scheduler, IOPriority: p.IOPriority,
		AdditionalGroups: groups(p.User.AdditionalGids),
	}
	if s := p.ConsoleSize; s != nil {
		out.ConsoleWidth, out.ConsoleHeight = uint16(s.Width), uint16(s.Height)
	}
	if c := p.Capabilities; c != nil {
		out.Capabilities = &configs.Capabilities{Bounding: c.Bounding, Effective: c.Effective,
			Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient}
	}
	for _, r := range p.Rlimits {
		n, ok := sandbox.RlimitNumber(r.Type)
		if !ok {
			return nil, fmt.Errorf("wrong rlimit value: %s", r.Type)
		}
		out.Rlimits = append(out.Rlimits, configs.Rlimit{Type: n, Soft: r.Soft, Hard: r.Hard})
	}
	affinity, err := configs.ConvertCPUAffinity(p.ExecCPUAffinity)
	if err != nil {
		return nil, err
	}
	out.CPUAffinity = affinity
	return out, nil
}

// neededAfterFilter are the calls that libcontainer's init makes when the
// filter is already on.
var neededAfterFilter = []string{"close_range", "openat2", "statx"}

// ociFilter adds those of them to a caller's filter that it does not know.
// Without no_new_privs the filter goes on while init still has the right to
// install it, and a filter of before 2020 would stop libcontainer, not the
// payload. What a filter says of them stands; where it refuses one, the
// container cannot start.
func ociFilter(spec *specs.Spec) {
	if spec.Linux == nil || spec.Linux.Seccomp == nil || spec.Process == nil || spec.Process.NoNewPrivileges {
		return
	}
	known := map[string]bool{}
	for _, s := range spec.Linux.Seccomp.Syscalls {
		for _, name := range s.Names {
			known[name] = true
		}
	}
	var names []string
	for _, name := range neededAfterFilter {
		if !known[name] {
			names = append(names, name)
		}
	}
	if len(names) > 0 && spec.Linux.Seccomp.DefaultAction != specs.ActAllow {
		spec.Linux.Seccomp.Syscalls = append(spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow})
	}
}
