package policy_test

import (
	"slices"
	"testing"

	"github.com/ward-project/ward/policy"
)

// openAt opens a directory for a point.
func openAt(t testing.TB, point string, files ...string) *policy.Engine {
	t.Helper()
	e, err := policy.Open(policy.Config{Dir: dir(t, files...), Point: point})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// at is the good input, asked at a point, with what the point itself is about.
func at(point string, change ...func(*policy.Input)) policy.Input {
	in := good()
	in.Point = point
	in.Exec.Args = []string{"/bin/true"}
	in.Cp = policy.Cp{Direction: "out", Path: "/x"}
	in.Pull.For = "pull"
	in.Build.Step = "run"
	in.K8s.RunAsNonRoot = true
	in.Actor.Exe = "/usr/bin/shim"
	for _, f := range change {
		f(&in)
	}
	return in
}

const shim = `{"oci": {"callers": [{"exe": "/usr/bin/shim", "uid": 0}]}}`

var points = []string{"run", "restart", "exec", "cp", "attach", "update", "oci", "build", "pull", "ci", "k8s"}

// Every point answers, and only to what is asked there.
func TestEveryPointAnswers(t *testing.T) {
	for _, point := range points {
		e := openAt(t, point, "grants.json", shim)
		if d := decide(t, e, at(point)); !d.Allowed() {
			t.Errorf("%s: %v", point, d.Reasons())
		}
		for _, other := range points {
			if _, err := e.Decide(t.Context(), at(other)); (err == nil) != (other == point) {
				t.Errorf("opened for %s, asked about %s: %v", point, other, err)
			}
		}
	}
}

// A container does not get in at one door that another keeps it out of: what
// denies a run denies its restart, the gate in a pipeline and admission, with
// the same codes, whoever wrote the rule.
func TestOtherDoorsAnswerAsRun(t *testing.T) {
	for name, files := range map[string][]string{
		"shipped":  {},
		"grants":   {"grants.json", `{"level": "baseline", "networks": ["host"]}`},
		"rules":    {"a.rego", "package ward.run\n\ndeny contains {\"code\": \"site.name\", \"msg\": \"no\"} if input.run.name == \"bad\"\n"},
		"replaced": {"decision.rego", "package ward.run\n\ndecision := {\"allow\": input.run.name != \"bad\"}\n"},
	} {
		for _, change := range []func(*policy.Input){
			func(*policy.Input) {}, network("host"), caps("CAP_CHOWN"), caps("CAP_SYS_ADMIN"), mounts(bind("/srv", true)),
			func(in *policy.Input) { in.Run.Name = "bad" }, func(in *policy.Input) { in.Evidence = nil },
		} {
			want := decide(t, openAt(t, "run", files...), at("run", change))
			for _, point := range []string{"restart", "ci", "k8s"} {
				got := decide(t, openAt(t, point, files...), at(point, change))
				if got.Allowed() != want.Allowed() || !slices.Equal(codes(got.Reasons()), codes(want.Reasons())) {
					t.Errorf("%s: %s says %v %v, run %v %v", name, point, got.Allowed(), codes(got.Reasons()), want.Allowed(), codes(want.Reasons()))
				}
			}
		}
	}
}

// What a point's own package says comes on top, and only there.
func TestRulesOfOnePoint(t *testing.T) {
	for _, point := range points {
		files := []string{"a.rego", "package ward." + point + `

deny contains {"code": "site.no", "msg": "no"} if input.image.tag == "bad"

warn contains {"code": "site.hm", "msg": "hm"}

obligations contains {"max_pids": 7}
`, "grants.json", shim}
		for _, asked := range points {
			own := asked == point || point == "run" && slices.Contains([]string{"restart", "ci", "k8s"}, asked)
			e := openAt(t, asked, files...)
			d := decide(t, e, at(asked))
			if !d.Allowed() || len(d.Warnings()) == 1 != own || (d.Obligations().MaxPIDs == 7) != own {
				t.Errorf("rules of %s asked at %s: %v %v %+v", point, asked, d.Reasons(), d.Warnings(), d.Obligations())
			}
			d = decide(t, e, at(asked, func(in *policy.Input) { in.Image.Tag = "bad" }))
			if d.Allowed() == own {
				t.Errorf("rules of %s asked at %s: %v", point, asked, d.Reasons())
			}
		}
	}
}

// A file of a point's name replaces that point's decision, and no other.
func TestDecisionOfOnePoint(t *testing.T) {
	for _, point := range []string{"restart", "ci", "k8s", "pull", "build"} {
		files := []string{point + ".rego", "package ward." + point + "\n\ndecision := {\"allow\": input.image.tag != \"bad\"}\n"}
		e := openAt(t, point, files...)
		if d := decide(t, e, at(point, network("host"))); !d.Allowed() || d.Level() != "custom" {
			t.Errorf("%s: %v", point, d.Reasons())
		}
		denied(t, decide(t, e, at(point, func(in *policy.Input) { in.Image.Tag = "bad" })), "policy.denied")
		denied(t, decide(t, openAt(t, "run", files...), at("run", network("host"))), "baseline.host-namespaces")
	}
}

// A build takes in images that are verified; what it runs is judged as a run.
func TestBuildSteps(t *testing.T) {
	e := openAt(t, "build")
	from := func(in *policy.Input) { in.Build.Step, in.Run = "from", policy.Run{} }
	if d := decide(t, e, at("build", from)); !d.Allowed() {
		t.Error(d.Reasons())
	}
	denied(t, decide(t, e, at("build", from, func(in *policy.Input) { in.Evidence = nil })), "baseline.evidence")
	denied(t, decide(t, e, at("build", network("host"))), "baseline.host-namespaces")
	denied(t, decide(t, e, at("build", func(in *policy.Input) { in.Build.Step = "copy" })), "build.step")
	denied(t, decide(t, e, at("build", from, func(in *policy.Input) { in.Build.Step = "" })), "baseline.host-namespaces", "baseline.limits-cpus", "baseline.limits-memory", "baseline.limits-pids",
		"baseline.proc-mount-masks", "baseline.proc-mount-masks", "baseline.proc-mount-masks", "baseline.proc-mount-masks",
		"baseline.seccomp-profile", "build.step", "restricted.privilege-escalation")
}

func TestPullKnowsOnlyNames(t *testing.T) {
	names := policy.Input{Point: "pull", Now: good().Now, Image: policy.Image{Ref: "registry.example/a:1", Host: "registry.example", Repo: "a", Tag: "1"}, Pull: policy.Pull{For: "run"}}
	if d := decide(t, openAt(t, "pull"), names); !d.Allowed() {
		t.Error(d.Reasons())
	}
	e := openAt(t, "pull", "a.rego", "package ward.pull\n\ndeny contains {\"code\": \"site.registry\", \"msg\": \"no\"} if input.image.fullRepo == \"registry.example/a\"\n")
	denied(t, decide(t, e, names), "site.registry")
	names.Image.Host = ""
	denied(t, decide(t, openAt(t, "pull"), names), "pull.input")
}
