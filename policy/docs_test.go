package policy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/ward-project/ward/policy"
)

const page = "../docs/policy.md"

// blocks are the pages' examples: what follows the language, and the text.
func blocks(t testing.TB) map[string]string {
	t.Helper()
	pages, err := filepath.Glob("../docs/policy*.md")
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b = append(append(b, text...), '\n')
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		if _, twice := out[m[1]]; twice {
			t.Fatalf("two examples are %q", m[1])
		}
		out[m[1]] = m[2]
	}
	return out
}

func sample(t testing.TB, info string) string {
	t.Helper()
	text, ok := blocks(t)[info]
	if !ok {
		t.Fatalf("%s has no example %q", page, info)
	}
	return text
}

// What people copy, and what they read to learn, is formatted as opa fmt does.
func TestRegoIsFormatted(t *testing.T) {
	texts := map[string]string{}
	files, err := filepath.Glob("rego/*.rego")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	inLib, err := filepath.Glob("rego/lib/*.rego")
	if err != nil || len(inLib) == 0 {
		t.Fatal(inLib, err)
	}
	files = append(files, inLib...)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[f] = string(b)
	}
	for info, text := range blocks(t) {
		if strings.HasPrefix(info, "rego ") {
			texts[info] = text
		}
	}
	for name, text := range texts {
		got, err := format.SourceWithOpts(name, []byte(text), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil || string(got) != text {
			t.Errorf("%s is not formatted (%v); opa fmt makes it:\n%s", name, err, got)
		}
	}
}

func TestPageNamesEveryCode(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("rego/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	pods, err := os.ReadFile("rego/k8s.rego")
	if err != nil {
		t.Fatal(err)
	}
	var messages map[string]any
	if err := json.Unmarshal(text, &messages); err != nil {
		t.Fatal(err)
	}
	for _, code := range regexp.MustCompile(`"(k8s\.[a-z-]+)"`).FindAllStringSubmatch(string(pods), -1) {
		if code[1] != "k8s.input" {
			messages[code[1]] = true
		}
	}
	for code := range messages {
		if !bytes.Contains(b, []byte("`"+code+"`")) {
			t.Errorf("%s does not name %s", page, code)
		}
	}
}

func TestPageGrants(t *testing.T) {
	e := open(t, "grants.json", sample(t, "json file=grants.json"))
	for _, change := range []func(*policy.Input){
		mounts(bind("/srv/data/x", false), bind("/etc/ssl/certs", true)), caps("CAP_SYS_PTRACE"), network("host"),
		func(in *policy.Input) { in.Image.Repo = "db/postgres"; caps("CAP_CHOWN")(in) },
	} {
		if d := decide(t, e, with(change)); !d.Allowed() {
			t.Error(d.Reasons())
		}
	}
	denied(t, decide(t, e, with(mounts(bind("/etc/ssl/certs", false)))), "baseline.host-path")
	denied(t, decide(t, e, with(caps("CAP_CHOWN"))), "restricted.capabilities")

	e = open(t, "grants.json", sample(t, "json file=web.json"), "landlock.rego", sample(t, "rego file=landlock.rego"))
	web := with(func(in *policy.Input) { tcpPorts([]string{"8080"}, []string{"5432"})(in); in.Image.Repo = "web/shop" })
	if d := decide(t, e, web); !d.Allowed() {
		t.Error(d.Reasons())
	}
	web.Run.Landlock.Missing = "kernel"
	denied(t, decide(t, e, web), "site.landlock")

	e = open(t, "grants.yaml", sample(t, "yaml file=grants.yaml"))
	pages := with(mounts(bind("/srv/www", true)))
	denied(t, decide(t, e, pages), "baseline.host-path")
	pages.Image.Repo = "web/nginx"
	if d := decide(t, e, pages); !d.Allowed() {
		t.Error(d.Reasons())
	}
}

func TestPageModes(t *testing.T) {
	e := open(t, "grants.json", sample(t, "json file=grants-modes.json"))
	if d := decide(t, e, with(caps("CAP_CHOWN"))); !d.Allowed() || len(d.Warnings()) != 1 {
		t.Error(d.Reasons())
	}
	denied(t, decide(t, e, with(network("host"))), "baseline.host-namespaces")
}

func TestPageRulesPassTheirTests(t *testing.T) {
	files := []string{"site.rego", sample(t, "rego file=site.rego"), "registries.json", sample(t, "json file=registries.json"),
		"site_test.rego", sample(t, "rego file=site_test.rego")}
	var out strings.Builder
	if err := open(t, files...).Test(t.Context(), &out, policy.TestOptions{Run: `^data\.site_test\.`}); err != nil || !strings.Contains(out.String(), "PASS: 5/5") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if d := decide(t, open(t, files...), good()); d.Allowed() || codes(d.Reasons())[0] != "site.root" {
		t.Fatal(d.Reasons()) // good is root inside
	}
}

func TestPageDecision(t *testing.T) {
	e := open(t, "decision.rego", sample(t, "rego file=decision.rego"))
	denied(t, decide(t, e, with(network("host"))), "baseline.host-namespaces")
	debug := with(func(in *policy.Input) { in.Run.Network, in.Image.Repo, in.Actor.LoginUID = "host", "debug/tools", 1000 })
	if d := decide(t, e, debug); !d.Allowed() || len(d.Warnings()) != 1 {
		t.Fatal(d.Reasons())
	}
	if d := decide(t, e, good()); !d.Allowed() {
		t.Fatal(d.Reasons())
	}
}

func TestPageShowsWhatIsPrinted(t *testing.T) {
	e, err := policy.Open(policy.Config{Dir: "/etc/ward/policy.d"})
	if err != nil || len(e.Revision()) == 0 {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir("/etc/ward/policy.d"); err == nil && len(entries) > 0 {
		t.Skip("this machine has a policy of its own")
	}
	d := decide(t, e, with(mounts(policy.Mount{Type: "bind", Source: "/srv/data", Target: "/data"})))
	var text strings.Builder
	if err := d.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`revision [0-9a-f]{12}`).ReplaceAllString(text.String(), "revision REVISION")
	if want := sample(t, "text decision=host-bind"); got != want {
		t.Errorf("printed:\n%s\npage:\n%s", got, want)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	shown := strings.NewReplacer(d.Revision(), "REVISION", d.InputDigest(), "sha256:…").Replace(pretty.String()) + "\n"
	if want := sample(t, "json decision=host-bind"); shown != want {
		t.Errorf("printed:\n%s\npage:\n%s", shown, want)
	}
}

func TestPageObligations(t *testing.T) {
	e := open(t, "obliged.rego", sample(t, "rego file=obliged.rego"))
	d := decide(t, e, with(func(in *policy.Input) { in.Image.Host = "elsewhere.example" }))
	if got := strings.Join(d.Obligations().Lines(), "; "); !d.Allowed() || got != "drop capabilities CAP_NET_BIND_SERVICE; read-only root file system; no new privileges; "+
		"refuse system calls process_vm_readv, ptrace; swap at most 0 bytes; memory at most 268435456 bytes; at most 64 processes; cpus at most 0.5" {
		t.Error(got)
	}
	if d := decide(t, e, good()); d.Obligations().Any() {
		t.Error(d.Obligations().Lines())
	}
}
