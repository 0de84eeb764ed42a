package doors

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/doctor"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// proof reads the one record of a proof that a ward has.
func proof(t *testing.T, w *lab.Ward) audit.Proof {
	t.Helper()
	var found []audit.Proof
	for _, e := range w.Records() {
		if e.Type == audit.DoctorProof {
			var p audit.Proof
			if err := json.Unmarshal(e.Data, &p); err != nil {
				t.Fatal(err)
			}
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d proofs on record", len(found))
	}
	return found[0]
}

// A host's doors are shut: every door was shown forgeries, refused each by its
// own rule and on record, and let the good images in. Nothing stays behind.
func TestProof(t *testing.T) {
	w := lab.New(t)
	// Of two policies one is about every image: the host's, not the proof's.
	w.Must("key", "generate", "--out", w.Dir)
	for _, glob := range []string{"**", "registry.example/team/*"} {
		w.Must("trust", "add", "--key", filepath.Join(w.Dir, "cosign.pub"), glob)
	}
	w.Env, w.Patience = append(w.Env, "TMPDIR="+w.Dir), 5*time.Minute
	r := w.Do("doctor", "--prove", "--format", "json")
	var p doctor.Proof
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil || r.Code != 0 || p.Outcome != doctor.Proved {
		t.Fatalf("exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	doors := map[doctor.Door]int{}
	rules := map[string]bool{}
	for _, tr := range p.Trials {
		if !tr.Good {
			doors[tr.Door]++
			rules[tr.GotRule] = true
		}
	}
	for door, least := range map[doctor.Door]int{doctor.DoorGate: 13, doctor.DoorPull: 6, doctor.DoorRun: 21, doctor.DoorCreate: 21,
		doctor.DoorStart: 6, doctor.DoorExec: 6, doctor.DoorOCI: 9} {
		if doors[door] < least {
			t.Errorf("%s was shown %d forgeries, want %d", door, doors[door], least)
		}
	}
	for _, rule := range []string{"trust.unsigned", "trust.wrong-key", "trust.wrong-digest", "trust.no-policy", "trust.key-window", "trust.time", "trust.identity",
		"trust.certificate", "image.digest", "image.bounds", "image.entry", "image.device", "image.root-symlink", "oci.caller"} {
		if !rules[rule] {
			t.Errorf("nothing was refused by %s", rule)
		}
	}
	if got := proof(t, w); got.Outcome != "proved" || got.Trials != len(p.Trials) || got.Admitted+got.Otherwise != 0 || got.Refused < 80 || got.Controls < 13 ||
		!strings.HasPrefix(got.Revision, "sha256:") || !strings.HasPrefix(got.Trust, "sha256:") || got.Build == "" {
		t.Errorf("on record: %+v", got)
	}
	for _, pattern := range []string{filepath.Join(w.Dir, "ward-proof-*"), "/tmp/ward-escaped", filepath.Join(w.Dir, "escaped")} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if len(w.Containers()) > 0 {
		t.Error("the host's ward has containers")
	}
	w.Must("audit", "verify")
	w.Gone(t)
}

// A proof that is interrupted is none, says so on record, and leaves nothing.
func TestProofInterrupted(t *testing.T) {
	w := lab.New(t)
	w.Env = append(w.Env, "TMPDIR="+w.Dir)
	cmd := w.Command("doctor", "--prove")
	done := make(chan struct{})
	go func() { // once the first door has been tried
		defer close(done)
		for range 1200 {
			if begun, _ := filepath.Glob(filepath.Join(w.Dir, "ward-proof-*/w/lib/audit/journal/log/*")); len(begun) > 0 {
				_ = cmd.Process.Signal(os.Interrupt)
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
	}()
	r := w.Finish(cmd)
	<-done
	if got := proof(t, w); r.Code != 3 || got.Outcome != "inconclusive" || got.Error == "" || got.Otherwise+got.Admitted != 0 {
		t.Errorf("exit %d, %+v\n%s%s", r.Code, got, r.Stdout, r.Stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(w.Dir, "ward-proof-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	w.Gone(t)
}

// wrapped is the real program behind a script that does something else first.
func wrapped(t *testing.T, dir, script string) string {
	t.Helper()
	path := filepath.Join(dir, "ward")
	text := "#!/bin/sh\n" + script + "\nexec " + filepath.Join(lab.Bin(), "ward") + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A proof finds doors that are open, ajar, or silent: without this test it
// could be one that cannot fail.
func TestProofFindsOpenDoors(t *testing.T) {
	w := lab.New(t)
	w.Must("info")
	l, err := engine.NewLayout(w.Root)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		script  string
		outcome string
		trials  []string
	}{
		"lets an unsigned image in":      {`case "$*" in "run --rm "*/unsigned:1) exit 0;; esac`, doctor.Failed, []string{"run: unsigned"}},
		"refuses and does not record it": {`case "$*" in "gate "*/stranger:1) exit 1;; esac`, doctor.Failed, []string{"gate: signed by a stranger"}},
		"refuses by another rule":        {`case "$*" in "pull -q "*/flip-layer:1) set -- pull -q 127.0.0.1:1/x;; esac`, doctor.Failed, []string{"pull: a changed layer"}},
		"lets exec in":                   {`case "$1" in exec) exit 0;; esac`, doctor.Failed, []string{"exec: its signature is gone", "exec: its manifest was changed in the store"}},
		"lets nothing in by create":      {`case "$1" in create) exit 125;; esac`, doctor.Inconclusive, []string{"create: key/good"}},
		"lets all in by create":          {`case "$1$2" in create127*) exit 0;; esac`, doctor.Failed, []string{"create: unsigned", "create: a disk of the host's"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(w.Dir, "p-")
			if err != nil {
				t.Fatal(err)
			}
			p, err := doctor.Prove(t.Context(), doctor.ProveConfig{Host: l, Dir: dir, Ward: wrapped(t, dir, tc.script), Root: true})
			if err != nil {
				t.Fatal(err)
			}
			var wrong []string
			for _, tr := range p.Trials {
				if !tr.OK() {
					wrong = append(wrong, string(tr.Door)+": "+tr.Case)
				}
			}
			if p.Outcome != tc.outcome {
				t.Errorf("%s; not so: %v", p.Outcome, wrong)
			}
			for _, want := range tc.trials {
				if !slices.Contains(wrong, want) {
					t.Errorf("%q is not among %v", want, wrong)
				}
			}
		})
	}
}

// A policy that lets nothing in makes a proof that proves nothing, and says so;
// one that does not compile is an error. Both are on record.
func TestProofOfAClosedHost(t *testing.T) {
	for name, tc := range map[string]struct {
		rego string
		code int
	}{
		"denies all":        {"package ward.run\n\ndeny contains {\"code\": \"site.closed\", \"msg\": \"no\"}\n", 3},
		"does not compile":  {"package ward.run\n\ndeny contains\n", 2},
		"denies every pull": {"package ward.pull\n\ndeny contains {\"code\": \"site.closed\", \"msg\": \"no\"}\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := lab.New(t)
			w.Must("info")
			dir := filepath.Join(w.Root, "etc/policy.d")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "site.rego"), []byte(tc.rego), 0o644); err != nil {
				t.Fatal(err)
			}
			r := w.Do("doctor", "--prove")
			if got := proof(t, w); r.Code != tc.code || got.Outcome == "proved" {
				t.Errorf("exit %d, want %d; %+v\n%s%s", r.Code, tc.code, got, r.Stdout, r.Stderr)
			}
			w.Gone(t)
		})
	}
}

// What doctor looks at is found when it is wrong.
func TestDoctor(t *testing.T) {
	w := lab.New(t)
	w.Must("key", "generate", "--out", w.Dir)
	w.Must("trust", "add", "--key", filepath.Join(w.Dir, "cosign.pub"), "**")
	checks := func(want int) map[string]doctor.Check {
		t.Helper()
		r := w.Do("doctor", "--format", "json")
		var cs []doctor.Check
		if err := json.Unmarshal([]byte(r.Stdout), &cs); err != nil || r.Code != want {
			t.Fatalf("exit %d, want %d: %v\n%s%s", r.Code, want, err, r.Stdout, r.Stderr)
		}
		m := map[string]doctor.Check{}
		for _, c := range cs {
			m[c.Name] = c
		}
		return m
	}
	all := checks(0)
	for _, name := range []string{"machine", "user namespaces", "seccomp", "overlay", "id-mapped mounts", "cgroups", "launcher", "audit log", "permissions", "trust", "policy"} {
		if all[name].Status != doctor.Good {
			t.Errorf("%s: %+v", name, all[name])
		}
	}
	before := len(w.Records())
	etc, key := filepath.Join(w.Root, "etc"), filepath.Join(w.Root, "lib/audit/journal/key")
	log, err := filepath.Glob(filepath.Join(w.Root, "lib/audit/journal/log/*.seg"))
	if err != nil || len(log) == 0 {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		check    string
		do, undo func() error
	}{
		{"permissions", func() error { return os.Chmod(key, 0o755) }, func() error { return os.Chmod(key, 0o700) }},
		{"permissions", func() error { return os.Chmod(etc, 0o777) }, func() error { return os.Chmod(etc, 0o755) }},
		{"trust", func() error { return os.Rename(etc+"/trust.d", etc+"/trust.away") }, func() error { return os.Rename(etc+"/trust.away", etc+"/trust.d") }},
		{"trust", func() error { return os.WriteFile(etc+"/trust.d/x.yaml", []byte("a: b"), 0o644) }, func() error { return os.Remove(etc + "/trust.d/x.yaml") }},
		{"policy", func() error {
			return firstError(os.MkdirAll(etc+"/policy.d", 0o755), os.WriteFile(etc+"/policy.d/x.rego", []byte("package ward.exec\n\ndeny contains"), 0o644))
		}, func() error { return os.RemoveAll(etc + "/policy.d") }},
		{"audit log", func() error { return flip(log[0]) }, func() error { return flip(log[0]) }},
		{"audit log", func() error { return os.Rename(etc+"/audit.vkey", etc+"/away") }, func() error { return os.Rename(etc+"/away", etc+"/audit.vkey") }},
	} {
		if err := tc.do(); err != nil {
			t.Fatal(err)
		}
		if c := checks(1)[tc.check]; c.Status != doctor.Bad || c.Found == "" || c.Remedy == "" {
			t.Errorf("%s: %+v", tc.check, c)
		}
		if err := tc.undo(); err != nil {
			t.Fatal(err)
		}
	}
	checks(0)
	if len(w.Records()) != before {
		t.Error("looking left a record")
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// flip changes one bit in the middle of a file, or changes it back.
func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o600)
}
