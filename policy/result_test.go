package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// custom is a policy directory whose own decision has this Rego value.
func custom(value string) []string {
	return []string{"decision.rego", "package ward.run\n\ndecision := " + value + "\n"}
}

func TestCustomDecisionAllows(t *testing.T) {
	e := open(t, custom(`{"allow": true}`)...)
	d := decide(t, e, good())
	if !d.Allowed() || d.Level() != "custom" {
		t.Fatalf("%v %v", d.Reasons(), d.Level())
	}
}

func TestDecisionsThatAreNotUnderstoodDeny(t *testing.T) {
	for name, value := range map[string]string{
		"true":               `true`,
		"string":             `"allow"`,
		"null":               `null`,
		"number":             `1`,
		"set":                `{"allow"}`,
		"list":               `[{"allow": true}]`,
		"allow string":       `{"allow": "true"}`,
		"allow number":       `{"allow": 1}`,
		"allow null":         `{"allow": null}`,
		"allow object":       `{"allow": {"allow": true}}`,
		"unknown member":     `{"allow": true, "Deny": []}`,
		"member not string":  `{"allow": true, 1: 2}`,
		"deny object":        `{"allow": true, "deny": {}}`,
		"deny string":        `{"allow": true, "deny": ""}`,
		"deny bool":          `{"allow": true, "deny": false}`,
		"deny null":          `{"allow": true, "deny": null}`,
		"reason number":      `{"allow": true, "deny": [1]}`,
		"warn number":        `{"allow": true, "warn": 1}`,
		"warn reason number": `{"allow": true, "warn": [1]}`,
		"msg number":         `{"allow": true, "warn": [{"code": "x", "msg": 1}]}`,
		"msg missing":        `{"allow": true, "warn": [{"code": "x"}]}`,
		"obligations list":   `{"allow": true, "obligations": [1]}`,
		"obligations string": `{"allow": true, "obligations": "read_only_root"}`,
		"obligation unknown": `{"allow": true, "obligations": {"add_capabilities": ["SYS_ADMIN"]}}`,
		"read_only false":    `{"allow": true, "obligations": {"read_only_root": false}}`,
		"max zero":           `{"allow": true, "obligations": {"max_memory": 0}}`,
		"max negative":       `{"allow": true, "obligations": {"max_pids": -1}}`,
		"max fraction":       `{"allow": true, "obligations": {"max_pids": 1.5}}`,
		"max huge":           `{"allow": true, "obligations": {"max_memory": 100000000000000000000}}`,
		"max string":         `{"allow": true, "obligations": {"max_memory": "1g"}}`,
		"cpus zero":          `{"allow": true, "obligations": {"max_cpus": 0}}`,
		"cpus string":        `{"allow": true, "obligations": {"max_cpus": "1"}}`,
		"gvisor false":       `{"allow": true, "obligations": {"require_gvisor": false}}`,
		"nnp string":         `{"allow": true, "obligations": {"no_new_privs": "true"}}`,
		"swap negative":      `{"allow": true, "obligations": {"max_swap": -1}}`,
		"swap fraction":      `{"allow": true, "obligations": {"max_swap": 0.5}}`,
		"calls string":       `{"allow": true, "obligations": {"deny_syscalls": "ptrace"}}`,
		"calls unspelt":      `{"allow": true, "obligations": {"deny_syscalls": ["PTRACE"]}}`,
		"calls number":       `{"allow": true, "obligations": {"deny_syscalls": [1]}}`,
		"drop string":        `{"allow": true, "obligations": {"drop_capabilities": "CHOWN"}}`,
		"drop number":        `{"allow": true, "obligations": {"drop_capabilities": [1]}}`,
		"drop unspelt":       `{"allow": true, "obligations": {"drop_capabilities": ["chown"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(t, open(t, custom(value)...), good())
			if d.Allowed() || !slices.Contains(codes(d.Reasons()), "policy.result") {
				t.Fatalf("%v %v", d.Allowed(), d.Reasons())
			}
			if o := d.Obligations(); o.ReadOnlyRoot || o.MaxCPUs != 0 || o.MaxMemory != 0 || o.MaxPIDs != 0 || o.DropCapabilities != nil || o.Any() {
				t.Fatalf("a denied run has obligations %+v", o)
			}
		})
	}
}

func TestDenials(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  []string
	}{
		"says nothing":     {`{}`, []string{"policy.denied"}},
		"false":            {`{"allow": false}`, []string{"policy.denied"}},
		"allow and deny":   {`{"allow": true, "deny": [{"code": "x.y", "msg": "no"}]}`, []string{"x.y"}},
		"allow and string": {`{"allow": true, "deny": ["no"]}`, []string{"policy.deny"}},
	} {
		t.Run(name, func(t *testing.T) { denied(t, decide(t, open(t, custom(c.value)...), good()), c.want...) })
	}
}

func TestUndefinedIsDeny(t *testing.T) {
	for name, text := range map[string]string{
		"no decision":        "package ward.run\n",
		"body not satisfied": "package ward.run\ndecision := {\"allow\": true} if input.run.name == \"never\"\n",
		"of undefined parts": "package ward.run\ndecision := {\"allow\": true, \"deny\": data.nothing.here}\n",
		"another package":    "package other\ndecision := {\"allow\": true}\n",
	} {
		t.Run(name, func(t *testing.T) { denied(t, decide(t, open(t, "decision.rego", text), good()), "policy.undefined") })
	}
}

func TestConflictIsDeny(t *testing.T) {
	d := decide(t, open(t, "decision.rego", `package ward.run
decision := {"allow": true} if input.run.network == "none"
decision := {"allow": false} if input.run.cwd == "/"`), good())
	denied(t, d, "policy.conflict")
	if !strings.Contains(d.Reasons()[0].Msg, "decision.rego:") {
		t.Fatal(d.Reasons())
	}
}

// A built-in that fails makes its rule undefined in OPA's default mode; here
// the deny rule it stands in would silently be gone.
func TestFailingBuiltinIsDeny(t *testing.T) {
	e := open(t, "a.rego", "package ward.run\ndeny contains \"x\" if to_number(input.run.name) > 3\n")
	d := decide(t, e, with(func(in *policy.Input) { in.Run.Name = "not-a-number" }))
	denied(t, d, "policy.error")
	if !strings.Contains(d.Reasons()[0].Msg, "a.rego:2") {
		t.Fatal(d.Reasons())
	}
	if d := decide(t, e, with(func(in *policy.Input) { in.Run.Name = "2" })); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
}

func TestObligationsTightenOnly(t *testing.T) {
	e := open(t,
		"a.rego", `package ward.run
obligations contains {"max_memory": 1000, "max_pids": 10, "max_cpus": 2, "drop_capabilities": ["CHOWN", "CAP_KILL"]}`,
		"b.rego", `package ward.run
obligations contains {"max_memory": 2000, "max_pids": 5, "max_cpus": 0.5, "drop_capabilities": {"CAP_CHOWN"}, "read_only_root": true}
obligations contains {"max_swap": 5, "deny_syscalls": ["ptrace"]}
obligations contains {"max_swap": 0, "deny_syscalls": ["bpf", "ptrace"], "no_new_privs": true, "require_gvisor": true}
warn contains {"code": "site.note", "msg": "be careful"}`)
	d := decide(t, e, good())
	o := d.Obligations()
	if !d.Allowed() || o.MaxMemory != 1000 || o.MaxPIDs != 5 || o.MaxCPUs != 0.5 || !o.ReadOnlyRoot ||
		o.MaxSwap == nil || *o.MaxSwap != 0 || !slices.Equal(o.DenySyscalls, []string{"bpf", "ptrace"}) || !o.NoNewPrivs || !o.RequireGVisor ||
		!slices.Equal(o.DropCapabilities, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Fatalf("%v %+v", d.Reasons(), o)
	}
	if got := codes(d.Warnings()); !slices.Equal(got, []string{"site.note"}) {
		t.Fatal(got)
	}
}

// Files of the directory add to what is shipped; nothing they say takes away.
func TestLocalRulesCannotLoosen(t *testing.T) {
	host := with(func(in *policy.Input) { in.Run.Network = "host" })
	e := open(t, "a.rego", `package ward.run
import data.ward.levels.baseline
deny contains {"code": "site.tag", "msg": "no"} if input.image.tag == "latest"
helper := x if { x := baseline.violations with data.ward.granted.networks as ["host"] }`)
	denied(t, decide(t, e, host), "baseline.host-namespaces")
	denied(t, decide(t, e, with(func(in *policy.Input) { in.Image.Tag = "latest" })), "site.tag")

	for name, c := range map[string]struct{ rule, text string }{
		"shipped package":  {"policy.package", "package ward.levels.baseline\naddable := {\"SYS_ADMIN\"}\n"},
		"granted package":  {"policy.package", "package ward.granted\nnetworks contains \"host\"\n"},
		"package above":    {"policy.package", "package ward\ngranted.networks contains \"host\"\n"},
		"package below":    {"policy.package", "package ward.run.deny\nx := 1\n"},
		"quoted package":   {"policy.package", "package ward[\"levels\"]\nx := 1\n"},
		"decision":         {"policy.package", "package ward.run\ndecision := {\"allow\": true}\n"},
		"decision member":  {"policy.package", "package ward.run\ndecision.allow := true\n"},
		"default decision": {"policy.package", "package ward.run\ndefault decision := {\"allow\": true}\n"},
		"allow":            {"policy.package", "package ward.run\ndefault allow := false\n"},
		"violations":       {"policy.package", "package ward.run\nviolations := set()\n"},
		"deny as a value":  {"policy.syntax", "package ward.run\ndeny := set()\n"},
		"data under ward":  {"policy.syntax", "package ward.run\ndeny contains \"x\" if data.ward.run.decision.allow\n"},
		"impure built-in":  {"policy.syntax", "package ward.run\ndeny contains \"x\" if http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}).status_code == 200\n"},
		"clock":            {"policy.syntax", "package ward.run\ndeny contains \"x\" if time.now_ns() > 0\n"},
		"environment":      {"policy.syntax", "package ward.run\ndeny contains \"x\" if opa.runtime().env.HOME\n"},
		"name lookup":      {"policy.syntax", "package ward.run\ndeny contains \"x\" if net.lookup_ip_addr(\"localhost\")\n"},
		"chance":           {"policy.syntax", "package ward.run\ndeny contains \"x\" if rand.intn(\"a\", 2) == 1\n"},
		"old Rego":         {"policy.syntax", "package ward.run\ndeny[x] { x := \"x\" }\n"},
		"misspelt input":   {"policy.syntax", "package ward.run\ndeny contains \"x\" if input.run.netwrk == \"host\"\n"},
		"wrong type":       {"policy.syntax", "package ward.run\ndeny contains \"x\" if input.run.network == true\n"},
		"empty":            {"policy.syntax", ""},
		"not Rego":         {"policy.syntax", "\x00\x01\x02"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dir(t, "a.rego", c.text)
			_, err := policy.Open(policy.Config{Dir: d})
			refused(t, err, fault.Invalid, c.rule, d+"/a.rego:")
		})
	}
}
