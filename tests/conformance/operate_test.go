package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
)

// memoryLimit is the limit that is in force for a container, in bytes.
func (s *site) memoryLimit(id string) int64 {
	s.t.Helper()
	var e struct {
		Data struct {
			Memory struct {
				Usage struct {
					Limit int64 `json:"limit"`
				} `json:"usage"`
			} `json:"memory"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(s.sh("$W events --stats %s", id)), &e); err != nil {
		s.t.Fatal(err)
	}
	return e.Data.Memory.Usage.Limit
}

// last is the data of the newest record of a type.
func (s *site) last(typ audit.Type) (d struct {
	Name, Point, Op, Rule, Container, Input string
	Limits                                  map[string][2]string
	Decision                                json.RawMessage
}) {
	s.t.Helper()
	for _, e := range s.Records() {
		if e.Type == typ {
			if err := json.Unmarshal(e.Data, &d); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return d
}

// TestChangesAreGated: who is not trusted, any more, changes nothing about a
// container that runs, and each attempt is on record; root ends it all the same.
func TestChangesAreGated(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	b := s.bundle("b", nil, "/bin/sleep", "1000")
	s.sh("$W create -b %s c1 </dev/null >out 2>&1", b)
	s.sh("$W run -d -b %s c2 </dev/null >out 2>&1 && $W update --memory 64m c2", b)
	s.trust()
	for _, verb := range []string{"start c1", "pause c2", "resume c2", "update --memory 128m c2"} {
		s.expect(1, []string{"oci.caller", "bash"}, "$W %s", verb)
		op, id, _ := strings.Cut(verb, " ")
		if d := s.last(audit.OCIDenied); d.Op != op || !strings.HasSuffix(id, d.Name) || d.Rule != "oci.caller" || d.Point != "oci" || d.Container == "" || d.Input == "" {
			t.Errorf("%s is on record as %+v", verb, d)
		}
	}
	s.expect(0, []string{`"status": "created"`}, "$W state c1")
	s.expect(0, []string{`"status": "running"`}, "$W state c2")
	if n := s.memoryLimit("c2"); n != 64<<20 {
		t.Errorf("the limit is %d", n)
	}
	s.recorded(map[audit.Type]int{audit.OCIDenied: 4, audit.RunStart: 1, audit.ContainerPause: 0, audit.ContainerUnpause: 0, audit.OCIUpdate: 1})
	// Also with a policy that cannot be read.
	if err := os.WriteFile(filepath.Join(s.Root, "etc/policy.d/broken.rego"), []byte("package"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.expect(1, []string{"broken.rego"}, "$W pause c2")
	// And for a caller whose program was replaced under it, by an upgrade.
	s.sh("cp /bin/bash old && ./old -c 'rm old; $W kill c2 KILL; exit $?'")
	s.sh("$W delete --force c2 && $W delete c1")
	s.recorded(map[audit.Type]int{audit.OCIDenied: 5, audit.ContainerSignal: 1, audit.ContainerRemove: 2})
	s.settled()
	s.Gone(t)
}

// TestUpdateIsJudged: policy decides about the container as it would be with
// its new limits, what does not change included.
func TestUpdateIsJudged(t *testing.T) {
	needs(t)
	s := newSite(t, bash(t))
	const rules = `package ward.oci

deny contains {"code": "local.limits", "msg": sprintf("%v", [input.run.limits]), "fix": ""} if not small

small if {
	input.run.limits.memory > 0
	input.run.limits.memory * input.run.limits.pids <= 6710886400
	input.run.hostname == "inner" # what the container is like is there at each point
	count(input.run.mounts) > 3
}
`
	if err := os.WriteFile(filepath.Join(s.Root, "etc/policy.d/local.rego"), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	b := s.bundle("b", func(spec map[string]any) {
		spec["hostname"] = "inner"
		spec["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 64 << 20}, "pids": map[string]any{"limit": 100}}
	}, "/bin/sleep", "1000")
	s.sh("$W run -d -b %s c1 </dev/null >out 2>&1", b)
	s.expect(1, []string{"local.limits"}, "$W update --memory 128m c1")
	s.expect(1, []string{"local.limits"}, "$W update --memory -1 c1")
	s.expect(1, []string{"local.limits"}, "$W update --pids-limit 101 c1")
	s.sh("$W update --pids-limit 50 c1")
	if d := s.last(audit.OCIUpdate); len(d.Limits) != 1 || d.Limits["pids.limit"] != [2]string{"100", "50"} || d.Input == "" || len(d.Decision) == 0 {
		t.Errorf("on record is %+v", d)
	}
	s.sh("$W update --memory 128m c1")
	if n := s.memoryLimit("c1"); n != 128<<20 {
		t.Errorf("the limit is %d", n)
	}
	// As it is by now: 128m and 50, not 100.
	s.expect(1, []string{"local.limits"}, "$W update --pids-limit 51 c1")
	s.expect(0, nil, "$W exec c1 /bin/true")
	s.expect(0, nil, "$W pause c1 && $W resume c1")
	// What the kernel does not take is no new state.
	s.expect(1, nil, "$W update --cpuset-cpus 4000 c1")
	if d := s.last(audit.OCIDenied); d.Op != "update" || d.Rule != "oci.runtime" {
		t.Errorf("on record is %+v", d)
	}
	s.expect(1, []string{"local.limits"}, "$W update --memory 129m c1")
	s.expect(1, []string{"does not exist"}, "$W update --memory 1m c9")
	// Several at once: each judged by what the others leave.
	s.sh("$W update --pids-limit 10 c1; for i in 1 2 3 4; do $W update --memory 512m c1 & $W update --pids-limit 50 c1 & done; wait")
	out := s.sh("$W events --stats c1")
	if n := s.memoryLimit("c1"); n == 512<<20 && strings.Contains(out, `"limit":50`) {
		t.Errorf("two updates that exclude each other were both made: %s", out)
	}
	s.sh("$W delete --force c1")
	s.settled()
	s.Gone(t)
}
