package doors

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/doctor/forge"
	"github.com/ward-project/ward/tests/lab"
)

// answer is what a door says: "allow", or the class and rule of the refusal and
// the codes of all that denied.
type answer struct {
	class, rule string
	codes       []string
}

func (a answer) String() string {
	if a.rule == "" {
		return "allow"
	}
	return fmt.Sprintf("%s %s %v", a.class, a.rule, a.codes)
}

var allow = answer{}

func unverified(rule string) answer { return answer{"unverified", rule, nil} }

func denied(codes ...string) answer { return answer{"denied", codes[0], codes} }

// question is one case: what is asked for, and what the host is like by then.
// Each is asked of an image that was let in with these options before, and
// everything that the case changes is put back after it.
type question struct {
	name string
	// run are options of ward run, compose the same in a service.
	run     []string
	compose string
	// grants and rego are the policy when it is asked; before that all is granted.
	grants, rego string
	// both puts the rule at point exec, too.
	both bool
	// spoil makes the image bad, or the host; it returns what mends it.
	spoil func(*table) func()
	want  answer
	// but are doors that differ on purpose.
	but map[string]answer
	// oci says that it is about the image alone, so that ward-oci answers too.
	oci bool
}

func policyOnly(name string, want answer, run []string, compose string) question {
	return question{name: name, run: run, compose: compose, want: want}
}

func questions() []question {
	trust := func(text string) func(*table) func() {
		return func(t *table) func() { return t.write("etc/trust.d/site.yaml", t.fill(text)) }
	}
	return []question{
		{name: "allowed", oci: true},
		policyOnly("capability", denied("baseline.capabilities"), []string{"--cap-add", "SYS_ADMIN"}, "cap_add: [SYS_ADMIN]"),
		policyOnly("one that only this level refuses", denied("restricted.capabilities"), []string{"--cap-add", "CHOWN"}, "cap_add: [CHOWN]"),
		policyOnly("host network", denied("baseline.host-namespaces"), []string{"--network", "host"}, "network_mode: host"),
		policyOnly("host path", denied("baseline.host-path"), []string{"-v", "/srv:/mnt:ro"}, `volumes: ["/srv:/mnt:ro"]`),
		policyOnly("several at once", denied("baseline.capabilities", "baseline.host-namespaces"),
			[]string{"--network", "host", "--cap-add", "SYS_PTRACE"}, "network_mode: host\n    cap_add: [SYS_PTRACE]"),
		{name: "granted", run: []string{"--cap-add", "SYS_PTRACE"}, compose: "cap_add: [SYS_PTRACE]", grants: `{"capabilities": ["SYS_PTRACE"]}`},
		{name: "another level", run: []string{"--cap-add", "CHOWN"}, compose: "cap_add: [CHOWN]", grants: `{"level": "baseline"}`},
		{name: "a rule of the site's", want: denied("site.name"),
			rego: "package ward.run\n\ndeny contains {\"code\": \"site.name\", \"msg\": \"not here\"} if contains(input.image.repo, \"demo\")\n",
			// An exec is judged at its own point, where the site said nothing.
			but: map[string]answer{"exec": allow}},
		{name: "not attested", want: denied("site.scan"), rego: scanned, both: true},
		{name: "attested", rego: scanned, both: true, spoil: (*table).attest},
		{name: "a warning", rego: "package ward.run\n\nwarn contains {\"code\": \"site.w\", \"msg\": \"look\"}\n"},
		{name: "an obligation", rego: "package ward.run\n\nobligations contains {\"max_pids\": 7}\n"},
		{name: "an obligation that cannot be met", want: answer{"denied", "policy.gvisor", nil}, rego: "package ward.run\n\nobligations contains {\"require_gvisor\": true}\n",
			but: map[string]answer{"exec": allow}},
		{name: "a policy that does not compile", want: answer{"invalid", "policy.syntax", nil}, rego: "package ward.run\n\ndeny contains\n"},
		{name: "no decision", want: denied("policy.undefined"), rego: "package ward.run\n\nx := 1\n", spoil: func(t *table) func() {
			return t.write("etc/policy.d/decision.rego", "package ward.run\n\ndecision := {\"allow\": true} if false\n")
		}, but: map[string]answer{"exec": allow}},
		{name: "nobody is trusted", want: unverified("trust.no-policy"), oci: true, spoil: func(t *table) func() { return t.move("etc/trust.d") }},
		{name: "signed by another", want: unverified("trust.wrong-key"), oci: true, spoil: trust(fmt.Sprintf(cip, "", "STRANGER"))},
		{name: "two have to sign", want: unverified("trust.threshold"), oci: true,
			spoil: trust(strings.Replace(fmt.Sprintf(cip, "  annotations: {ward.dev/threshold: \"a=2\"}\n", "OURS"), "      key:\n        data: |\n", "      key:\n        data: |\n          STRANGER\n", 1))},
		{name: "the key's time is over", want: unverified("trust.key-window"), oci: true,
			spoil: trust(fmt.Sprintf(cip, "  annotations: {ward.dev/not-after: \"a=2020-01-01T00:00:00Z\"}\n", "OURS"))},
		{name: "not signed any more", want: unverified("trust.unsigned"), oci: true,
			spoil: func(t *table) func() { return t.move("lib/images/attachments/" + t.digest[len("sha256:"):]) }},
		{name: "a trust policy that cannot be read", want: answer{"invalid", "trust.policy", nil}, oci: true, spoil: trust("kind: x\n")},
		{name: "a changed manifest", want: answer{"invalid", "image.digest", nil}, oci: true,
			spoil: func(t *table) func() { return t.flip(t.digest) }},
		{name: "a changed configuration", want: answer{"invalid", "image.digest", nil}, oci: true,
			spoil: func(t *table) func() { return t.flip(t.config) }},
	}
}

// scanned wants a scan by whom the trust policy believes.
const scanned = `package ward.run

deny contains {"code": "site.scan", "msg": "not scanned"} if {
	count([1 | some a in input.evidence.attestations; a.predicate_type == "https://cosign.sigstore.dev/attestation/vuln/v1"]) == 0
}
`

// attest states that the image was scanned; the statement stays with it.
func (b *table) attest() func() {
	b.Helper()
	scan := filepath.Join(b.ward.Dir, "scan.json")
	if err := os.WriteFile(scan, []byte(`{"invocation": {}, "scanner": {"uri": "x"}, "metadata": {}}`), 0o644); err != nil {
		b.Fatal(err)
	}
	b.ward.Must("attest", "--key", filepath.Join(b.ward.Dir, "cosign.key"), "--type", "vuln", "--predicate", scan, b.image)
	return func() {}
}

// cip is a trust policy about every image, with annotations and a key.
const cip = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: site
%sspec:
  images: [{glob: "**"}]
  authorities:
    - name: a
      key:
        data: |
          %s
`

// table is the ward that is asked.
type table struct {
	*testing.T
	ward           *lab.Ward
	reg            *lab.Registry
	image          string
	digest, config string
	ours, stranger string
}

func newTable(t *testing.T) *table {
	b := &table{T: t, ward: lab.New(t)}
	b.reg = b.ward.Registry()
	b.image = b.reg.Addr + "/demo/app:1"
	w := b.ward
	w.Busybox(b.image, tar.Header{Typeflag: tar.TypeDir, Name: "app/", Mode: 0o755})
	w.Vouch(b.image)
	w.Must("push", b.image)
	w.Must("key", "generate", "--out", filepath.Join(w.Dir, "stranger"))
	for _, k := range []struct {
		to   *string
		file string
	}{{&b.ours, "cosign.pub"}, {&b.stranger, "stranger/cosign.pub"}} {
		pem, err := os.ReadFile(filepath.Join(w.Dir, k.file))
		if err != nil {
			t.Fatal(err)
		}
		*k.to = strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n          ")
	}
	// One policy, in a file of a known name.
	if err := os.RemoveAll(filepath.Join(w.Root, "etc/trust.d")); err != nil {
		t.Fatal(err)
	}
	b.write("etc/trust.d/site.yaml", b.fill(fmt.Sprintf(cip, "", "OURS")))
	var i struct{ ID, Digest string }
	if err := json.Unmarshal([]byte(w.Must("images", "--no-trunc", "--digests", "--format", "json")), &i); err != nil {
		t.Fatal(err)
	}
	b.digest, b.config = i.Digest, i.ID
	return b
}

func (b *table) fill(text string) string {
	return strings.NewReplacer("OURS", b.ours, "STRANGER", b.stranger).Replace(text)
}

// write replaces a file of the ward's and returns what puts the old one back.
func (b *table) write(name, text string) func() {
	b.Helper()
	path := filepath.Join(b.ward.Root, name)
	before, err := os.ReadFile(path)
	if mkerr := os.MkdirAll(filepath.Dir(path), 0o755); mkerr != nil {
		b.Fatal(mkerr)
	}
	if werr := os.WriteFile(path, []byte(text), 0o644); werr != nil {
		b.Fatal(werr)
	}
	return func() {
		if err != nil {
			os.Remove(path)
			return
		}
		if err := os.WriteFile(path, before, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *table) move(name string) func() {
	b.Helper()
	path := filepath.Join(b.ward.Root, name)
	if err := os.Rename(path, path+".away"); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := os.Rename(path+".away", path); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *table) flip(digest string) func() {
	b.Helper()
	path := filepath.Join(b.ward.Root, "lib/images/blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
	if err := flip(path); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := flip(path); err != nil {
			b.Fatal(err)
		}
	}
}

// said is what the log has about a command: its last answer, allowed or not.
func (b *table) said(from int) answer {
	b.Helper()
	var a answer
	for _, e := range b.ward.Records()[from:] {
		var d struct {
			Outcome, Class, Rule string
			Decision             struct {
				Answer struct {
					Deny []struct{ Code string }
				}
			}
		}
		switch e.Type {
		case audit.RunDenied, audit.ExecDenied, audit.GateDecision, audit.ImagePullDenied:
			if err := json.Unmarshal(e.Data, &d); err != nil {
				b.Fatal(err)
			}
			a = answer{class: d.Class, rule: d.Rule}
			for _, r := range d.Decision.Answer.Deny {
				a.codes = append(a.codes, r.Code)
			}
		}
	}
	return a
}

// ask runs a command that starts or judges something, and reads the answer from
// the record; the exit code has to fit it.
func (b *table) ask(door string, args ...string) answer {
	b.Helper()
	from := len(b.ward.Records())
	r := b.ward.Do(args...)
	a := b.said(from)
	if (r.Code == 0) != (a.rule == "") {
		b.Errorf("%s: exit %d, on record %s\n%s%s", door, r.Code, a, r.Stdout, r.Stderr)
	}
	return a
}

var ruleLine = regexp.MustCompile(`(?m)^  rule: +(\S+) \((.+)\)`)

// check is policy check, which records nothing: its answer is what it prints.
func (b *table) check(run []string) answer {
	b.Helper()
	r := b.ward.Do(slices.Concat([]string{"policy", "check", "--format", "json"}, run, []string{b.image, "sleep", "1000"})...)
	if m := ruleLine.FindStringSubmatch(r.Stderr); m != nil {
		return answer{class: m[2], rule: m[1]}
	}
	var d struct {
		Decision struct {
			Allow bool
			Deny  []struct{ Code string }
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &d); err != nil || d.Decision.Allow != (r.Code == 0) {
		b.Errorf("check: exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	var codes []string
	for _, c := range d.Decision.Deny {
		codes = append(codes, c.Code)
	}
	if len(codes) == 0 {
		return allow
	}
	return denied(codes...)
}

// oci is a caller of ward-oci that is trusted, with a bundle that names the image.
func (b *table) oci() answer {
	b.Helper()
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer b.write("etc/policy.d/grants.json", fmt.Sprintf(`{"oci": {"callers": [{"exe": %q, "uid": 0}]}}`, self))()
	dir := filepath.Join(b.ward.Dir, "bundle")
	ends, err := forge.Program(forge.Ends)
	if err != nil {
		b.Fatal(err)
	}
	if err := firstError(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "rootfs/bin"), 0o755), os.MkdirAll(filepath.Join(dir, "rootfs/proc"), 0o755),
		os.MkdirAll(filepath.Join(dir, "rootfs/dev"), 0o755), os.MkdirAll(filepath.Join(dir, "rootfs/sys"), 0o755),
		os.WriteFile(filepath.Join(dir, "rootfs", forge.Ends), ends, 0o755)); err != nil {
		b.Fatal(err)
	}
	program := func(args ...string) lab.Result {
		cmd := exec.Command(filepath.Join(lab.Bin(), "ward-oci"), append([]string{"--ward-root", b.ward.Root, "--root", filepath.Join(b.ward.Dir, "oci")}, args...)...)
		cmd.Env, cmd.Dir = b.ward.Env, b.ward.Dir
		return b.ward.Finish(cmd)
	}
	if r := program("spec", "--bundle", dir); r.Code != 0 {
		b.Fatalf("ward-oci spec: %s", r.Stderr)
	}
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	var spec map[string]any
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		b.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{forge.Ends}
	spec["annotations"] = map[string]string{"org.ward.image.digest": b.digest, "org.ward.image.ref": b.image}
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(config, text, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	from := len(b.ward.Records())
	r := program("run", "--bundle", dir, b.ward.Mark()+"oci")
	a := b.said(from)
	if (r.Code == 0) != (a.rule == "") {
		b.Errorf("ward-oci: exit %d, on record %s\n%s%s", r.Code, a, r.Stdout, r.Stderr)
	}
	return a
}

// A registry that does not answer is not a no: every door that would ask it
// says so by one rule, and the gate's exit code does. Check asks nobody.
func TestRegistryIsDown(t *testing.T) {
	b := newTable(t)
	b.ward.Must("rmi", b.image)
	b.reg.Stop()
	for door, args := range map[string][]string{
		"run": {"run", "--rm", b.image, "true"}, "create": {"create", b.image}, "pull": {"pull", "-q", b.image}, "gate": {"gate", b.image},
		"always": {"run", "--rm", "--pull", "always", b.image},
	} {
		if a := b.ask(door, args...); a.class != "unavailable" || a.rule != "registry.unavailable" {
			t.Errorf("%s says %s", door, a)
		}
	}
	for want, args := range map[int][]string{3: {"gate", b.image}, 125: {"run", "--rm", b.image, "true"}} {
		if r := b.ward.Do(args...); r.Code != want {
			t.Errorf("%v: exit %d, want %d", args, r.Code, want)
		}
	}
	if a := b.check(nil); a.class != "not found" || a.rule != "image.missing" {
		t.Errorf("check says %s", a)
	}
	b.ward.Gone(t)
}

// Every door gives the answer that a run would get, by the same rule and for the
// same reasons, to whatever is asked.
func TestEveryDoorAnswersAlike(t *testing.T) {
	b := newTable(t)
	for i, q := range questions() {
		t.Run(strings.ReplaceAll(q.name, " ", "-"), func(t *testing.T) {
			b.T = t
			b.question(i, q)
		})
	}
	b.T = t
	b.ward.Must("audit", "verify")
	b.ward.Gone(t)
}

func (b *table) question(i int, q question) {
	w := b.ward
	old, live := fmt.Sprintf("old%d", i), fmt.Sprintf("live%d", i)
	command := []string{b.image, "sleep", "1000"}
	loose := b.write("etc/policy.d/grants.json", `{"level": "baseline", "capabilities": ["SYS_ADMIN", "SYS_PTRACE", "CHOWN"], "networks": ["host"], "binds": ["/srv"]}`)
	w.Must(slices.Concat([]string{"run", "-d", "--name", old}, q.run, command)...)
	w.Must("stop", "-t", "0", old)
	w.Must(slices.Concat([]string{"run", "-d", "--name", live}, q.run, command)...)
	loose()

	var undo []func()
	defer func() {
		slices.Reverse(undo)
		for _, f := range undo {
			f()
		}
		w.Must("rm", "-f", old, live)
	}()
	if q.grants != "" {
		undo = append(undo, b.write("etc/policy.d/grants.json", q.grants))
	}
	if q.rego != "" {
		undo = append(undo, b.write("etc/policy.d/site.rego", q.rego))
		if q.both {
			undo = append(undo, b.write("etc/policy.d/site-exec.rego", strings.Replace(q.rego, "package ward.run", "package ward.exec", 1)))
		}
	}
	if q.spoil != nil {
		undo = append(undo, q.spoil(b))
	}
	compose := filepath.Join(w.Dir, "compose.yaml")
	text := "services:\n  app:\n    image: " + b.image + "\n    command: [sleep, \"1000\"]\n"
	if q.compose != "" {
		text += "    " + q.compose + "\n"
	}
	if err := os.WriteFile(compose, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	got := map[string]answer{
		"run":    b.ask("run", slices.Concat([]string{"run", "--rm", "--pull", "never"}, q.run, []string{b.image, "true"})...),
		"create": b.ask("create", slices.Concat([]string{"create", "--name", "made", "--pull", "never"}, q.run, command)...),
		"start":  b.ask("start", "start", old),
		"exec":   b.ask("exec", "exec", live, "true"),
		"gate":   b.ask("gate", "gate", "--offline", "-f", compose),
		"check":  b.check(q.run),
	}
	if slices.Contains(w.Containers(), "made") || got["create"].rule == "" {
		w.Do("rm", "-f", "made")
	}
	if q.oci {
		got["ward-oci"] = b.oci()
	}
	for door, a := range got {
		want := q.want
		if other, differs := q.but[door]; differs {
			want = other
		}
		if a.String() != want.String() {
			b.Errorf("%s says %s, want %s", door, a, want)
		}
	}
}
