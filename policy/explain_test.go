package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// changed is the example input with members set: "run.network" to a JSON text.
func changed(t *testing.T, members map[string]string) []byte {
	t.Helper()
	in := example()
	for path, text := range members {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		put(in, v, splitPath(path)...)
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func policyDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	bindData = `{"type":"bind","name":"","source":"/srv/data","checksum":"","verified":false,"target":"/data","read_only":false,"exec":false}`
	bindLog  = `{"type":"bind","name":"","source":"/srv/log","checksum":"","verified":false,"target":"/log","read_only":false,"exec":false}`
)

// The change that is named is allowed, none of its parts can be left out, and
// nothing of what is innocent is taken away.
func TestExplainDenied(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		input  map[string]string
		do     []string
		grants string
		remain []string
	}{
		"a bind among what is harmless": {
			input: map[string]string{"run.mounts": `[` + bindData + `]`, "run.user.uid": `0`, "run.capabilities": `["CAP_NET_BIND_SERVICE"]`},
			do:    []string{"run without -v /srv/data:/data"}, grants: `{"images":{"registry.example/team/app":{"binds":["/srv/data"]}}}`,
		},
		"read-only is granted": {
			files: map[string]string{"grants.json": `{"binds": ["/srv/data:ro"]}`},
			input: map[string]string{"run.mounts": `[` + bindData + `]`},
			do:    []string{"mount it read-only: -v /srv/data:/data:ro"}, grants: `{"images":{"registry.example/team/app":{"binds":["/srv/data"]}}}`,
		},
		"three at once": {
			input:  map[string]string{"run.mounts": `[` + bindData + `,` + bindLog + `]`, "run.capabilities": `["CAP_CHOWN","CAP_NET_BIND_SERVICE"]`, "run.network": `"host"`},
			do:     []string{"run without -v /srv/data:/data", "run without -v /srv/log:/log", "run without --cap-add CHOWN", "run with --network none"},
			grants: `{"images":{"registry.example/team/app":{"binds":["/srv/data","/srv/log"],"capabilities":["CHOWN"],"networks":["host"]}}}`,
		},
		"the largest limit": {
			files: map[string]string{"grants.json": `{"limits": {"memory": "1g", "cpus": 2.5}}`},
			input: map[string]string{"run.limits.memory": `1073741825`, "run.limits.cpus": `3`},
			do:    []string{"give --memory at most 1073741824", "give --cpus at most 2.5"}, grants: `{"limits":{"cpus":3,"memory":1073741825}}`,
		},
		"no limit at all": {
			input: map[string]string{"run.limits.pids": `0`},
			do:    []string{"give --pids-limit at most 32768"},
		},
		"a rule of one's own": {
			files: map[string]string{"site.rego": "package ward.run\n\ndeny contains {\"code\": \"site.root\", \"msg\": \"root\"} if input.run.user.uid == 0\n"},
			input: map[string]string{"run.user.uid": `0`},
			do:    []string{"run with --user 1000:1000, or another that is not 0"},
		},
		"one that answers two rules": {
			files: map[string]string{"site.rego": "package ward.run\n\ndeny contains {\"code\": \"site.both\", \"msg\": \"b\"} if {\n\tcount(input.run.capabilities) > 0\n\tinput.run.network == \"host\"\n}\n", "grants.json": `{"networks": ["host"]}`},
			input: map[string]string{"run.capabilities": `["CAP_CHOWN"]`, "run.network": `"host"`},
			do:    []string{"run without --cap-add CHOWN"},
		},
		"nothing helps": {
			files:  map[string]string{"site.rego": "package ward.run\n\ndeny contains {\"code\": \"site.tag\", \"msg\": \"t\"} if input.image.tag == \"1.2\"\n"},
			input:  map[string]string{"run.network": `"host"`},
			remain: []string{"site.tag"},
		},
		"what cannot be granted": {
			input: map[string]string{"run.mounts": `[` + strings.ReplaceAll(bindData, "/srv/data", "/") + `]`},
			do:    []string{"run without -v /:/data"},
		},
		"nobody signed": {
			input:  map[string]string{"evidence": `{"verified":true,"digest":"sha256:` + strings.Repeat("1", 64) + `","signers":[{"kind":"static"}]}`},
			do:     []string{"sign the image and trust the key: ward sign --key KEY registry.example/team/app:1.2; ward trust add --key PUB GLOB"},
			grants: `{"images":{"registry.example/team/app":{"evidence":["static"]}}}`,
		},
		"another process": {
			input: map[string]string{"point": `"exec"`, "exec.capabilities": `["CAP_CHOWN"]`},
			do:    []string{"without CAP_CHOWN for this process"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := policyDir(t, c.files)
			in := changed(t, c.input)
			x, err := Explain(t.Context(), Config{Dir: dir}, in)
			if err != nil {
				t.Fatal(err)
			}
			var do []string
			for _, r := range x.Request {
				do = append(do, r.Do)
				if len(r.Rules) == 0 {
					t.Errorf("%q answers no rule", r.Do)
				}
			}
			if !reflect.DeepEqual(do, c.do) || !reflect.DeepEqual(x.Remaining, c.remain) || !x.Complete {
				t.Errorf("%q, remaining %q, want %q, %q", do, x.Remaining, c.do, c.remain)
			}
			if string(x.Grants) != c.grants {
				t.Errorf("grants %s, want %s", x.Grants, c.grants)
			}
			for _, r := range x.Rules {
				if r.Where == "" || len(r.Looked) == 0 {
					t.Errorf("where is %s? %+v", r.Code, r)
				}
			}
			if c.grants == "" {
				return
			}
			// The grants that are named do allow it, in a directory of their own.
			with := map[string]string{}
			for n, text := range c.files {
				with[n] = text
			}
			with["grants.json"] = mergedText(t, c.files["grants.json"], c.grants)
			r, err := NewReplayer(Config{Dir: policyDir(t, with)})
			if err != nil {
				t.Fatal(err)
			}
			if d, err := r.Decide(t.Context(), in); err != nil || !d.Allowed() {
				t.Errorf("granted, it is denied: %v %v", d.Reasons(), err)
			}
		})
	}
}

func mergedText(t *testing.T, a, b string) string {
	t.Helper()
	if a == "" {
		return b
	}
	x, y := map[string]any{}, map[string]any{}
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	merge(x, y)
	for k, v := range y {
		if l, ok := v.(map[string]any); ok && k == "limits" {
			for n, e := range l {
				x["limits"].(map[string]any)[n] = e
			}
		}
	}
	out, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestExplainAllowed(t *testing.T) {
	dir := policyDir(t, map[string]string{"grants.json": `{"level": "baseline", "capabilities": ["SYS_PTRACE", "NET_ADMIN"], "limits": {"pids": 40000},
		"images": {"registry.example/team/*": {"binds": ["/srv/data", "/srv/other"]}, "other/*": {"binds": ["/srv/data"]}}}`})
	for name, c := range map[string]struct {
		input map[string]string
		want  []string
	}{
		"nothing":  {nil, nil},
		"a bind":   {map[string]string{"run.mounts": `[` + bindData + `]`}, []string{"images.registry.example/team/*.binds: /srv/data"}},
		"a level":  {map[string]string{"run.capabilities": `["CAP_CHOWN"]`}, []string{"level: baseline"}},
		"a number": {map[string]string{"run.limits.pids": `40000`}, []string{"limits.pids"}},
		"two":      {map[string]string{"run.capabilities": `["CAP_CHOWN","CAP_SYS_PTRACE"]`}, []string{"capabilities: SYS_PTRACE", "level: baseline"}},
	} {
		x, err := Explain(t.Context(), Config{Dir: dir}, changed(t, c.input))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range x.Rests {
			r, _, _ = strings.Cut(r, " (in ")
			got = append(got, r)
		}
		if !x.Now.Allow || !slices.Equal(got, c.want) {
			t.Errorf("%s: allowed %v for %q, want %q", name, x.Now.Allow, got, c.want)
		}
	}
}

// A request of hundreds of parts, under rules that cost what they may, is given
// up in time.
func TestExplainIsBounded(t *testing.T) {
	var mounts []string
	for i := range 300 {
		mounts = append(mounts, strings.ReplaceAll(bindData, "/data", fmt.Sprintf("/data%d", i)))
	}
	x, err := Explain(t.Context(), Config{}, changed(t, map[string]string{"run.mounts": `[` + strings.Join(mounts, ",") + `]`}))
	if err != nil || x.Complete || x.Decisions > maxTries {
		t.Errorf("complete %v after %d decisions, %v", x.Complete, x.Decisions, err)
	}
	for _, bad := range []string{``, `[]`, `{"version":1,"point":"run"}`, `{"version":1,"point":"run","run":{"mounts":[1,{"type":3}],"limits":{"memory":1e400,"pids":"x"},"capabilities":{"a":1}},"evidence":7}`, `{"version":2,"point":"run"}`} {
		_, _ = Explain(t.Context(), Config{}, []byte(bad)) // it must only not panic
	}
}

// Whatever an input holds, taking things out of it neither panics nor touches
// the input itself.
func FuzzMoves(f *testing.F) {
	f.Add(exampleInput)
	f.Add(`{"point":"exec","image":{"checksum":"x"},"run":{"mounts":[{"type":"bind","target":"/x"},3],"capabilities":["CAP_X",1],"sysctls":[{}],"devices":[null],"security_opt":["seccomp=x",{}],"seccomp":{"extra":[1]},"limits":{"memory":-1,"pids":1e300,"cpus":"x"},"user":{"uid":0},"network":"host","read_only":false},"exec":{"user":{"uid":0},"stdin":true},"unmapped":[{"path":"a"}]}`)
	f.Add(`{"run":[],"evidence":{"signers":{}},"unmapped":{"a":1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var in map[string]any
		if dec.Decode(&in) != nil || len(text) > 1<<16 {
			return
		}
		before := fmt.Sprint(in)
		x := &explainer{in: in, moves: moves(in)}
		if len(x.moves) > maxMoves {
			x.moves = x.moves[:maxMoves]
		}
		for i, m := range x.moves {
			for _, w := range m.ways {
				w.apply(cloned(in))
			}
			if m.number != nil {
				m.value(m.number.low).apply(cloned(in))
			}
			if m.grant != nil {
				doc := cloned(in)
				addGrants(doc, x.scoped([]int{i}, []bool{true}, "a/b"))
			}
			member(in, m.path)
		}
		for _, e := range entries(in) {
			e.remove(cloned(in))
		}
		if fmt.Sprint(in) != before {
			t.Fatal("the input is changed")
		}
	})
}
