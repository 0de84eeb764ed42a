package policy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestAbsentFactsDeny takes every member out of an allowed input, one at a
// time. The shipped policies must not allow what they cannot see: either the
// member is one they do not look at, or its absence denies or leaves the
// decision undefined. (Decide never makes such an input; this is about rules
// that are fail-closed by themselves, in both forms of the grants.)
func TestAbsentFactsDeny(t *testing.T) {
	// What no shipped rule needs.
	free := []string{
		"version", "point", "now", "actor", "actor.*", "image.host", "image.repo", "image.tag", "image.index", "image.id",
		"image.platform", "image.os", "image.arch", "image.labels", "image.env", "image.user", "image.created_time",
		"run.name", "run.hostname", "run.args", "run.env_names", "run.cwd", "run.user", "run.user.*", "run.read_only", "run.init",
		"run.labels", "run.readonly_paths", "run.seccomp.digest", "run.requested", "run.requested.*",
		"host.kernel", "host.cgroup", "host.os", "host.arch", "host.rootless",
		"oci", "oci.*", "exec", "exec.*", "exec.user.*", "cp", "cp.*", "attach", "attach.*", "restart", "restart.*", "pull", "pull.*", "build", "build.*", "ci", "ci.*", "k8s", "k8s.*", "document", "unknowns", "unmapped",
		"image.fullRepo", "image.variant", "image.isCanonical", "image.createdTime", "image.volumes", "image.workingDir", "image.hasProvenance", "image.provenance", "image.provenance.*", "image.provenance.configSource.*", "image.signatures",
		// What only tightens, or weighs within what is limited.
		"run.limits.reservation", "run.limits.shm", "run.limits.io_weight", "run.limits.cpu_set", "run.limits.mem_set", "run.limits.io",
		"run.limits.oom_score_adj", "run.limits.ulimits",
	}
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, "grants.json"), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []Config{{}, {Level: Baseline}, {Dir: empty}} {
		e, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if !allows(t, e, example()) {
			t.Fatal("the example is not allowed")
		}
		for _, path := range paths("", example()) {
			m := example()
			remove(m, strings.Split(path, "."))
			if slices.Contains(free, path) || slices.Contains(free, path[:strings.LastIndex(path, ".")+1]+"*") {
				continue
			}
			if allows(t, e, m) {
				t.Errorf("%+v: allowed without %s", cfg, path)
			}
		}
	}
}

func allows(t *testing.T, e *Engine, in map[string]any) bool {
	t.Helper()
	v, err := ast.InterfaceToValue(in)
	if err != nil {
		t.Fatal(err)
	}
	found, err := e.evaluate(t.Context(), v)
	if err != nil {
		return false
	}
	var d Decision
	d.fill(e, found)
	return d.Allowed()
}

func paths(prefix string, m map[string]any) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, prefix+k)
		if sub, ok := m[k].(map[string]any); ok {
			out = append(out, paths(prefix+k+".", sub)...)
		}
	}
	return out
}

func remove(m map[string]any, path []string) {
	for _, k := range path[:len(path)-1] {
		m = m[k].(map[string]any)
	}
	delete(m, path[len(path)-1])
}

// The example is what Decide makes of an Input, no more and no less.
func TestExampleIsAnInput(t *testing.T) {
	var in Input
	dec := json.NewDecoder(strings.NewReader(exampleInput))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		t.Fatal(err)
	}
	b, _, err := in.encode()
	if err != nil {
		t.Fatal(err)
	}
	var a map[string]any
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	if got, want := paths("", a), paths("", example()); !slices.Equal(got, want) {
		t.Fatalf("members differ:\n%v\n%v", got, want)
	}
}
