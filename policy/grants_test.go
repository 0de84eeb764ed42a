package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

func TestGrants(t *testing.T) {
	for name, c := range map[string]struct {
		file, grants string
		change       func(*policy.Input)
		want         string // code, or "" for allowed
	}{
		"bind itself":       {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/srv/data", false)), ""},
		"bind below":        {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/srv/data/a/b", false)), ""},
		"bind beside":       {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/srv/database", false)), "baseline.host-path"},
		"bind above":        {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/srv", false)), "baseline.host-path"},
		"second bind":       {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/srv/data", false), bind("/etc", true)), "baseline.host-path"},
		"bind of the root":  {"grants.json", `{"binds": ["/srv/data"]}`, mounts(bind("/", true)), "baseline.host-path"},
		"read-only":         {"grants.json", `{"binds": ["/srv:ro"]}`, mounts(bind("/srv", true)), ""},
		"not read-only":     {"grants.json", `{"binds": ["/srv:ro"]}`, mounts(bind("/srv", false)), "baseline.host-path"},
		"capability":        {"grants.json", `{"capabilities": ["SYS_PTRACE"]}`, caps("CAP_SYS_PTRACE"), ""},
		"capability spelt":  {"grants.json", `{"capabilities": ["CAP_SYS_PTRACE"]}`, caps("CAP_SYS_PTRACE"), ""},
		"capability of PSS": {"grants.json", `{"capabilities": ["CHOWN"]}`, caps("CAP_CHOWN"), ""},
		"other capability":  {"grants.json", `{"capabilities": ["SYS_PTRACE"]}`, caps("CAP_SYS_PTRACE", "CAP_SYS_ADMIN"), "baseline.capabilities"},
		"network":           {"grants.json", `{"networks": ["host"]}`, network("host"), ""},
		"no port":           {"grants.json", `{"networks": ["host"]}`, tcpPorts([]string{"80"}, nil), "baseline.tcp-bind"},
		"port":              {"grants.json", `{"networks": ["host"], "tcp_bind": [80, "443"]}`, tcpPorts([]string{"443", "80"}, nil), ""},
		"other direction":   {"grants.json", `{"networks": ["host"], "tcp_bind": [80]}`, tcpPorts(nil, []string{"80"}), "baseline.tcp-connect"},
		"all ports":         {"grants.json", `{"networks": ["host"], "tcp_connect": ["*"]}`, tcpPorts(nil, []string{"80", "81"}), ""},
		"all but few":       {"grants.json", `{"networks": ["host"], "tcp_connect": [80]}`, tcpPorts(nil, []string{"*"}), "baseline.tcp-connect"},
		"no Landlock":       {"grants.json", `{"landlock": ["off"]}`, landlockOff, ""},
		"Landlock":          {"grants.json", `{}`, landlockOff, "baseline.landlock"},
		"of an old kernel":  {"grants.json", `{}`, func(in *policy.Input) { in.Run.Landlock.Missing = "kernel" }, ""},
		"yaml":              {"grants.yaml", "networks:\n- host\n", network("host"), ""},
		"yml":               {"grants.yml", "networks: [host]\n", network("host"), ""},
		"image":             {"grants.json", `{"images": {"registry.example/team/*": {"networks": ["host"]}}}`, network("host"), ""},
		"other image":       {"grants.json", `{"images": {"registry.example/other/*": {"networks": ["host"]}}}`, network("host"), "baseline.host-namespaces"},
		"more memory":       {"grants.json", `{"limits": {"memory": "16g"}}`, func(in *policy.Input) { in.Run.Limits.Memory = 1 << 34 }, ""},
		"too much memory":   {"grants.json", `{"limits": {"memory": "16g"}}`, func(in *policy.Input) { in.Run.Limits.Memory = 1<<34 + 1 }, "baseline.limits-memory"},
		"less memory":       {"grants.json", `{"limits": {"memory": 1024}}`, func(in *policy.Input) { in.Run.Limits.Memory = 1025 }, "baseline.limits-memory"},
		"swap":              {"grants.json", `{"limits": {"swap": 1024}}`, func(in *policy.Input) { in.Run.Limits.Swap = 1025 }, "baseline.limits-swap"},
		"pids":              {"grants.json", `{"limits": {"pids": 100000}}`, func(in *policy.Input) { in.Run.Limits.PIDs = 100000 }, ""},
		"cpus":              {"grants.json", `{"limits": {"cpus": 0.5}}`, func(in *policy.Input) { in.Run.Limits.CPUs = 0.75 }, "baseline.limits-cpus"},
		"still no evidence": {"grants.json", `{"networks": ["host"]}`, func(in *policy.Input) { in.Evidence = nil }, "baseline.evidence"},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(t, open(t, c.file, c.grants), with(c.change))
			if c.want != "" {
				denied(t, d, c.want)
			} else if !d.Allowed() {
				t.Fatal(d.Reasons())
			}
		})
	}
}

func mounts(m ...policy.Mount) func(*policy.Input) {
	return func(in *policy.Input) { in.Run.Mounts = m }
}
func caps(c ...string) func(*policy.Input) { return func(in *policy.Input) { in.Run.Capabilities = c } }
func tcpPorts(bind, connect []string) func(*policy.Input) {
	return func(in *policy.Input) {
		in.Run.Network, in.Run.Landlock.TCPBind, in.Run.Landlock.TCPConnect = "host", bind, connect
	}
}
func landlockOff(in *policy.Input) {
	in.Run.SecurityOpt, in.Run.Landlock.Missing = []string{"landlock=off"}, "off"
}
func network(n string) func(*policy.Input) { return func(in *policy.Input) { in.Run.Network = n } }

func TestGrantsThatAreRefused(t *testing.T) {
	for _, text := range []string{
		`{"bind": ["/srv"]}`, `{"Binds": ["/srv"]}`, `{"binds": "/srv"}`, `{"binds": [1]}`, `{"binds": ["srv"]}`, `{"binds": ["/srv/"]}`,
		`{"binds": ["/srv/../etc"]}`, `{"binds": ["/"]}`, `{"binds": ["/:ro"]}`, `{"binds": [""]}`, `{"binds": {"/srv": true}}`,
		`{"capabilities": ["ALL"]}`, `{"capabilities": ["all"]}`, `{"capabilities": ["chown"]}`, `{"capabilities": [""]}`, `{"capabilities": ["CAP_"]}`,
		`{"networks": ["bridge"]}`, `{"networks": [""]}`, `{"networks": "host"}`, `{"sysctls": ["a/b"]}`, `{"seccomp": true}`, `{"seccomp": ["*"]}`, `{"seccomp": ["SYS_bpf"]}`, `{"devices": ["/etc/passwd"]}`, `{"devices": ["/dev/../x"]}`, `{"networks": null}`, `{"tcp_bind": [65536]}`, `{"tcp_bind": [1.5]}`, `{"tcp_connect": ["http"]}`, `{"tcp_connect": 80}`, `{"landlock": ["on"]}`, `{"landlock": true}`,
		`{"level": "lenient"}`, `{"level": ""}`, `{"level": 1}`, `{"level": null}`,
		`{"limits": {"memory": 0}}`, `{"limits": {"memory": -1}}`, `{"limits": {"memory": "lots"}}`, `{"limits": {"memory": "9223372036854775807g"}}`,
		`{"limits": {"memory": "g"}}`, `{"limits": {"memory": 1.5}}`, `{"limits": {"pids": 0}}`, `{"limits": {"pids": "many"}}`, `{"limits": {"pids": 1e3000}}`,
		`{"limits": {"cpus": 0}}`, `{"limits": {"cpus": 1e400}}`, `{"limits": {"files": 1}}`, `{"limits": [1]}`,
		`{"images": {"": {}}}`, `{"images": {"registry.example/app:1": {}}}`, `{"images": {"a/[": {}}}`, `{"images": {"a/{b": {}}}`, `{"images": {"a/b@sha256:11": {}}}`, `{"images": {"a/b": {"level": "baseline"}}}`, `{"images": {"a/b": []}}`, `{"images": []}`,
	} {
		d := dir(t, "grants.json", text)
		_, err := policy.Open(policy.Config{Dir: d})
		refused(t, err, fault.Invalid, "policy.grants", d+"/grants.json")
	}
	d := dir(t, "grants.json", `{}`, "grants.yaml", "{}")
	_, err := policy.Open(policy.Config{Dir: d})
	refused(t, err, fault.Invalid, "policy.grants", "grants.json and grants.yaml")
}

// TestFixesWork does what the fix of a reason says, in each form it can have,
// and finds the thing allowed.
func TestFixesWork(t *testing.T) {
	for name, c := range map[string]struct {
		before, fix, after string
		change             func(*policy.Input)
	}{
		"new file, bind": {"", `write {"binds": ["/srv"]} to DIR/grants.json`, `{"binds": ["/srv"]}`, mounts(bind("/srv", false))},
		"new member":     {`{"level": "restricted"}`, `add "networks": ["host"] to DIR/grants.json`, `{"level": "restricted", "networks": ["host"]}`, network("host")},
		"new element": {"{\n  \"level\": \"restricted\",\n  \"capabilities\": [\"KILL\"]\n}", `add "CHOWN" to "capabilities" in line 3 of DIR/grants.json`,
			"{\n  \"level\": \"restricted\",\n  \"capabilities\": [\"KILL\", \"CHOWN\"]\n}", caps("CAP_CHOWN")},
		"new limit": {"{\"level\": \"restricted\",\n\"limits\": {\"pids\": 10}}", `add "memory": N to "limits" in line 2 of DIR/grants.json`,
			"{\"level\": \"restricted\",\n\"limits\": {\"pids\": 1000, \"memory\": 17179869184}}", func(in *policy.Input) { in.Run.Limits = policy.Limits{Memory: 1 << 34, PIDs: 9, CPUs: 1} }},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			if c.before != "" {
				files = []string{"grants.json", c.before}
			}
			d := dir(t, files...)
			e, err := policy.Open(policy.Config{Dir: d})
			if err != nil {
				t.Fatal(err)
			}
			got := decide(t, e, with(c.change))
			if want := strings.ReplaceAll(c.fix, "DIR", d); got.Allowed() || !strings.Contains(got.Reasons()[0].Fix, want) {
				t.Fatalf("%v does not say %q", got.Reasons(), want)
			}
			if after := decide(t, open(t, "grants.json", c.after), with(c.change)); !after.Allowed() {
				t.Fatal(after.Reasons())
			}
		})
	}
}

// A percent sign in the directory's name must not become a verb of the format.
func TestFixInAStrangeDirectory(t *testing.T) {
	e, err := policy.Open(policy.Config{Dir: t.TempDir() + "/100%d"})
	if err != nil {
		t.Fatal(err)
	}
	if fix := decide(t, e, with(network("host"))).Reasons()[0].Fix; !strings.Contains(fix, "/100%d/grants.json") || strings.Contains(fix, "%!") {
		t.Fatal(fix)
	}
}

// A local rule sees the grants as documented.
func TestGrantsAreData(t *testing.T) {
	e := open(t, "grants.json", `{"binds": ["/a", "/b:ro"], "limits": {"memory": "1g"}}`, "a.rego", `package ward.run
warn contains json.marshal([data.ward.level, data.ward.grants.binds, data.ward.grants.binds_ro, data.ward.limits.memory])`)
	d := decide(t, e, good())
	var got []any
	if err := json.Unmarshal([]byte(d.Warnings()[0].Msg), &got); err != nil || len(got) != 4 || got[0] != "restricted" || got[3] != float64(1<<30) {
		t.Fatalf("%v %v", d.Warnings(), err)
	}
}
