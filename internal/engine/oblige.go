package engine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// decided asks the policy about a draft. What it obliges to is applied, and
// what comes of that is decided about anew: the answer that is recorded is
// about exactly what runs. Who then wants more, or something else, has no
// answer that could be met.
func (e *Engine) decided(ctx context.Context, a *attempt, draft sandbox.Plan, input func(sandbox.Plan) policy.Input) (sandbox.Plan, policy.Decision, error) {
	dec, err := e.decide(ctx, a, input(draft))
	if err != nil || !dec.Obligations().Any() {
		return draft, dec, err
	}
	a.obliged = dec.Obligations()
	tight, err := tighten(draft, a.obliged)
	if err != nil {
		return draft, dec, err
	}
	again, err := e.decide(ctx, a, input(tight))
	if err != nil {
		return draft, again, err
	}
	tighter, err := tighten(tight, again.Obligations())
	if err != nil {
		return draft, again, err
	}
	if !reflect.DeepEqual(tighter, tight) {
		return draft, again, fault.New(fault.Denied, "policy.obligations",
			"the policy obliges to more once it is met: "+strings.Join(again.Obligations().Lines(), ", "),
			"have its obligations depend on nothing that they change")
	}
	return tight, again, nil
}

// tighten applies what the policy obliges. Nothing here can loosen: every
// line takes the stricter of two values. What cannot be applied is refused.
func tighten(p sandbox.Plan, o policy.Obligations) (sandbox.Plan, error) {
	if o.RequireGVisor {
		return p, fault.New(fault.Denied, "policy.gvisor", "the policy obliges this container to run under gVisor, which ward does not start",
			"start it with containerd or Docker and the runtime runsc, or take the obligation require_gvisor out of the policy")
	}
	p.Process.Capabilities = slices.DeleteFunc(slices.Clone(p.Process.Capabilities), func(c string) bool {
		return slices.Contains(o.DropCapabilities, c)
	})
	if o.ReadOnlyRoot {
		p.Root.Writable = false
	}
	if o.NoNewPrivs {
		p.Process.NoNewPrivs = true
	}
	if o.MaxMemory > 0 {
		p.Limits.Memory = min(p.Limits.Memory, o.MaxMemory)
		p.Limits.Swap = min(p.Limits.Swap, o.MaxMemory)
		p.Limits.Reservation = min(p.Limits.Reservation, o.MaxMemory)
	}
	if o.MaxSwap != nil {
		p.Limits.Swap = min(p.Limits.Swap, *o.MaxSwap)
	}
	if o.MaxPIDs > 0 {
		p.Limits.PIDs = min(p.Limits.PIDs, o.MaxPIDs)
	}
	if o.MaxCPUs > 0 {
		p.Limits.CPUQuota = min(p.Limits.CPUQuota, quota(o.MaxCPUs, p.Limits.CPUPeriod))
	}
	var err error
	if p.Seccomp, err = narrowed(p.Seccomp, o.DenySyscalls); err != nil {
		return p, err
	}
	// Without CAP_SYS_PTRACE there is more of it.
	return p.Landlocked(p.Landlock.ABI, p.Landlock.Missing == sandbox.LandlockOff), nil
}

// narrowed takes calls out of a filter. What the default one does without being
// asked is written out for that: the launcher proves that it allows no more.
func narrowed(filter sandbox.Seccomp, calls []string) (sandbox.Seccomp, error) {
	if len(calls) == 0 {
		return filter, nil
	}
	for _, name := range calls {
		if _, known := profile.CallNumber(name); !known {
			return filter, fault.New(fault.Denied, "policy.obligations", fmt.Sprintf("the policy obliges to refuse %s, which is no system call here", name), "mend deny_syscalls in the policy")
		}
		if slices.Contains(profile.Requires(), name) {
			return filter, fault.New(fault.Denied, "policy.obligations", fmt.Sprintf("the policy obliges to refuse %s, without which no program starts", name), "deny the run, or take it out of deny_syscalls")
		}
	}
	rules := filter.Rules
	switch filter.Profile {
	case sandbox.SeccompCustom:
	case sandbox.SeccompProfile:
		d := profile.Default()
		filter.Errno = d.DefaultErrno
		rules = nil
		for _, r := range d.Rules {
			rules = append(rules, seccompRule(r))
		}
	default:
		return filter, fault.New(fault.Denied, "policy.obligations", fmt.Sprintf("the policy obliges to refuse system calls, and %q is no filter to take them out of", filter.Profile), "run with the default filter, or one from a file")
	}
	out := sandbox.Seccomp{Profile: sandbox.SeccompCustom, Errno: filter.Errno}
	out.Beyond = slices.DeleteFunc(slices.Clone(filter.Beyond), func(n string) bool { return slices.Contains(calls, n) })
	if len(out.Beyond) == 0 {
		out.Beyond = nil
	}
	taken := false
	for _, r := range rules {
		allows := r.Action == string(profile.Allow)
		names := slices.Clone(r.Names)
		if allows {
			names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(calls, n) })
		}
		taken = taken || len(names) != len(r.Names)
		if len(names) > 0 {
			r.Names = names
			out.Rules = append(out.Rules, r)
		}
	}
	if !taken {
		return filter, nil // it refuses them as it is
	}
	out.Digest = out.CustomDigest()
	return out, nil
}

// seccompRule is a rule as a plan carries it.
func seccompRule(r profile.Rule) sandbox.SeccompRule {
	rule := sandbox.SeccompRule{Names: r.Names, Action: string(r.Action), Errno: r.Errno}
	for _, a := range r.Args {
		rule.Args = append(rule.Args, sandbox.SeccompArg{Index: a.Index, Op: string(a.Op), Value: a.Value, Mask: a.Mask})
	}
	return rule
}
