package oci

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/policy"
)

func resources(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// TestLimits: what a policy is told is what is in force, and that nothing is
// limited is told in one way.
func TestLimits(t *testing.T) {
	same := func(a, b policy.Limits) bool {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		return string(x) == string(y)
	}
	for _, c := range []struct {
		text string
		want policy.Limits
	}{
		{`{}`, policy.Limits{}},
		{`{"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1, "period": 100000}}`, policy.Limits{}},
		{`{"memory": {"limit": 100, "swap": 150, "reservation": 50}, "pids": {"limit": 7}}`, policy.Limits{Memory: 100, Swap: 50, Reservation: 50, PIDs: 7}},
		{`{"memory": {"limit": 100, "swap": -1}}`, policy.Limits{Memory: 100, Swap: -1}},
		{`{"cpu": {"quota": 50000, "shares": 12, "cpus": "0-1", "mems": "0"}}`, policy.Limits{CPUs: .5, CPUShares: 12, CPUSet: "0-1", MemSet: "0"}},
		{`{"cpu": {"quota": 50000, "period": 25000}}`, policy.Limits{CPUs: 2}},
		{`{"memory": {"limit": 100}, "unified": {"memory.max": "max", "pids.max": "9", "cpu.max": "50000 25000"}}`, policy.Limits{PIDs: 9, CPUs: 2}},
		{`{"cpu": {"quota": 1000}, "unified": {"memory.swap.max": "max", "memory.max": "4096", "cpu.max": "max 1000", "cpuset.cpus": "3"}}`,
			policy.Limits{Memory: 4096, Swap: -1, CPUSet: "3"}},
		{`{"unified": {"cpu.max": "", "memory.max": "1G"}}`, policy.Limits{}},
		{`{"blockIO": {"weight": 20, "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}], "weightDevice": [{"major": 8, "minor": 1, "weight": 3}]}}`,
			policy.Limits{IOWeight: 20, IO: []policy.IOLimit{{Device: "/dev/block/8:1", Weight: 3, ReadBPS: 5}}}},
	} {
		if got := limits(resources(t, c.text)); !same(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.text, got, c.want)
		}
	}
}

// TestMerge: an update is judged with what it leaves as it was, and what
// changes is known by name.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		old, want string
		changed   map[string][2]string
	}{
		{`{}`, `{}`, map[string][2]string{}},
		{`{"memory": {"limit": 100}, "pids": {"limit": 3}}`, `{"pids": {"limit": 4}}`, map[string][2]string{"pids.limit": {"3", "4"}}},
		{`{"memory": {"limit": 100}}`, `{"memory": {"limit": 100}}`, map[string][2]string{}},
		{`{"memory": {"limit": 100, "swap": 200}}`, `{"memory": {"limit": -1}}`, map[string][2]string{"memory.limit": {"100", "-1"}, "memory.swap": {"200", "-1"}}},
		{`{"cpu": {"shares": 9, "cpus": "0"}}`, `{"cpu": {"idle": 1}}`, map[string][2]string{"cpu.shares": {"9", ""}, "cpu.idle": {"", "1"}}},
		{`{"cpu": {"cpus": "0"}}`, `{"cpu": {"cpus": "1"}, "unified": {"a.b": "c"}}`, map[string][2]string{"cpu.cpus": {"0", "1"}, "unified.a.b": {"", "c"}}},
		{`{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]}}`, `{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 6}]}}`,
			map[string][2]string{"blockIO.throttleReadBpsDevice": {`[{"major":8,"minor":0,"rate":5}]`, `[{"major":8,"minor":0,"rate":6}]`}}},
		// No limits of an update: neither judged nor said to be changed.
		{`{"devices": [{"allow": false}]}`, `{"devices": [{"allow": true}]}`, map[string][2]string{}},
	} {
		old := resources(t, c.old)
		if got := changed(old, merge(old, resources(t, c.want))); !maps.Equal(got, c.changed) {
			t.Errorf("%s with %s: %v, want %v", c.old, c.want, got, c.changed)
		}
	}
}
