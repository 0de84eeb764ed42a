package policy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// tree is a policy directory with directories in it.
func tree(t testing.TB, files ...string) string {
	t.Helper()
	d := dir(t)
	for i := 0; i < len(files); i += 2 {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(d, files[i])), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func pointed(t testing.TB, point string, files ...string) *policy.Engine {
	t.Helper()
	e, err := policy.Open(policy.Config{Dir: tree(t, files...), Point: point})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// documented is an input at point k8s about a container of this object.
func documented(object string) policy.Input {
	return with(func(in *policy.Input) {
		in.Point, in.Document = policy.PointK8s, json.RawMessage(object)
		in.K8s.RunAsNonRoot, in.Run.User.UID = true, 1000
	})
}

// Policies as teams write them for conftest.
const (
	conftestPods = `package main

import rego.v1
import data.lib.kubernetes

name := input.metadata.name

deny contains msg if {
	kubernetes.workload
	not input.spec.template.spec.securityContext.runAsNonRoot
	msg := sprintf("Containers must not run as root in %s %s", [input.kind, name])
}

deny_latest contains {"msg": msg, "image": c.image} if {
	some c in input.spec.template.spec.containers
	endswith(c.image, ":latest")
	msg := sprintf("%s uses the latest tag", [c.image])
}

violation contains {"msg": "no selector", "details": {"kind": input.kind}} if {
	input.kind == "Deployment"
	not input.spec.selector.matchLabels
}

violation_team_label contains msg if {
	team := object.get(input.metadata, ["labels", "team"], "")
	not team in data.teams
	msg := "it has no team"
}

warn contains msg if {
	input.spec.replicas < 2
	msg := "there is only one of it"
}

exception contains rules if {
	startswith(name, "sandbox-")
	rules := ["latest", "team_label"]
}
`
	conftestLib   = "package lib.kubernetes\n\nimport rego.v1\n\nworkload if input.kind in {\"Deployment\", \"StatefulSet\"}\n"
	conftestTeams = `{"teams": ["shop", "search"]}`
)

func TestConftest(t *testing.T) {
	e := pointed(t, policy.PointK8s, "conftest/pods.rego", conftestPods, "conftest/lib/kubernetes.rego", conftestLib, "conftest/teams.json", conftestTeams,
		"conftest/pods_test.rego", "package main\n\ntest_it if name == \"x\" with input as {\"metadata\": {\"name\": \"x\"}}\n", "conftest/README.md", "x")
	bad := `{"kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,"template":{"spec":{"containers":[{"image":"web:latest"}]}}}}`
	d := decide(t, e, documented(bad))
	if d.Allowed() {
		t.Fatal("allowed")
	}
	got := codes(d.Reasons())
	slices.Sort(got)
	if want := "conftest.main.deny conftest.main.deny_latest conftest.main.violation conftest.main.violation_team_label"; strings.Join(got, " ") != want {
		t.Errorf("%v\nwant %v", got, want)
	}
	for _, r := range d.Reasons() {
		if r.Code == "conftest.main.deny_latest" && r.Msg != "web:latest uses the latest tag" {
			t.Error(r)
		}
	}
	if w := d.Warnings(); len(w) != 1 || w[0].Code != "conftest.main.warn" || w[0].Msg != "there is only one of it" {
		t.Error(w)
	}
	good := `{"kind":"Deployment","metadata":{"name":"web","labels":{"team":"shop"}},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"spec":{"securityContext":{"runAsNonRoot":true},"containers":[{"image":"web:1"}]}}}}`
	if d := decide(t, e, documented(good)); !d.Allowed() || len(d.Warnings()) != 0 {
		t.Error(d.Reasons(), d.Warnings())
	}
	// Excepted by name, but not from what has none.
	excepted := strings.NewReplacer(`"web","labels":{"team":"shop"}`, `"sandbox-a"`, "web:1", "web:latest").Replace(good)
	if d := decide(t, e, documented(excepted)); !d.Allowed() {
		t.Error(d.Reasons())
	}
	// It only adds: what the level denies stays denied. Where there is no document it has nothing to judge.
	worse := documented(good)
	worse.K8s.Privileged = true
	denied(t, decide(t, e, worse), "k8s.privileged")
	if d := decide(t, pointed(t, policy.PointRun, "conftest/pods.rego", conftestPods, "conftest/lib/kubernetes.rego", conftestLib), policyInput(0)); !d.Allowed() {
		t.Error(d.Reasons())
	}
	// As any rule of one's own it can be left unenforced.
	e = pointed(t, policy.PointK8s, "conftest/a.rego", "package main\n\ndeny_a contains \"no\"\n", "grants.json", `{"modes": {"conftest.main.deny_a": "warn"}}`)
	if d := decide(t, e, documented(good)); !d.Allowed() || len(d.Warnings()) != 1 {
		t.Error(d.Reasons(), d.Warnings())
	}
}

// A policy that is there and not understood stops everything, or denies.
func TestForeignNotUnderstood(t *testing.T) {
	for name, c := range map[string]struct{ file, text, rule string }{
		"v0":               {"conftest/a.rego", "package main\n\ndeny[msg] {\n\tmsg := \"x\"\n}\n", "policy.syntax"},
		"no rules":         {"conftest/a.rego", "package main\n\ndenies contains \"x\"\n", "policy.foreign"},
		"only data":        {"conftest/a.json", "{}", "policy.foreign"},
		"a function":       {"conftest/a.rego", "package main\n\ndeny(x) := x\n", "policy.foreign"},
		"its own built-in": {"conftest/a.rego", "package main\n\ndeny contains parse_config_file(\"x\")\n", "policy.syntax"},
		"impure":           {"conftest/a.rego", "package main\n\ndeny contains opa.runtime().env.HOME\n", "policy.syntax"},
		"odd file":         {"conftest/a.exe", "x", "policy.layout"},
		"no decision":      {"buildx/Dockerfile.rego", "package docker\n\nallow := true\n", "policy.foreign"},
		"another package":  {"buildx/Dockerfile.rego", "package main\n\ndecision := {\"allow\": true}\n", "policy.foreign"},
		"buildx built-in":  {"buildx/Dockerfile.rego", "package docker\n\ndecision := {\"allow\": verify_git_signature(\"k\")}\n", "policy.syntax"},
		"no policy":        {"buildx/lib/a.rego", "package lib.a\n\nx := 1\n", "policy.foreign"},
		"hidden policy":    {"buildx/lib/a.rego", "package docker\n\ndecision := {\"allow\": true}\n", "policy.foreign"},
		"another program":  {"gatekeeper/a.rego", "package main\n", "policy.layout"},
	} {
		files := []string{c.file, c.text}
		if name == "hidden policy" {
			files = append(files, "buildx/Dockerfile.rego", "package docker\n\ndecision := {\"allow\": false}\n")
		}
		for _, point := range []string{policy.PointRun, policy.PointK8s, policy.PointBuild} {
			_, err := policy.Open(policy.Config{Dir: tree(t, files...), Point: point})
			refused(t, err, fault.Invalid, c.rule)
		}
	}
	for name, rule := range map[string]string{
		"true": "deny := true", "a number": "deny contains 7", "no msg": "deny contains {\"message\": \"x\"}", "msg of numbers": "violation contains {\"msg\": 7}",
		"text": "deny := \"x\"", "fails": "deny contains to_number(\"x\")", "conflict": "deny_a := [\"x\"]\n\ndeny_a := [\"y\"] if true",
	} {
		d := decide(t, pointed(t, policy.PointK8s, "conftest/a.rego", "package main\n\n"+rule+"\n"), documented(`{"kind": "Pod"}`))
		if d.Allowed() || !strings.HasPrefix(d.Reasons()[0].Code, "policy.") {
			t.Errorf("%s: %v %v", name, d.Allowed(), d.Reasons())
		}
	}
	for name, decision := range map[string]string{
		"undefined": "decision := {\"allow\": true} if false", "a word": "decision := \"allow\"", "allow of text": "decision := {\"allow\": \"true\"}", "odd member": "decision := {\"allow\": true, \"deny\": []}",
		"empty": "decision := {}", "conflict": "decision := {\"allow\": true}\n\ndecision := {\"allow\": false} if true", "msgs of text": "decision := {\"allow\": false, \"deny_msg\": \"x\"}",
	} {
		d := decide(t, pointed(t, policy.PointBuild, "buildx/Dockerfile.rego", "package docker\n\n"+decision+"\n"), from("library/alpine"))
		if d.Allowed() {
			t.Errorf("%s is allowed", name)
		}
	}
}

// from is an image that a build takes in.
func from(repo string) policy.Input {
	return with(func(in *policy.Input) {
		in.Point, in.Image.Repo = policy.PointBuild, repo
		in.Build = policy.Build{Step: "from", Dockerfile: "Dockerfile", Target: "app", ArgNames: []string{"VERSION"}}
	})
}

// As buildx' own pages teach it.
const buildxPolicy = `package docker

import data.lib.names

default allow := false

allow if input.local

allow if {
	names.ours(input.image.repo)
	input.image.checksum != ""
	input.env.filename == "Dockerfile"
	some name, _ in input.env.args
	name == "VERSION"
}

deny_msg contains msg if {
	not allow
	msg := sprintf("%s is not an image to build from", [input.image.fullRepo])
}

decision := {"allow": allow, "deny_msg": deny_msg}
`

func TestBuildx(t *testing.T) {
	files := []string{"buildx/Dockerfile.rego", buildxPolicy, "buildx/lib/names.rego", "package lib.names\n\nours(repo) if startswith(repo, \"library/\")\n"}
	e := pointed(t, policy.PointBuild, files...)
	if d := decide(t, e, from("library/alpine")); !d.Allowed() {
		t.Error(d.Reasons())
	}
	d := decide(t, e, from("evil/alpine"))
	denied(t, d, "buildx.deny")
	if d.Reasons()[0].Msg != "registry.example/evil/alpine is not an image to build from" {
		t.Error(d.Reasons())
	}
	// A command of the build is no source, and a run is no build unless it is said.
	command := from("evil/alpine")
	command.Build.Step = "run"
	if d := decide(t, e, command); !d.Allowed() {
		t.Error(d.Reasons())
	}
	if d := decide(t, pointed(t, policy.PointRun, files...), good()); !d.Allowed() {
		t.Error(d.Reasons())
	}
	denied(t, decide(t, pointed(t, policy.PointRun, append(files, "grants.json", `{"buildx": ["run"]}`)...), good()), "buildx.deny")
	// Every file is a policy, and each has to allow.
	two := append(files, "buildx/other.rego", "package docker\n\ndecision := {\"allow\": false}\n")
	denied(t, decide(t, pointed(t, policy.PointBuild, two...), from("library/alpine")), "buildx.deny")
	// It cannot let in what the level keeps out.
	unsigned := from("library/alpine")
	unsigned.Evidence = nil
	denied(t, decide(t, e, unsigned), "baseline.evidence")
	// What it says and allows all the same is said.
	loud := pointed(t, policy.PointBuild, "buildx/a.rego", "package docker\n\ndecision := {\"allow\": true, \"deny_msg\": [\"old\"]}\n")
	if d := decide(t, loud, from("library/alpine")); !d.Allowed() || len(d.Warnings()) != 1 || d.Warnings()[0].Msg != "old" {
		t.Error(d.Reasons(), d.Warnings())
	}
}

func TestForeignIsPartOfTheRevision(t *testing.T) {
	a := pointed(t, policy.PointRun, "buildx/a.rego", "package docker\n\ndecision := {\"allow\": true}\n")
	b := pointed(t, policy.PointRun, "buildx/a.rego", "package docker\n\ndecision := {\"allow\": false}\n")
	if a.Revision() == b.Revision() || a.Revision() == pointed(t, policy.PointRun).Revision() {
		t.Error(a.Revision(), b.Revision())
	}
	d := tree(t, "buildx/a.rego", "package docker\n\ndecision := {\"allow\": true}\n")
	if err := os.Chmod(filepath.Join(d, "buildx"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Open(policy.Config{Dir: d}); err == nil {
		t.Error("a directory that anybody can write in")
	}
}
