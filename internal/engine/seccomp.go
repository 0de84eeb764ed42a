package engine

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// filterFor is the system-call filter the request asks for. A profile of the
// caller's own is taken apart here, on the gate's side; the plan carries plain
// rules. Policy and floor judge them: nothing is substituted.
func filterFor(req Request, caps []string) (sandbox.Seccomp, error) {
	filter := sandbox.DefaultSeccomp()
	switch {
	case len(req.SeccompFile) > 0:
		return customFilter(req, caps)
	case req.Seccomp != "" && req.Seccomp != filter.Profile:
		return sandbox.Seccomp{Profile: req.Seccomp}, nil
	}
	return filter, nil
}

func customFilter(req Request, caps []string) (sandbox.Seccomp, error) {
	var none sandbox.Seccomp
	refuse := func(rule, format string, args ...any) error {
		return fault.New(fault.Invalid, rule, fmt.Sprintf("seccomp profile %.128q: ", req.Seccomp)+fmt.Sprintf(format, args...),
			"docs/policy.md says what a profile may hold")
	}
	p, err := profile.Parse(req.SeccompFile, profile.Facts{Arch: runtime.GOARCH, Kernel: policy.ThisHost().Kernel, Capabilities: caps})
	if err != nil {
		return none, refuse("run.seccomp", "%v", err)
	}
	f, err := p.Filter()
	if err != nil {
		return none, refuse("run.seccomp", "%v", err)
	}
	if _, err := f.Program(); err != nil {
		return none, refuse("run.seccomp", "%v", err)
	}
	if lacks := f.Lacks(); lacks != "" {
		return none, refuse("run.seccomp", "it must allow %s, without conditions: no program starts otherwise (%s)",
			lacks, strings.Join(profile.Requires(), ", "))
	}
	base, err := profile.Default().Filter()
	if err != nil {
		return none, err
	}
	out := sandbox.Seccomp{Profile: sandbox.SeccompCustom, Errno: p.DefaultErrno, Beyond: f.Beyond(base)}
	for _, name := range out.Beyond {
		if slices.Contains(profile.Never(), name) {
			return none, fault.New(fault.Denied, "floor.seccomp", fmt.Sprintf("seccomp profile %.128q: it allows %s beyond ward's default, which no container may have", req.Seccomp, name),
				"take "+name+" out of the profile")
		}
	}
	for _, r := range p.Rules {
		out.Rules = append(out.Rules, seccompRule(r))
	}
	out.Digest = out.CustomDigest()
	return out, nil
}

// Denied is what the container's filter has refused: so far if it runs, else
// in its last run.
func (e *Engine) Denied(ctx context.Context, c Container) ([]sandbox.DeniedSyscall, error) {
	if c.Status.Exit != nil {
		return c.Status.Exit.DeniedSyscalls, nil
	}
	var list []sandbox.DeniedSyscall
	err := e.report(c, func(m *sandbox.Monitor) (err error) {
		list, err = m.Denied(ctx)
		return err
	})
	return list, err
}
