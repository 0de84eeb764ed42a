package profile

import (
	"slices"
	"strings"
)

// Never lists calls that no policy can allow beyond Default: each leads out of
// the container or into the host's kernel. Conditions of Default on clone,
// which is how user namespaces are made, cannot be widened either.
func Never() []string { return slices.Clone(never) }

var never = strings.Fields(`clone clone3 unshare setns mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount
	open_tree open_tree_attr mount_setattr keyctl add_key request_key bpf open_by_handle_at init_module finit_module
	delete_module kexec_load kexec_file_load reboot swapon swapoff settimeofday clock_settime iopl ioperm syslog acct
	quotactl quotactl_fd nfsservctl uselib _sysctl create_module get_kernel_syms query_module vhangup lookup_dcookie`)

// Beyond returns the names of the calls that f may allow with arguments with
// which base does not, sorted; none means that f narrows base. It errs on one
// side alone: what it cannot prove to be within base it returns.
func (f *Filter) Beyond(base *Filter) []string {
	var out []string
	for nr, rules := range f.calls {
		name, _ := CallName(nr)
		for _, r := range rules {
			if r.Action == Allow && !base.covers(nr, r, rules) {
				out = append(out, name)
				break
			}
		}
	}
	slices.Sort(out)
	return out
}

// covers reports whether everything that r allows, after the refusals among
// its neighbours, is proved to be allowed by f.
func (f *Filter) covers(nr int, r Rule, neighbours []Rule) bool {
	allowed := false
	for _, base := range f.calls[nr] {
		switch {
		case base.Action == Allow && r.implies(base):
			allowed = true
		case base.Action == Refuse && !r.excludes(base) && !refusedAnyway(base, neighbours):
			return false
		}
	}
	return allowed
}

// refusedAnyway reports whether what base refuses is refused by rules too.
func refusedAnyway(base Rule, rules []Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Action == Refuse && base.implies(r) })
}

// Requires lists the calls that no filter can do without: the stage makes them
// after it has installed the filter.
func Requires() []string { return []string{"read", "write", "execve", "exit_group"} }

// Lacks returns the first of Requires that f does not allow whatever the
// arguments, or "".
func (f *Filter) Lacks() string {
	for _, name := range Requires() {
		nr, _ := CallNumber(name)
		rules := f.calls[nr]
		if len(rules) == 0 || rules[0].Action != Allow || !slices.ContainsFunc(rules, func(r Rule) bool { return len(r.Args) == 0 }) {
			return name
		}
	}
	return ""
}

// implies reports whether it is proved that arguments that match r match s.
func (r Rule) implies(s Rule) bool {
	for _, want := range s.Args {
		if !slices.ContainsFunc(r.Args, func(a Arg) bool { return a.Index == want.Index && a.implies(want) }) {
			return false
		}
	}
	return true
}

// excludes reports whether it is proved that no arguments match both.
func (r Rule) excludes(s Rule) bool {
	for _, a := range r.Args {
		if slices.ContainsFunc(s.Args, func(b Arg) bool { return a.Index == b.Index && a.excludes(b) }) {
			return true
		}
	}
	return false
}

// implies reports whether every value that a holds for is proved to satisfy b.
func (a Arg) implies(b Arg) bool {
	if a.Op == Equal {
		return b.holds(a.Value)
	}
	if a.Op == MaskedEqual {
		switch b.Op {
		case MaskedEqual:
			return b.Mask&^a.Mask == 0 && a.Value&b.Mask == b.Value
		case NotEqual:
			return b.Value&a.Mask != a.Value
		}
		return false
	}
	if a.Op == NotEqual {
		return b.Op == NotEqual && a.Value == b.Value
	}
	low, high, some := a.interval()
	if !some {
		return true // a never holds
	}
	if b.Op == NotEqual {
		return b.Value < low || b.Value > high
	}
	bLow, bHigh, ok := b.interval()
	return ok && b.ranged() && bLow <= low && high <= bHigh
}

// excludes reports whether no value is proved to satisfy both.
func (a Arg) excludes(b Arg) bool {
	switch {
	case a.Op == Equal:
		return !b.holds(a.Value)
	case b.Op == Equal:
		return !a.holds(b.Value)
	case a.Op == MaskedEqual && b.Op == MaskedEqual:
		return (a.Value^b.Value)&a.Mask&b.Mask != 0
	case a.ranged() && b.ranged():
		aLow, aHigh, aSome := a.interval()
		bLow, bHigh, bSome := b.interval()
		return !aSome || !bSome || aHigh < bLow || bHigh < aLow
	}
	return false
}

// ranged reports whether a holds for an interval of values.
func (a Arg) ranged() bool { return a.Op != NotEqual && a.Op != MaskedEqual }

// interval is what a ranged condition holds for; some says that it is not empty.
func (a Arg) interval() (low, high uint64, some bool) {
	const most = ^uint64(0)
	switch a.Op {
	case Equal:
		return a.Value, a.Value, true
	case Greater:
		return a.Value + 1, most, a.Value < most
	case GreaterEqual:
		return a.Value, most, true
	case Less:
		return 0, a.Value - 1, a.Value > 0
	case LessEqual:
		return 0, a.Value, true
	}
	return 0, 0, false
}
