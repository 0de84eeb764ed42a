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
