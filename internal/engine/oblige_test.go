package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// TestDeniedCallsNarrow: what is taken out of a filter is refused by what comes
// of it, which allows nothing that the filter did not.
func TestDeniedCallsNarrow(t *testing.T) {
	for _, filter := range []sandbox.Seccomp{
		sandbox.DefaultSeccomp(),
		{Profile: sandbox.SeccompCustom, Errno: 1, Beyond: []string{"ptrace"}, Rules: []sandbox.SeccompRule{
			{Names: []string{"read", "write", "execve", "exit_group", "ptrace", "socket"}, Action: "allow"}}},
	} {
		got, err := narrowed(filter, []string{"ptrace", "socket"})
		if err != nil || got.Profile != sandbox.SeccompCustom || got.Digest != got.CustomDigest() || len(got.Beyond) != 0 {
			t.Fatalf("%+v %v", got, err)
		}
		for _, r := range got.Rules {
			if r.Action == string(profile.Allow) && (slices.Contains(r.Names, "ptrace") || slices.Contains(r.Names, "socket")) {
				t.Errorf("still allows %v", r.Names)
			}
			if len(r.Names) == 0 {
				t.Error("a rule about no call")
			}
		}
		again, err := narrowed(got, []string{"ptrace", "socket"})
		if err != nil || again.Digest != got.Digest {
			t.Errorf("narrowed twice it is another filter: %v", err)
		}
	}
	same, err := narrowed(sandbox.DefaultSeccomp(), []string{"io_uring_setup"})
	if err != nil || same.Profile != sandbox.SeccompProfile {
		t.Errorf("what the filter refuses as it is made another of it: %+v %v", same.Profile, err)
	}
	for _, name := range []string{"execve", "read", "ptrac", "no_such_call"} {
		if _, err := narrowed(sandbox.DefaultSeccomp(), []string{name}); fault.As(err).Rule != "policy.obligations" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := narrowed(sandbox.Seccomp{Profile: "unconfined"}, []string{"ptrace"}); err == nil {
		t.Error("took a call out of no filter")
	}
}

// obliging answers each question with the next of its obligations.
type obliging struct {
	rego  []string
	dir   func(rego string) string
	asked []policy.Input
}

func (o *obliging) Decide(ctx context.Context, in policy.Input) (policy.Decision, error) {
	o.asked = append(o.asked, in)
	p, err := policy.Open(policy.Config{Dir: o.dir(o.rego[min(len(o.asked), len(o.rego))-1])})
	if err != nil {
		return policy.Decision{}, err
	}
	return p.Decide(ctx, in)
}

// TestObligationsAreDecidedAgain: what comes of obligations is what the last
// answer is about, and a policy that then wants more gets nothing.
func TestObligationsAreDecidedAgain(t *testing.T) {
	const allow = "package ward.run\n\ndecision := {\"allow\": true, \"obligations\": %s}\n"
	draft := sandbox.Plan{Limits: sandbox.Limits{Memory: 1 << 30, PIDs: 100, CPUQuota: 1000, CPUPeriod: 1000}, Seccomp: sandbox.DefaultSeccomp()}
	draft.Root.Writable = true
	for name, c := range map[string]struct {
		rego []string
		rule string // "" is allowed
		asks int
	}{
		"nothing":            {[]string{`{}`}, "", 1},
		"the same again":     {[]string{`{"max_pids": 5, "read_only_root": true}`}, "", 2},
		"met":                {[]string{`{"max_pids": 5}`, `{}`}, "", 2},
		"more":               {[]string{`{"max_pids": 5}`, `{"max_pids": 4}`}, "policy.obligations", 2},
		"something else":     {[]string{`{"max_pids": 5}`, `{"no_new_privs": true}`}, "policy.obligations", 2},
		"less":               {[]string{`{"max_pids": 5}`, `{"max_pids": 50}`}, "", 2},
		"gvisor":             {[]string{`{"require_gvisor": true}`}, "policy.gvisor", 1},
		"gvisor later":       {[]string{`{"max_pids": 5}`, `{"require_gvisor": true}`}, "policy.gvisor", 2},
		"denied when it met": {[]string{`{"max_pids": 5}`, `{"max_pids": 0}`}, "policy.result", 2},
	} {
		t.Run(name, func(t *testing.T) {
			d := &obliging{rego: c.rego, dir: func(o string) string { return policyWith(t, allow, o) }}
			e := &Engine{decider: d}
			a := &attempt{e: e}
			input := func(p sandbox.Plan) policy.Input {
				in := policy.Input{Point: "run", Now: testTime, Run: policy.Run{Limits: policy.Limits{PIDs: p.Limits.PIDs}}}
				return in
			}
			tight, dec, err := e.decided(t.Context(), a, draft, input)
			if len(d.asked) != c.asks {
				t.Errorf("asked %d times, want %d", len(d.asked), c.asks)
			}
			if c.rule != "" {
				if f := fault.As(err); err == nil || f.Rule != c.rule || !errors.Is(err, fault.Denied) || f.Remedy == "" {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil || !dec.Allowed() {
				t.Fatal(err)
			}
			last := d.asked[len(d.asked)-1]
			if last.Run.Limits.PIDs != tight.Limits.PIDs {
				t.Errorf("decided about %d processes, and %d run", last.Run.Limits.PIDs, tight.Limits.PIDs)
			}
			if by := dec.ObligedBy(); by.Any() != (c.asks > 1) {
				t.Errorf("obliged by %+v", by)
			}
		})
	}
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// policyWith is a policy directory whose decision is format, filled in.
func policyWith(t *testing.T, format, value string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "decision.rego"), fmt.Appendf(nil, format, value), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
