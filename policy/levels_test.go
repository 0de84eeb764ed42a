package policy_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

func bind(source string, ro bool) policy.Mount {
	return policy.Mount{Type: "bind", Source: source, Target: "/x", ReadOnly: ro}
}

// TestControls asks the shipped levels, as they are loaded without and with a
// grants document, about each thing they refuse.
func TestControls(t *testing.T) {
	engines := []*policy.Engine{open(t), open(t, "grants.json", `{}`), open(t, "grants.json", `{"level": "baseline"}`)}
	if engines[1].Level() != policy.Restricted || engines[2].Level() != policy.Baseline {
		t.Fatal(engines[1].Level(), engines[2].Level())
	}
	for name, c := range map[string]struct {
		change               func(*policy.Input)
		restricted, baseline string // code, or "" for allowed
	}{
		"nothing":            {func(in *policy.Input) {}, "", ""},
		"no evidence":        {func(in *policy.Input) { in.Evidence = nil }, "baseline.evidence", "baseline.evidence"},
		"unverified":         {func(in *policy.Input) { in.Evidence = json.RawMessage(`{"verified":false}`) }, "baseline.evidence", "baseline.evidence"},
		"other digest":       {func(in *policy.Input) { in.Image.Checksum = "sha256:ff" }, "baseline.evidence", "baseline.evidence"},
		"host network":       {func(in *policy.Input) { in.Run.Network = "host" }, "baseline.host-namespaces", "baseline.host-namespaces"},
		"bind":               {func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("/srv", true)} }, "baseline.host-path", "baseline.host-path"},
		"tmpfs":              {func(in *policy.Input) { in.Run.Mounts = []policy.Mount{{Type: "tmpfs", Target: "/x"}} }, "", ""},
		"volume":             {mounts(policy.Mount{Type: "volume", Name: "data", Target: "/x"}), "", ""},
		"volume of a path":   {mounts(policy.Mount{Type: "volume", Name: "data", Source: "/etc", Target: "/x"}), "baseline.host-path", "baseline.host-path"},
		"image":              {mounts(policy.Mount{Type: "image", Name: "r/i:1", Verified: true, Target: "/x"}), "", ""},
		"unverified image":   {mounts(policy.Mount{Type: "image", Name: "r/i:1", Target: "/x"}), "baseline.host-path", "baseline.host-path"},
		"unknown mount":      {mounts(policy.Mount{Type: "overlay", Verified: true, Target: "/x"}), "baseline.host-path", "baseline.host-path"},
		"SYS_ADMIN":          {func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_SYS_ADMIN"} }, "baseline.capabilities", "baseline.capabilities"},
		"NET_RAW":            {func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_NET_RAW"} }, "baseline.capabilities", "baseline.capabilities"},
		"CHOWN":              {func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_CHOWN"} }, "restricted.capabilities", ""},
		"NET_BIND_SERVICE":   {func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_NET_BIND_SERVICE"} }, "", ""},
		"new privileges":     {func(in *policy.Input) { in.Run.NoNewPrivs = false }, "restricted.privilege-escalation", ""},
		"seccomp off":        {func(in *policy.Input) { in.Run.Seccomp.Profile = "unconfined" }, "baseline.seccomp-profile", "baseline.seccomp-profile"},
		"seccomp unnamed":    {func(in *policy.Input) { in.Run.Seccomp.Profile = "" }, "baseline.seccomp-profile", "baseline.seccomp-profile"},
		"unmasked":           {func(in *policy.Input) { in.Run.MaskedPaths = in.Run.MaskedPaths[1:] }, "baseline.proc-mount-masks", "baseline.proc-mount-masks"},
		"apparmor":           {func(in *policy.Input) { in.Run.SecurityOpt = []string{"apparmor=unconfined"} }, "baseline.apparmor", "baseline.apparmor"},
		"selinux":            {func(in *policy.Input) { in.Run.SecurityOpt = []string{"label=disable"} }, "baseline.selinux", "baseline.selinux"},
		"unlimited memory":   {func(in *policy.Input) { in.Run.Limits.Memory = 0 }, "baseline.limits-memory", "baseline.limits-memory"},
		"negative memory":    {func(in *policy.Input) { in.Run.Limits.Memory = -1 }, "baseline.limits-memory", "baseline.limits-memory"},
		"memory of the host": {func(in *policy.Input) { in.Run.Limits.Memory = in.Host.Memory }, "", ""},
		"more memory":        {func(in *policy.Input) { in.Run.Limits.Memory = in.Host.Memory + 1 }, "baseline.limits-memory", "baseline.limits-memory"},
		"most memory":        {func(in *policy.Input) { in.Run.Limits.Memory = math.MaxInt64 }, "baseline.limits-memory", "baseline.limits-memory"},
		"unlimited swap":     {func(in *policy.Input) { in.Run.Limits.Swap = -1 }, "baseline.limits-swap", "baseline.limits-swap"},
		"unlimited pids":     {func(in *policy.Input) { in.Run.Limits.PIDs = 0 }, "baseline.limits-pids", "baseline.limits-pids"},
		"most pids":          {func(in *policy.Input) { in.Run.Limits.PIDs = 32768 }, "", ""},
		"more pids":          {func(in *policy.Input) { in.Run.Limits.PIDs = 32769 }, "baseline.limits-pids", "baseline.limits-pids"},
		"unlimited cpus":     {func(in *policy.Input) { in.Run.Limits.CPUs = 0 }, "baseline.limits-cpus", "baseline.limits-cpus"},
		"more cpus":          {func(in *policy.Input) { in.Run.Limits.CPUs = 2.5 }, "baseline.limits-cpus", "baseline.limits-cpus"},
		"unknown memory":     {func(in *policy.Input) { in.Host.Memory = 0; in.Run.Limits.Memory = 1 }, "baseline.limits-memory", "baseline.limits-memory"},
		"root":               {func(in *policy.Input) { in.Run.User = policy.User{} }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range engines {
				want := map[string]string{policy.Restricted: c.restricted, policy.Baseline: c.baseline}[e.Level()]
				d := decide(t, e, with(c.change))
				if want == "" && !d.Allowed() {
					t.Errorf("%s denies: %v", e.Level(), d.Reasons())
				} else if want != "" {
					denied(t, d, want)
					if r := d.Reasons()[0]; r.Msg == "" || r.Fix == "" || strings.ContainsAny(r.Msg+r.Fix, "{}") && !strings.Contains(r.Fix, "grants.json") || strings.Contains(r.Msg+r.Fix, "%!") {
						t.Errorf("%+v", r)
					}
				}
			}
		})
	}
}

// Config.Level can only tighten: a looser level is a file's to give.
func TestConfigLevelOnlyTightens(t *testing.T) {
	chown := with(func(in *policy.Input) { in.Run.Capabilities = []string{"CAP_CHOWN"} })
	baseline := dir(t, "grants.json", `{"level": "baseline"}`)
	for _, c := range []struct {
		cfg  policy.Config
		want string
	}{
		{policy.Config{}, "restricted"},
		{policy.Config{Level: "baseline"}, "restricted"},
		{policy.Config{Dir: baseline}, "baseline"},
		{policy.Config{Dir: baseline, Level: "baseline"}, "baseline"},
		{policy.Config{Dir: baseline, Level: "restricted"}, "restricted"},
	} {
		e, err := policy.Open(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if d := decide(t, e, chown); d.Level() != c.want || d.Allowed() != (c.want == "baseline") {
			t.Errorf("%+v: %s, %v", c.cfg, d.Level(), d.Allowed())
		}
	}
	_, err := policy.Open(policy.Config{Level: "lenient"})
	refused(t, err, fault.Invalid, "policy.level", "lenient")
}

func TestInputsThatCannotBeJudged(t *testing.T) {
	e := open(t, "grants.json", `{"binds": ["/srv"]}`)
	for name, change := range map[string]func(*policy.Input){
		"other version":    func(in *policy.Input) { in.Version = 2 },
		"other point":      func(in *policy.Input) { in.Point = "exec" },
		"no point":         func(in *policy.Input) { in.Point = "" },
		"no time":          func(in *policy.Input) { *in = policy.Input{Point: "run"} },
		"cpus not finite":  func(in *policy.Input) { in.Run.Limits.CPUs = math.Inf(1) },
		"cpus not number":  func(in *policy.Input) { in.Run.Limits.CPUs = math.NaN() },
		"evidence broken":  func(in *policy.Input) { in.Evidence = json.RawMessage(`{"verified":true`) },
		"evidence bytes":   func(in *policy.Input) { in.Evidence = json.RawMessage("{\"verified\":true,\"digest\":\"\xff\"}") },
		"large":            func(in *policy.Input) { in.Run.Args = []string{strings.Repeat("x", 2<<20)} },
		"bytes in a path":  func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("/srv/\xff", true)} },
		"bytes in a name":  func(in *policy.Input) { in.Run.Labels = map[string]string{"a\xc0\x80": ""} },
		"escape and bytes": func(in *policy.Input) { in.Run.Args = []string{`\ufffd`, "\xff"} },
		"dots":             func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("/srv/../etc", true)} },
		"trailing slash":   func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("/srv/", true)} },
		"double slash":     func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("/srv//data", true)} },
		"relative":         func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("srv", true)} },
		"no source":        func(in *policy.Input) { in.Run.Mounts = []policy.Mount{bind("", true)} },
	} {
		t.Run(name, func(t *testing.T) {
			d, err := e.Decide(t.Context(), with(change))
			refused(t, err, fault.Invalid, "policy.input")
			denied(t, d, "policy.undecided")
		})
	}
	// The replacement character itself, and the spelling of its escape, are text.
	for _, ok := range []string{"\ufffd", `\ufffd`, `\\ufffd`} {
		if d := decide(t, e, with(func(in *policy.Input) { in.Run.Args = []string{ok} })); !d.Allowed() {
			t.Errorf("%q: %v", ok, d.Reasons())
		}
	}
}

func TestThisHost(t *testing.T) {
	h := policy.ThisHost()
	if h.Memory < 1<<26 || h.CPUs < 1 || h.Kernel == "" || h.OS == "" || h.Arch == "" || h.Cgroup == "" {
		t.Fatalf("%+v", h)
	}
}
