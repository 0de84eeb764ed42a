package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// decidedLog is a log with a decision of every point and both answers, as the
// gate records them, one of them on an input too large for a record.
func decidedLog(t *testing.T, dir string) Layout {
	t.Helper()
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(l.Lib, 0o755), audit.Create(audit.Config{Dir: l.Audit(), Host: "h"})); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(l.Audit())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, in := range replayInputs() {
		e, err := policy.Open(policy.Config{Dir: dir, Point: in.Point})
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Decide(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		why, err := Explained(l, d)
		if err != nil {
			t.Fatal(err)
		}
		rec := audit.Record{Type: audit.RunDenied, Run: strings.Repeat("ab", 32), Actor: audit.Caller(),
			Data: audit.Denied{Point: in.Point, Name: in.Run.Name, Args: in.Run.Args, Decision: why, Input: d.InputDigest()}}
		if d.Allowed() {
			rec.Type, rec.Data = audit.ContainerCreate, audit.ContainerEvent{Container: "c", Name: in.Run.Name, Decision: why, Input: d.InputDigest()}
		}
		if err := log.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func replayInputs() []policy.Input {
	const digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	plain := func(point string) policy.Input {
		return policy.Input{
			Point: point, Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Actor:    policy.Actor{Exe: "/usr/bin/ward"},
			Image:    policy.Image{Ref: "registry.example/a/b:1", Host: "registry.example", Repo: "a/b", Tag: "1", Checksum: digest},
			Evidence: json.RawMessage(`{"verified":true,"digest":"` + digest + `","signers":[{"kind":"key","key_id":"k"}]}`),
			Run: policy.Run{
				Name: point, Args: []string{"/bin/true", "<&>\u2028"}, NoNewPrivs: true, Network: "none",
				Limits:  policy.Limits{Memory: 1 << 20, PIDs: 5, CPUs: 0.5},
				Seccomp: policy.Seccomp{Profile: "default", Narrows: true}, MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			},
			Exec: policy.Exec{Args: []string{"sh"}}, Cp: policy.Cp{Direction: "in", Path: "/x"},
			Host: policy.Host{Memory: 1 << 30, CPUs: 2},
		}
	}
	var out []policy.Input
	for _, point := range []string{policy.PointRun, policy.PointExec, policy.PointCp, policy.PointAttach, policy.PointUpdate, policy.PointOCI} {
		caps := plain(point)
		caps.Run.Capabilities = []string{"CAP_CHOWN"}
		out = append(out, plain(point), caps)
	}
	large := plain(policy.PointRun)
	for i := range 4000 {
		large.Run.Args = append(large.Run.Args, fmt.Sprintf("argument %d", i))
	}
	large.Run.Name = "large"
	many := plain(policy.PointRun)
	for i := range 64 {
		many.Run.Mounts = append(many.Run.Mounts, policy.Mount{Type: "bind", Source: fmt.Sprintf("/srv/%s/%d", strings.Repeat("d", 200), i), Target: "/x"})
	}
	many.Run.Name = "many reasons"
	large.Run.Capabilities = []string{"CAP_CHOWN"}
	return append(out, large, many)
}

func replayAll(t *testing.T, l Layout, cfg policy.Config) ([]Replayed, ReplayTotals, error) {
	t.Helper()
	r, err := policy.NewReplayer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var rows []Replayed
	totals, err := Replay(t.Context(), l, time.Time{}, time.Unix(1<<40, 0), r, func(r Replayed) error {
		rows = append(rows, r)
		return nil
	})
	return rows, totals, err
}

func TestReplayReproducesEveryDecision(t *testing.T) {
	dir := t.TempDir()
	grants := `{"limits": {"pids": 9}, "oci": {"callers": [{"exe": "/usr/bin/ward", "uid": 0}]}}`
	rules := "package ward.run\n\nwarn contains \"small\" if input.run.limits.memory < 2000000\nobligations contains {\"max_pids\": 3}\n"
	write(t, filepath.Join(dir, "grants.json"), grants)
	write(t, filepath.Join(dir, "site.rego"), rules)
	l := decidedLog(t, dir)
	n := int64(len(replayInputs()))
	_, totals, err := replayAll(t, l, policy.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if totals.Decisions != n || totals.SamePolicy != n || totals.Exact != n || totals.Changes[policy.Unchanged] != n {
		t.Errorf("%+v, want all %d exact", totals, n)
	}
	if kept, _ := filepath.Glob(filepath.Join(l.Audit(), "kept", "*")); len(kept) != 3 { // an input, an answer and its input
		t.Errorf("%d files are kept, want 3", len(kept))
	}

	// Another policy: what it grants is allowed, what it denies is not.
	other := t.TempDir()
	write(t, filepath.Join(other, "grants.json"), `{"capabilities": ["CHOWN"], "oci": {"callers": [{"exe": "/usr/bin/other", "uid": 0}]}}`)
	rows, totals, err := replayAll(t, l, policy.Config{Dir: other})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		want := policy.Unchanged
		switch {
		case r.Name == policy.PointOCI: // it judges who asks, not capabilities
			want = policy.NewlyDenied
		case r.Name == "many reasons": // still denied, without the warning
			want = policy.OtherReasons
		case !r.Old.Allow:
			want = policy.NewlyAllowed
		case r.Name == policy.PointRun: // the warning and the obligation are gone
			want = policy.OtherReasons
		}
		if r.Change != want {
			t.Errorf("%s %q: %s (%s), want %s; was %v, is %v", r.Point, r.Name, r.Change, r.Why, want, r.Old.Codes(), r.New.Codes())
		}
	}
	if totals.SamePolicy != 0 {
		t.Errorf("%d decisions are said to be this policy's", totals.SamePolicy)
	}
}

// What the log does not bear out, or is of another time, is said to be so and
// never decided about.
func TestReplayOfWhatIsNotThere(t *testing.T) {
	l := decidedLog(t, "")
	kept, _ := filepath.Glob(filepath.Join(l.Audit(), "kept", "*"))
	for _, f := range kept {
		if err := errors.Join(os.Chmod(f, 0o600), os.WriteFile(f, []byte(`{"version":1,"point":"run"}`), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	_, totals, err := replayAll(t, l, policy.Config{})
	if err != nil || totals.Changes[NotReplayable] != 2 {
		t.Errorf("%+v, %v: want two that are not replayable", totals, err)
	}
	for _, f := range kept {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	rows, totals, err := replayAll(t, l, policy.Config{})
	if err != nil || totals.Changes[NotReplayable] != 2 || totals.Exact != totals.Decisions-2 {
		t.Errorf("%+v, %v: want two that are not replayable, the rest exact", totals, err)
	}
	for _, r := range rows {
		if (r.Change == NotReplayable) != (r.Name == "large" || r.Name == "many reasons") || r.Change == NotReplayable && !strings.Contains(r.Why, "not kept") {
			t.Errorf("%q: %s (%s)", r.Name, r.Change, r.Why)
		}
	}
	for what, r := range map[string]Recorded{
		"another input":   {Input: "sha256:" + strings.Repeat("0", 64), decided: Explanation{Input: json.RawMessage(`{}`)}},
		"a way out":       {Input: "sha256:x", layout: l, decided: Explanation{InputKept: &KeptBytes{Digest: "sha256:x"}}},
		"another digest":  {Input: "sha256:" + strings.Repeat("0", 64), layout: l, decided: Explanation{InputKept: &KeptBytes{Digest: "sha256:" + strings.Repeat("1", 64)}}},
		"nothing at all":  {},
		"another answer":  {Input: "sha256:" + strings.Repeat("0", 64), decided: Explanation{Answer: json.RawMessage(`{"allow":true,"input_digest":"sha256:11"}`)}},
		"no answer, text": {decided: Explanation{Answer: json.RawMessage(`"x"`)}},
	} {
		_, err1 := r.InputBytes()
		if _, err2 := r.Answer(); err1 == nil && err2 == nil {
			t.Errorf("%s is believed", what)
		}
	}
}

// A policy that never comes to an end stops the replay instead.
func TestReplayUnderHostilePolicy(t *testing.T) {
	l := decidedLog(t, "")
	log, err := audit.Open(l.Audit())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x.rego"), "package ward.run\n\ndeny contains \"x\" if {\n\tconcat(sprintf(\"%2000s\", [\"x\"]), [sprintf(\"%d\", [i]) | some i in numbers.range(1, 10000)]) == \"\"\n}\n")
	_, totals, err := replayAll(t, l, policy.Config{Dir: dir})
	if err != nil || totals.Changes[Undecided] != 4 {
		t.Errorf("%+v, %v: want the four of point run undecided", totals, err)
	}
	in := replayInputs()[0]
	e, err := policy.Open(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	why, err := Explained(l, d)
	if err != nil {
		t.Fatal(err)
	}
	for range maxUndecided {
		if err := log.Append(t.Context(), audit.Record{Type: audit.ContainerCreate, Actor: audit.Caller(), Data: audit.ContainerEvent{Decision: why, Input: d.InputDigest()}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := replayAll(t, l, policy.Config{Dir: dir}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v: want it to be given up", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
