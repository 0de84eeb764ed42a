package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/tests/lab"
)

// resident is one `ward gate --stdin` that goes on living.
type resident struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startResident(t *testing.T, w *lab.Ward, flags ...string) *resident {
	t.Helper()
	r := &resident{t: t, cmd: w.Command(append([]string{"gate", "--stdin"}, flags...)...)}
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = os.Stderr
	r.out = bufio.NewReaderSize(out, 1<<20)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.in.Close()
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	return r
}

// lineAnswer is what a test looks at in an answer.
type lineAnswer struct {
	ID, Image, Digest, Outcome, Stage string
	Reasons                           []struct{ Code, Msg, Fix string }
	Decision                          struct{ Level, Revision string }
}

// code is the first reason's.
func (a lineAnswer) code() string {
	if len(a.Reasons) == 0 {
		return ""
	}
	return a.Reasons[0].Code
}

func (r *resident) send(line string) {
	r.t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *resident) answer() (a lineAnswer) {
	r.t.Helper()
	b, err := r.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		r.t.Fatalf("%v: %q", err, b)
	}
	return a
}

func (r *resident) ask(line string) lineAnswer {
	r.t.Helper()
	r.send(line)
	return r.answer()
}

// end closes standard input and returns the exit code.
func (r *resident) end() int {
	r.t.Helper()
	if err := r.in.Close(); err != nil {
		r.t.Fatal(err)
	}
	rest, err := io.ReadAll(r.out)
	if err != nil || len(rest) > 0 {
		r.t.Fatalf("%v, and answers nobody asked for: %q", err, rest)
	}
	err = r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

const stdinRef = "registry.example.com/team/app:1"

// TestResidentGateSeesEveryChange has one process answer while trust, policy
// and signatures change under it: the next answer is by what is in force then.
func TestResidentGateSeesEveryChange(t *testing.T) {
	w := lab.New(t)
	w.Busybox(stdinRef)
	w.Vouch(stdinRef)
	g := startResident(t, w, "--offline")
	want := func(what, outcome, code string) lineAnswer {
		t.Helper()
		a := g.ask(stdinRef)
		if a.Outcome != outcome || a.code() != code {
			t.Fatalf("%s: %+v, want %s %s", what, a, outcome, code)
		}
		return a
	}
	want("at first", "allow", "")
	before := want("and again", "allow", "")

	// The key is withdrawn, and given back.
	files, err := filepath.Glob(filepath.Join(w.Root, "etc/trust.d/*.yaml"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	trust, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	w.Must("trust", "rm", strings.TrimSuffix(filepath.Base(files[0]), ".yaml"))
	want("key withdrawn", "deny", "trust.no-policy")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(files[0], string(trust))
	want("key given back", "allow", "")

	// Policy: a rule, a level, a grant, rubbish.
	rule := filepath.Join(w.Root, "etc/policy.d/own.rego")
	put(rule, "package ward.run\n\ndeny contains {\"code\": \"own.no\", \"msg\": \"no\"} if true\n")
	if a := want("a rule", "deny", "own.no"); a.Decision.Revision == before.Decision.Revision {
		t.Error("the same revision")
	}
	put(rule, "package ward.run\n\ndeny contains {\"code\": \"own.not\", \"msg\": \"no\"} if true\n")
	want("another rule", "deny", "own.not")
	put(rule, "package ward.run\n\ndeny contains {\n")
	want("no Rego", "invalid", "policy.syntax")
	if err := os.Remove(rule); err != nil {
		t.Fatal(err)
	}
	want("no rule", "allow", "")
	grants := filepath.Join(w.Root, "etc/policy.d/grants.json")
	put(grants, `{"level": "baseline"}`)
	if a := want("a level", "allow", ""); a.Decision.Level != "baseline" {
		t.Error(a.Decision)
	}
	put(grants, `{"level": "restrictd"}`)
	want("no such level", "invalid", "policy.grants")
	if err := os.Remove(grants); err != nil {
		t.Fatal(err)
	}
	if a := want("no grants", "allow", ""); a.Decision.Level != "restricted" {
		t.Error(a.Decision)
	}

	// The signature goes, and comes back from elsewhere: the very next answer knows.
	store, err := images.Open(images.Config{Dir: filepath.Join(w.Root, "lib/images")})
	if err != nil {
		t.Fatal(err)
	}
	digest := before.Digest
	all, err := store.Attachments(t.Context(), digest)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if err := os.RemoveAll(filepath.Join(w.Root, "lib/images/attachments", strings.TrimPrefix(digest, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	want("no signature", "deny", "trust.unsigned")
	bad := all[0]
	bad.Payload = append([]byte(nil), all[0].Payload...)
	bad.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "MEUCIQDo"}
	if err := store.Attach(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	want("a signature that is none", "deny", "trust.wrong-key")
	if err := store.Attach(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	want("a good one besides", "allow", "")
	if code := g.end(); code != 1 {
		t.Errorf("exit %d, a no among the answers is 1", code)
	}
	n := 0
	for _, e := range w.Records() {
		if e.Type == audit.GateDecision {
			n++
		}
	}
	if n != 14 {
		t.Errorf("%d answers on record", n)
	}
	w.Must("audit", "verify")
}

// TestResidentGateLines is the form of questions and answers.
func TestResidentGateLines(t *testing.T) {
	w := lab.New(t)
	w.Busybox(stdinRef)
	w.Vouch(stdinRef)
	g := startResident(t, w, "--pull", "never")
	lines := map[string]string{ // question to the code of its refusal
		stdinRef: "", `{"image":"` + stdinRef + `"}`: "", stdinRef + "\r": "",
		"": "image.reference", " " + stdinRef: "image.reference", "UPPER": "image.reference", strings.Repeat("x", 3<<20): "gate.line",
		`{"image":"a","image":"b"}`: "gate.line", `{"id":"x"}`: "image.reference", `{"Image":"a"}`: "gate.line", `{"image":1}`: "gate.line", `{"image":["a"]}`: "gate.line",
		`{"image":"a"} x`: "gate.line", `{`: "gate.line", `{"image":"a"`: "gate.line", `{"image":{"image":"a"}}`: "gate.line", `{"pull":"always","image":"a"}`: "gate.line",
		"registry.example.com/none:1": "gate.offline", "a\x00b": "image.reference", "\xff\xfe": "image.reference", "\x1b[2J": "image.reference",
	}
	for line, code := range lines {
		a := g.ask(line)
		outcome := map[string]string{"": "allow", "gate.offline": "indeterminate"}[code]
		if outcome == "" {
			outcome = "invalid"
		}
		if a.code() != code || a.Outcome != outcome || code != "" && a.Reasons[0].Fix == "" {
			t.Errorf("%.60q: %+v, want %s %s", line, a, outcome, code)
		}
	}
	// Many at once: answers come in the order of the questions.
	for range 100 {
		g.send(`{"id":"a","image":"` + stdinRef + `"}`)
		g.send(`{"image":"UPPER","id":"b"}`)
	}
	for range 100 {
		if a, b := g.answer(), g.answer(); a.ID != "a" || a.Outcome != "allow" || b.ID != "b" || b.Outcome != "invalid" {
			t.Fatalf("%+v %+v", a, b)
		}
	}
	if code := g.end(); code != 2 {
		t.Errorf("exit %d, a mistake decides over what is not known", code)
	}
	if n := w.Count(audit.GateDecision, ""); n != len(lines)+200 {
		t.Errorf("%d answers on record, %d questions", n, len(lines)+200)
	}
	w.Must("audit", "verify")

	// Nothing asked is not a yes; neither is what goes with other flags.
	if code := startResident(t, w).end(); code != 2 {
		t.Errorf("exit %d for no question", code)
	}
	for _, args := range [][]string{{stdinRef}, {"-f", "x.yaml"}, {"--output", "json"}, {"--pin"}, {"--vsa", "x"}} {
		if r := w.Do(append([]string{"gate", "--stdin"}, args...)...); r.Code != 2 {
			t.Errorf("%v: exit %d", args, r.Code)
		}
	}
	// The last line may lack its end.
	cmd := w.Command("gate", "--stdin")
	cmd.Stdin = strings.NewReader(stdinRef)
	if r := w.Finish(cmd); r.Code != 0 || strings.Count(r.Stdout, "\n") != 1 {
		t.Errorf("exit %d: %s", r.Code, r.Stdout)
	}
}

// TestResidentGateNeedsItsRecord takes the log away from under a gate: there
// is no answer that is not on record.
func TestResidentGateNeedsItsRecord(t *testing.T) {
	w := lab.New(t)
	w.Busybox(stdinRef)
	w.Vouch(stdinRef)
	cmd := w.Command("gate", "--stdin", "--offline")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	ask := func() (string, error) {
		if _, err := io.WriteString(in, stdinRef+"\n"); err != nil {
			t.Fatal(err)
		}
		return lines.ReadString('\n')
	}
	if line, err := ask(); err != nil || !strings.Contains(line, `"outcome":"allow"`) {
		t.Fatal(line, err)
	}
	log := filepath.Join(w.Root, "lib/audit/journal/log")
	if err := os.Rename(log, log+".away"); err != nil {
		t.Fatal(err)
	}
	segs, err := filepath.Glob(log + ".away/*.seg")
	if err != nil || len(segs) == 0 {
		t.Fatal(segs, err)
	}
	for _, s := range segs {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	if line, err := ask(); err == nil {
		t.Fatalf("an answer that is on no record: %s", line)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v, want exit 3: %s", err, errs.String())
	}
}
