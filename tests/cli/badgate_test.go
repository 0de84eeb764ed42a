package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// enough is what a gate may take in memory, in MiB: 256 of it are a policy's.
const enough = 768

// gated asks the gate within bounds of time and memory, and returns exit code
// and what it said.
func gated(t *testing.T, w *lab.Ward, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	plain := w.Command(append([]string{"gate"}, args...)...)
	cmd := exec.CommandContext(ctx, plain.Path, plain.Args[1:]...)
	cmd.Env, cmd.Dir = plain.Env, plain.Dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v (%v)\n%.2000s", args, err, ctx.Err(), out)
	}
	if mib := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10; mib > enough {
		t.Errorf("%v took %d MiB", args, mib)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// answered asks about ref and checks outcome, rule and the record of both.
func answered(t *testing.T, w *lab.Ward, outcome, rule string, args ...string) string {
	t.Helper()
	before := len(w.Records())
	code, out := gated(t, w, args...)
	want := map[string]int{"allow": 0, "deny": 1, "invalid": 2, "indeterminate": 3}[outcome]
	if code != want {
		t.Fatalf("exit %d, want %d (%s)\n%.2000s", code, want, outcome, out)
	}
	if rule != "" && !regexp.MustCompile(rule).MatchString(out) {
		t.Fatalf("no %s in\n%.2000s", rule, out)
	}
	if len(out) > 64<<10 {
		t.Errorf("%v said %d bytes", args, len(out))
	}
	found := false
	for _, e := range w.Records()[before:] {
		if e.Type == audit.GateDecision {
			found = found || bytes.Contains(e.Leaf, []byte(`"outcome":"`+outcome+`"`)) && (rule == "" || regexp.MustCompile(rule).Match(e.Leaf))
		}
	}
	if !found {
		t.Errorf("%s by %q is not on record", outcome, rule)
	}
	return out
}

// hundredMB is a file of that size that takes no space.
func hundredMB(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(100<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bomb is a YAML file of a few hundred bytes that stands for 10^9 values.
func bomb(prefix string) string {
	var b strings.Builder
	b.WriteString(prefix + "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 8 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d%s]\n", i+1, i+1, i, strings.Repeat(fmt.Sprintf(", *a%d", i), 9))
	}
	return b.String()
}

const badRef = "registry.example.com/team/app:1"

// TestBadTrustAndPolicy asks the gate while its own configuration is hostile or
// broken: never an allow, never a hang, never out of memory, and on record.
func TestBadTrustAndPolicy(t *testing.T) {
	w := lab.New(t)
	w.Busybox(badRef)
	w.Vouch(badRef)
	rego := func(body string) string { return "package ward.run\n" + body + "\n" }
	doubled := `s0 := "xxxxxxxxxxxxxxxx"; `
	for i := range 26 { // 2^30 bytes
		doubled += fmt.Sprintf(`s%d := concat("", [s%d, s%d]); `, i+1, i, i)
	}
	pub, err := os.ReadFile(filepath.Join(w.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key := "    - key:\n        data: |\n          " + strings.ReplaceAll(strings.TrimSpace(string(pub)), "\n", "\n          ") + "\n"
	cip := func(notes, spec string) string {
		return "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: bad\n" + notes + "spec:\n  images:\n    - glob: \"**\"\n" + spec
	}
	window := func(edge string, d time.Duration) string {
		return cip(fmt.Sprintf("  annotations:\n    ward.dev/%s: authority-0=%s\n", edge, time.Now().Add(d).UTC().Format(time.RFC3339)), "  authorities:\n"+key)
	}
	for _, c := range []struct{ name, file, text, outcome, rule string }{
		{"rego calls itself", "policy.d/a.rego", rego("f(x) := f(x)\ndeny contains \"x\" if f(1)"), "invalid", "rego_recursion_error"},
		{"rego by way of others", "policy.d/a.rego", rego("a if b\nb if c\nc if a\ndeny contains \"x\" if a"), "invalid", "rego_recursion_error"},
		{"rego asks for its own decision", "policy.d/a.rego", rego("deny contains \"x\" if data.ward.run.decision.allow"), "invalid", "rego_recursion_error"},
		{"rego walks all data", "policy.d/a.rego", rego("deny contains \"x\" if { some p, v; walk(data, [p, v]) }"), "invalid", "rego_recursion_error"},
		{"exponential comprehension", "policy.d/a.rego", rego("n := numbers.range(1, 10000)\ndeny contains \"x\" if count([1 | some a in n; some b in n; some c in n; a + b == c]) < 0"), "indeterminate", `policy\.(cost|timeout)`},
		{"a gigabyte of text", "policy.d/a.rego", rego("deny contains s26 if { " + doubled + "true }"), "indeterminate", `policy\.(cost|timeout)`},
		{"a gigabyte of reasons", "policy.d/a.rego", rego("deny contains sprintf(\"%0999d\", [x]) if some x in numbers.range(1, 999999)"), "indeterminate", `policy\.(cost|timeout)`},
		{"many reasons", "policy.d/a.rego", rego("deny contains sprintf(\"%d\", [x]) if some x in numbers.range(1, 20000)"), "deny", `policy\.result`},
		{"rego of 100 MB", "policy.d/a.rego", "", "invalid", `policy\.size`},
		{"grants of 100 MB", "policy.d/grants.json", "", "invalid", `policy\.size`},
		{"grants of a megabyte", "policy.d/grants.json", `{"binds": [` + strings.TrimSuffix(strings.Repeat(`"/srv/some/directory/or/other",`, 30_000), ",") + `]}`, "allow", ""},
		{"grants twice", "policy.d/grants.json", `{"networks": [], "networks": ["host"]}`, "invalid", "twice"},
		{"grants twice, escaped", "policy.d/grants.json", `{"networks": [], "n\u0065tworks": ["host"]}`, "invalid", "twice"},
		{"grants unknown", "policy.d/grants.json", `{"network": ["host"]}`, "invalid", `policy\.grants`},
		{"grants nested", "policy.d/grants.json", `{"binds": ` + strings.Repeat("[", 400_000), "invalid", `policy\.(grants|data)`},
		{"data aliases", "policy.d/a.yaml", bomb(""), "invalid", `policy\.data`},
		{"data nested", "policy.d/a.yaml", "a: " + strings.Repeat("[", 400_000), "invalid", `policy\.data`},
		{"trust without authorities", "trust.d/bad.yaml", cip("", "  authorities: []\n"), "invalid", `authorities is empty`},
		{"trust without images", "trust.d/bad.yaml", strings.Replace(cip("", "  authorities:\n"+key), "  images:\n    - glob: \"**\"\n", "  images: []\n", 1), "invalid", `images is empty`},
		{"trust without a key", "trust.d/bad.yaml", cip("", "  authorities:\n    - key: {data: \"\"}\n"), "invalid", `trust\.policy`},
		{"trust in an unknown field", "trust.d/bad.yaml", cip("", "  authorites:\n"+key), "invalid", `unknown field .{0,4}authorites`},
		{"trust written twice", "trust.d/bad.yaml", cip("", "  mode: warn\n  mode: enforce\n  authorities:\n"+key), "invalid", `bad\.yaml:\d+: .*mode`},
		{"trust of 100 MB", "trust.d/bad.yaml", "", "invalid", `larger than`},
		{"trust by aliases", "trust.d/bad.yaml", bomb(""), "invalid", `trust\.policy`},
		{"trust nested", "trust.d/bad.yaml", cip("", "  authorities: "+strings.Repeat("[", 120_000)), "invalid", `trust\.policy`},
		{"an empty trust file", "trust.d/bad.yaml", "", "invalid", `trust\.policy`},
		{"a key that counts from tomorrow", "trust.d/bad.yaml", window("not-before", 24*time.Hour), "deny", `trust\.key-window`},
		{"a key that counted until yesterday", "trust.d/bad.yaml", window("not-after", -24*time.Hour), "deny", `trust\.key-window`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(w.Root, "etc", c.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.name, "100 MB") {
				hundredMB(t, path)
			}
			answered(t, w, c.outcome, c.rule, "--offline", badRef)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		})
	}
	answered(t, w, "allow", "", "--offline", badRef)
	w.Must("audit", "verify")
}

// TestBadCertificates signs with certificates that are almost right.
func TestBadCertificates(t *testing.T) {
	const mail = "ci@example.com"
	now := time.Now()
	for name, c := range map[string]struct {
		s    sigstore.Signing
		rule string
	}{
		"as it should be":            {sigstore.Signing{Subject: mail}, ""},
		"a NUL in the name":          {sigstore.Signing{Subject: mail + "\x00.evil.example"}, `trust\.identity`},
		"a NUL before the name":      {sigstore.Signing{Subject: "evil\x00" + mail}, `trust\.identity`},
		"a mail of another":          {sigstore.Signing{Subject: mail + ".evil.example"}, `trust\.identity`},
		"an issuer that looks alike": {sigstore.Signing{Issuer: strings.Replace(sigstore.Issuer, "github", "g\u0456thub", 1)}, `trust\.identity`},
		"a host that looks alike":    {sigstore.Signing{Subject: strings.Replace(sigstore.Subject, "github.com", "xn--gthub-n4a.com", 1)}, `trust\.identity`},
		"a longer issuer":            {sigstore.Signing{Issuer: sigstore.Issuer + ".evil.example"}, `trust\.identity`},
		"not yet valid":              {sigstore.Signing{NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour), NoStamp: true}, `trust\.`},
		"no longer valid":            {sigstore.Signing{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour), NoStamp: true}, `trust\.`},
		"logged in the future":       {sigstore.Signing{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour), LoggedAt: now.Add(24 * time.Hour), NoStamp: true}, `trust\.(clock|time)`},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := keylessWardBy(t, verify.KindBundle, true, c.s)
			if strings.Contains(c.s.Subject, mail) {
				file := filepath.Join(w.Root, "etc/trust.d/ci.yaml")
				b, err := os.ReadFile(file)
				if err == nil {
					err = os.WriteFile(file, bytes.Replace(b, []byte(sigstore.Subject), []byte(mail), 1), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if c.rule == "" {
				answered(t, w, "allow", "", "--offline", keylessRef)
				return
			}
			answered(t, w, "deny", c.rule, "--offline", keylessRef)
		})
	}
}

// TestBadManifestFiles is compose and Kubernetes files that no pipeline means.
func TestBadManifestFiles(t *testing.T) {
	w := lab.New(t)
	w.Busybox(badRef)
	w.Vouch(badRef)
	service := "services:\n  a:\n    image: " + badRef + "\n"
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, image: \"" + badRef + "\"}\n"
	for name, text := range map[string]string{
		"compose nested":      "services: " + strings.Repeat("[", 400_000),
		"compose nested maps": "services:\n" + nested(5000),
		"compose aliases":     bomb("") + service + "    environment: *a8\n",
		"compose alias loop":  "services:\n  a: &a\n    image: " + badRef + "\n    labels: *a\n",
		"compose merge loop":  "services:\n  a: &a\n    image: " + badRef + "\n    <<: *a\n",
		"compose twice":       service + "    image: other\n",
		"compose services x2": service + service,
		"compose extends":     "services:\n  a: {extends: {service: b}}\n  b: {extends: {service: a}}\n",
		"compose variables":   "services:\n  a:\n    image: " + strings.Repeat("${A:-", 4000) + badRef + strings.Repeat("}", 4000) + "\n",
		"compose of a NUL":    service + "\x00",
		"pod nested":          pod + "  volumes: " + strings.Repeat("[", 400_000),
		"pod aliases":         bomb("") + pod,
		"pod twice":           pod + "  containers: []\n",
		"list in a list":      strings.Repeat("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[", 200) + strings.Repeat("]}", 200),
		"documents":           strings.Repeat("---\n"+pod, 2000),
		"nothing":             "",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(w.Dir, "bad.yaml")
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if code, out := gated(t, w, "--offline", "-f", file); code == 0 || code == 3 || !strings.Contains(out, "rule:") && !strings.Contains(out, "deny") {
				t.Errorf("exit %d\n%.2000s", code, out)
			}
		})
	}
	t.Run("100 MB", func(t *testing.T) {
		file := filepath.Join(w.Dir, "bad.yaml")
		hundredMB(t, file)
		if code, out := gated(t, w, "--offline", "-f", file); code != 2 || !strings.Contains(out, "larger than") {
			t.Errorf("exit %d\n%.2000s", code, out)
		}
	})
	t.Run("many services", func(t *testing.T) {
		var b strings.Builder
		b.WriteString("services:\n")
		for i := range 500 {
			fmt.Fprintf(&b, "  s%d: {image: %s, network_mode: none}\n", i, badRef)
		}
		file := filepath.Join(w.Dir, "many.yaml")
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		before := w.Count(audit.GateDecision, "")
		code, _ := gated(t, w, "--offline", "-o", "json="+filepath.Join(w.Dir, "r.json"), "-f", file)
		if n := w.Count(audit.GateDecision, "") - before; code > 1 || n != 500 {
			t.Errorf("exit %d, %d answers", code, n)
		}
	})
	w.Must("audit", "verify")
}

// nested is a mapping of that depth.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i%900) + "a:\n")
	}
	return b.String()
}

// TestBadRegistry serves indexes that lead nowhere and more signatures than
// anybody needs.
func TestBadRegistry(t *testing.T) {
	w := lab.New(t)
	w.Busybox(badRef)
	w.Vouch(badRef)
	reg := w.Registry()
	put := func(path, mediaType, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+reg.Addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode/100 != 2 {
			t.Fatalf("PUT %s: %s", path, res.Status)
		}
		sum := sha256.Sum256([]byte(body))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	const index = "application/vnd.oci.image.index.v1+json"
	of := func(digest string, size int) string {
		return `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[{"mediaType":"` + index + `","digest":"` + digest + `","size":` + fmt.Sprint(size) +
			`,"platform":{"os":"linux","architecture":"amd64"}}]}`
	}
	// Every index holds the one before; none can hold itself, but for a digest
	// that is not its own.
	body := of("sha256:"+strings.Repeat("0", 64), 100)
	for range 50 {
		body = of(put("/v2/deep/app/manifests/inner", index, body), len(body))
	}
	put("/v2/deep/app/manifests/1", index, body)
	answered(t, w, "invalid", `image\.platform`, reg.Addr+"/deep/app:1")
	self := strings.Replace(of("sha256:"+strings.Repeat("0", 64), 100), index+`","digest`, `application/vnd.oci.image.manifest.v1+json","digest`, 1)
	put("/v2/self/app/manifests/1", index, self)
	answered(t, w, "invalid", `image\.`, reg.Addr+"/self/app:1")

	// 10,000 signatures in cosign's place for them.
	ref := reg.Addr + "/many/app:1"
	w.Must("tag", badRef, ref)
	w.Must("push", ref)
	digest := regexp.MustCompile(`sha256:([0-9a-f]{64})`).FindStringSubmatch(w.Must("images", "--no-trunc", "--digests"))
	if digest == nil {
		t.Fatal("no digest")
	}
	layer := `{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"` + digest[0] + `","size":300,"annotations":{"dev.cosignproject.cosign/signature":"AAAA"}}`
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		digest[0] + `","size":2},"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", 10_000), ",") + `]}`
	put("/v2/many/app/manifests/sha256-"+digest[1]+".sig", "application/vnd.oci.image.manifest.v1+json", manifest)
	w.Must("rmi", ref)
	out := answered(t, w, "invalid", `image\.(attachments|bounds)`, "--pull", "always", ref)
	if !strings.Contains(out, "registry") {
		t.Errorf("no remedy: %s", out)
	}
}
