package policy

import (
	"strings"
	"testing"
)

// The cases tell the shipped levels apart, reach every point, and are inputs
// as ward makes them: nothing is missing that a rule looks at.
func TestCorpus(t *testing.T) {
	cases, err := Corpus()
	if err != nil {
		t.Fatal(err)
	}
	denied := map[string]map[string]bool{}
	points := map[string]bool{}
	for _, level := range []string{Restricted, Baseline, Privileged} {
		denied[level] = map[string]bool{}
		r, err := NewReplayer(Config{Dir: policyDir(t, map[string]string{"grants.json": `{"level": "` + level + `"}`})})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			d, err := r.Decide(t.Context(), c.Input)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			if _, twice := denied[level][c.Name]; twice {
				t.Errorf("%q is there twice", c.Name)
			}
			denied[level][c.Name] = !d.Allowed()
			for _, r := range d.Reasons() {
				if strings.HasSuffix(r.Code, ".input") || strings.HasPrefix(r.Code, "policy.") {
					t.Errorf("%s: %s: %s", c.Name, r.Code, r.Msg)
				}
			}
		}
	}
	for _, c := range cases {
		for point := range decisionFiles {
			if strings.Contains(string(c.Input), `"point":"`+point+`"`) {
				points[point] = true
			}
		}
	}
	for point := range decisionFiles {
		if !points[point] {
			t.Errorf("no case is of point %s", point)
		}
	}
	for name, want := range map[string][3]bool{
		"plain": {}, "network host": {true, true, false}, "CHOWN": {true, false, false}, "SYS_ADMIN": {true, true, false},
		"gain privileges": {true, false, false}, "not verified": {true, true, true}, "exec": {}, "pull": {}, "k8s": {}, "ci with host network": {true, true, false},
	} {
		got := [3]bool{denied[Restricted][name], denied[Baseline][name], denied[Privileged][name]}
		if got != want {
			t.Errorf("%s: denied %v at restricted, baseline, privileged; want %v", name, got, want)
		}
	}
}
