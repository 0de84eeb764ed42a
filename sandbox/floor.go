package sandbox

import (
	"fmt"
	"slices"

	"github.com/ward-project/ward/internal/fault"
)

// Floor is the least hardening a plan must carry. It is not configurable: the
// zero Floor refuses everything, and DefaultFloor is the only other one.
// The gate checks it before it records, the launcher again before it starts.
type Floor struct {
	idRange, minIDBase uint32
	// profiles maps the known seccomp profiles to their digests.
	profiles         map[string]string
	masked, readonly []string
}

// DefaultFloor returns the floor of this build.
func DefaultFloor() Floor {
	return Floor{
		idRange:   IDRange,
		minIDBase: MinIDBase,
		profiles:  map[string]string{SeccompProfile: SeccompDigest},
		masked:    maskedPaths,
		readonly:  readonlyPaths,
	}
}

// Check returns nil if p is at or above the floor, else fault.Denied with a
// rule "floor.…" naming the first thing below it.
func (f Floor) Check(p Plan) error {
	if f.idRange == 0 || len(f.profiles) == 0 {
		return below("unset", "no floor is set", "")
	}
	checks := []func(Plan) error{
		f.identity, f.userNamespace, f.privileges, f.seccomp, f.paths,
		f.limits, f.sets, f.io, f.process, f.rlimits, f.root, f.mounts, f.sysctls, f.devices, f.names, f.host, f.landlock,
	}
	for _, check := range checks {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

func below(rule, cause, remedy string) error {
	return fault.New(fault.Denied, "floor."+rule, cause, remedy)
}

func (f Floor) userNamespace(p Plan) error {
	m := p.IDMap
	if m.Size != f.idRange {
		return below("user-namespace", fmt.Sprintf("the id range has %d ids and must have %d", m.Size, f.idRange), "")
	}
	if m.Base < f.minIDBase {
		return below("user-namespace", fmt.Sprintf("the id range starts at %d, among the host's own ids", m.Base), "")
	}
	// The last id must exist, and 4294967295 is no id: it means "no change".
	if uint64(m.Base)+uint64(m.Size) > 1<<32-1 {
		return below("user-namespace", fmt.Sprintf("the id range starting at %d leaves the 32-bit ids", m.Base), "")
	}
	return nil
}

func (f Floor) privileges(p Plan) error {
	if !p.Process.NoNewPrivs {
		return below("no-new-privs", "the payload could gain privileges by executing a set-user-id program", "")
	}
	for i, c := range p.Process.Capabilities {
		if !slices.Contains(capabilities, c) {
			return below("capabilities", fmt.Sprintf("%q is not a capability", c), "use the kernel's names, as in CAP_NET_BIND_SERVICE")
		}
		if slices.Contains(p.Process.Capabilities[:i], c) {
			return below("capabilities", c+" is listed twice", "")
		}
	}
	if p.Network != NetworkNone && p.Network != NetworkHost {
		return below("network", fmt.Sprintf("%q is not a network", string(p.Network)), "use none or host")
	}
	return nil
}

func (f Floor) paths(p Plan) error {
	for _, want := range f.masked {
		if !slices.Contains(p.MaskedPaths, want) {
			return below("masked-paths", want+" is not hidden", "")
		}
	}
	for _, want := range f.readonly {
		if !slices.Contains(p.ReadonlyPaths, want) {
			return below("readonly-paths", want+" is not read-only", "")
		}
	}
	if len(p.MaskedPaths)+len(p.ReadonlyPaths) > maxPaths {
		return below("size", fmt.Sprintf("more than %d masked and read-only paths", maxPaths), "")
	}
	for _, path := range slices.Concat(p.MaskedPaths, p.ReadonlyPaths) {
		if err := cleanPath(path); err != nil {
			return below("paths", fmt.Sprintf("masked or read-only path %q %v", path, err), "")
		}
	}
	return nil
}
