package profile

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	docker "github.com/moby/profiles/seccomp"
)

var amd64Facts = Facts{Arch: "amd64", Kernel: "6.1.0-13-amd64"}

func TestParse(t *testing.T) {
	p, err := Parse([]byte(`{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
		"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
		"syscalls": [
			{"names": ["read", "write", "nosuchcall"], "action": "SCMP_ACT_ALLOW", "comment": "c"},
			{"name": "execve", "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
			{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
			{"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
			{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}]},
			{"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
			{"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
			{"names": ["getuid"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
			{"names": ["geteuid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
			{"names": ["getgid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.1"}},
			{"names": ["getegid"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
			{"names": ["gettid"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}
		]}`), amd64Facts)
	if err != nil {
		t.Fatal(err)
	}
	one := func(action Action, errno uint, names ...string) Rule {
		return Rule{Names: names, Action: action, Errno: errno}
	}
	clone := one(Allow, 0, "clone")
	clone.Args = []Arg{masked(cloneNamespaces, 0)}
	want := Profile{Name: Custom, DefaultErrno: 38, Rules: []Rule{
		one(Allow, 0, "read", "write"), one(Allow, 0, "execve"), one(Refuse, eperm, "mkdir"), one(Refuse, 13, "rmdir"), clone,
		one(Allow, 0, "getppid"), one(Allow, 0, "getgid"),
	}}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%+v\nnot\n%+v", p, want)
	}
}

func TestParseRefuses(t *testing.T) {
	rule := func(s string) string { return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{` + s + `}]}` }
	allowed := `"names":["read"],"action":"SCMP_ACT_ALLOW"`
	for in, says := range map[string]string{
		``:                                   "EOF",
		`null`:                               "defaultAction",
		`{}`:                                 "defaultAction",
		`{"defaultAction":"SCMP_ACT_ALLOW"}`: "lists what to allow",
		`{"defaultAction":"SCMP_ACT_KILL"}`:  "not there yet",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":0}`:                                         "error number 0",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`:                                      "error number 4096",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":-1}`:                                        "cannot unmarshal",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS"}`:                                     "defaultErrno",
		`{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}`:                                         "listenerPath",
		`{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`:                  "SPEC_ALLOW",
		`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_AARCH64"]}`:                       "architecture",
		`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"archMap":[{}]}`:         "use one",
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultaction":"SCMP_ACT_ERRNO"}`:                            "twice",
		`{"defaultAction":"SCMP_ACT_ERRNO"} {}`:                                                          "after the end",
		`{"defaultAction":"SCMP_ACT_ERRNO","sycalls":[]}`:                                                "unknown field",
		rule(`"action":"SCMP_ACT_ALLOW"`):                                                                "no call",
		rule(`"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"`):                                "use one",
		rule(`"names":["read"]`):                                                                         "not there yet",
		rule(`"names":["read"],"action":"SCMP_ACT_LOG"`):                                                 "not there yet",
		rule(`"names":["read"],"action":"SCMP_ACT_NOTIFY"`):                                              "not there yet",
		rule(`"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":0`):                                  "error number 0",
		rule(`"names":["read"],"action":"SCMP_ACT_ERRNO","errno":"EPERM"`):                               "errnoRet",
		rule(allowed + `,"errnoRet":1`):                                                                  "errnoRet",
		rule(allowed + `,"args":[{"index":6,"op":"SCMP_CMP_EQ"}]`):                                       "no argument 6",
		rule(allowed + `,"args":[{"index":0,"op":"=="}]`):                                                "not known",
		rule(allowed + `,"args":[{"op":"SCMP_CMP_EQ","valueTwo":1}]`):                                    "valueTwo",
		rule(allowed + `,"args":[{"op":"SCMP_CMP_MASKED_EQ","value":1,"valueTwo":2}]`):                   "bits",
		rule(allowed + `,"args":[{"op":"SCMP_CMP_MASKED_EQ"}]`):                                          "bits",
		rule(allowed + `,"args":[{"op":"SCMP_CMP_EQ","value":1},{"op":"SCMP_CMP_EQ","value":2}]`):        "two conditions",
		rule(allowed + `,"includes":{"minKernel":"5"}`):                                                  "minKernel",
		rule(allowed + `,"includes":{"minKernel":"5.4.1"}`):                                              "minKernel",
		strings.Repeat("[", 100) + strings.Repeat("]", 100):                                              "nested",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + strings.Repeat(" ", MaxFile):                  "bytes",
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + strings.Repeat("{},", maxRules) + "{}" + `]}`: "rules",
	} {
		_, err := Parse([]byte(in), amd64Facts)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.100s: %v, want %q", in, err, says)
		}
	}
}

// TestDockersProfileIsRead: the file everybody starts from. It allows more
// than ward does, and each of those calls is named.
func TestDockersProfileIsRead(t *testing.T) {
	b, err := json.Marshal(docker.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b, amd64Facts)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.Filter()
	if err != nil {
		t.Fatal(err)
	}
	base, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	beyond := f.Beyond(base)
	t.Logf("%d rules; beyond the default: %v", len(p.Rules), beyond)
	if !slices.Contains(beyond, "socket") || len(beyond) > 30 || slices.ContainsFunc(beyond, func(n string) bool { return slices.Contains(never, n) }) {
		t.Errorf("beyond the default: %v", beyond)
	}
	compare(t, f, 40)
}

func FuzzParse(f *testing.F) {
	b, err := json.Marshal(docker.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"minKernel":"4.8"}}]}`))
	base, err := Default().Filter()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b, amd64Facts)
		if err != nil {
			return
		}
		filter, err := p.Filter()
		if err != nil {
			t.Fatalf("parsed and then not a filter: %v", err)
		}
		if _, err := filter.Program(); err == nil {
			compare(t, filter, 1)
		}
		if len(filter.Beyond(base)) > 0 {
			return
		}
		for nr := range callNames {
			for _, args := range [][maxArgs]uint64{{}, {1}, {0x10000000}, {38}, {^uint64(0)}} {
				if filter.Answer(nr, args).Allow && !base.Answer(nr, args).Allow {
					t.Fatalf("call %d %v is allowed beyond the default", nr, args)
				}
			}
		}
	})
}
