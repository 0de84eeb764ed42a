package policy_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/ward-project/ward/policy"
)

func good() policy.Input {
	return policy.Input{
		Point: "run", Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Image:    policy.Image{Ref: "registry.example/team/app:1", Host: "registry.example", Repo: "team/app", Checksum: "sha256:aa"},
		Evidence: json.RawMessage(`{"verified":true,"digest":"sha256:aa"}`),
		Run: policy.Run{NoNewPrivs: true, Network: "none", Limits: policy.Limits{Memory: 1 << 29, PIDs: 100, CPUs: 1}, Seccomp: policy.Seccomp{Profile: "default"},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}},
		Host: policy.Host{Memory: 1 << 33, CPUs: 2},
	}
}

func TestSmoke(t *testing.T) {
	t0 := time.Now()
	e, err := policy.Open(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decide(t.Context(), good())
	t.Log(time.Since(t0))
	if err != nil || !d.Allowed() {
		d.WriteText(os.Stdout)
		t.Fatal(err, d.Reasons())
	}
	in := good()
	in.Run.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_CHOWN"}
	in.Run.Network = "host"
	in.Run.Mounts = []policy.Mount{{Type: "bind", Source: "/srv/x", Target: "/x"}}
	in.Run.Limits = policy.Limits{Memory: 1 << 40}
	d, err = e.Decide(t.Context(), in)
	d.WriteText(os.Stdout)
	t.Log(err)
}

func TestRego(t *testing.T) {
	e, err := policy.Open(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Test(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
}
