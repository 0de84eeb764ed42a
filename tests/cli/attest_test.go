package cli

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/tests/lab"
)

// signingWard has an image with a name in a registry of its own, and a key.
func signingWard(t *testing.T) (w *lab.Ward, c lab.Cosign, ref string) {
	t.Helper()
	w = lab.New(t)
	c = lab.NewCosign(t, w.Dir)
	h, err := registry.New(filepath.Join(w.Dir, "registry"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	ref = srv.Listener.Addr().String() + "/team/app:1"
	w.Busybox(ref)
	w.Must("key", "generate", "--out", w.Dir)
	write(t, w, "p.json", `{"scanner":{"uri":"pkg:scan","version":"1","db":{"uri":"","version":""},"result":{"critical":0}},`+
		`"invocation":{"parameters":null,"uri":"","event_id":"","builder.id":""},"metadata":{"scanStartedOn":"2026-01-02T03:04:05Z","scanFinishedOn":"2026-01-02T03:05:05Z"}}`)
	return w, c, ref
}

func write(t *testing.T, w *lab.Ward, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.Dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// lastImageEvent is the newest record of that type.
func lastImageEvent(t *testing.T, w *lab.Ward, typ audit.Type) (ev audit.ImageEvent) {
	t.Helper()
	all := w.Records()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Type == typ {
			if err := json.Unmarshal(all[i].Data, &ev); err != nil {
				t.Fatal(err)
			}
			return ev
		}
	}
	t.Fatalf("no record %s", typ)
	return ev
}

// What ward attests, cosign's command accepts: both forms, by type and by
// policy; and it is on record who stated what.
func TestAttest(t *testing.T) {
	w, c, ref := signingWard(t)
	write(t, w, "yes.rego", "package signature\n\nimport rego.v1\n\nallow if input.predicate.scanner.result.critical == 0\n")
	write(t, w, "no.rego", "package signature\n\nimport rego.v1\n\nallow if input.predicate.scanner.result.critical > 0\n")
	for _, form := range []string{"envelope", "bundle"} {
		args := []string{"attest", "--key", "cosign.key", "--type", "vuln", "--predicate", "p.json", "--yes", "--upload", ref}
		verify := []string{"verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "empty-root.json"}
		if form == "bundle" {
			args, verify = append(args, "--new-bundle-format"), append(verify, "--new-bundle-format")
		}
		w.Must(args...)
		if out := c.Must(t, append(verify, "--type", "vuln", "--policy", "yes.rego", ref)...); !strings.Contains(out, `"payloadType":"application/vnd.in-toto+json"`) {
			t.Errorf("%s: %s", form, out)
		}
		for _, bad := range [][]string{{"--type", "vuln", "--policy", "no.rego"}, {"--type", "openvex"}} {
			if r := c.Do(t, append(append(verify, bad...), ref)...); r.Code == 0 {
				t.Errorf("%s: cosign accepts %v: %s", form, bad, r.Stdout)
			}
		}
		ev := lastImageEvent(t, w, audit.ImageAttest)
		if ev.Format != form || ev.PredicateType != "https://cosign.sigstore.dev/attestation/vuln/v1" || !strings.HasPrefix(ev.KeyID, "sha256:") ||
			!strings.HasPrefix(ev.Payload, "sha256:") || ev.Reference != ref {
			t.Errorf("%s: recorded %+v", form, ev)
		}
	}
}

// --replace takes others of the type away, here and in the registry, and
// leaves other types alone.
func TestAttestReplace(t *testing.T) {
	w, c, ref := signingWard(t)
	count := func(kind string) int {
		r := c.Do(t, "verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--type", kind, ref)
		if r.Code != 0 {
			return 0
		}
		return strings.Count(r.Stdout, `"payloadType"`)
	}
	for _, text := range []string{"one", "two"} {
		write(t, w, "t", text)
		w.Must("attest", "--key", "cosign.key", "--predicate", "t", "--upload", ref)
	}
	w.Must("attest", "--key", "cosign.key", "--type", "vuln", "--predicate", "p.json", "--upload", ref)
	if count("custom") != 2 || count("vuln") != 1 {
		t.Fatalf("%d custom, %d vuln", count("custom"), count("vuln"))
	}
	write(t, w, "t", "three")
	w.Must("attest", "--key", "cosign.key", "--predicate", "t", "--upload", "--replace", ref)
	if count("custom") != 1 || count("vuln") != 1 {
		t.Errorf("after --replace: %d custom, %d vuln", count("custom"), count("vuln"))
	}
	// What is here is what is there: pushing again brings none back.
	w.Must("push", ref)
	if count("custom") != 1 {
		t.Errorf("after push: %d custom", count("custom"))
	}
}

// A whole statement is signed as it is, if it is about the image.
func TestAttestStatement(t *testing.T) {
	w, c, ref := signingWard(t)
	var img struct{ Digest string }
	w.Must("sign", "--key", "cosign.key", ref)
	img.Digest = strings.TrimPrefix(lastImageEvent(t, w, audit.ImageSign).Digest, "sha256:")
	statement := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"` + img.Digest + `"}}],` +
		`"predicateType":"https://slsa.dev/verification_summary/v1","predicate":{"verificationResult":"PASSED"}}`
	write(t, w, "s.json", statement)
	w.Must("attest", "--key", "cosign.key", "--statement", "s.json", "--upload", ref)
	c.Must(t, "verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--type", "https://slsa.dev/verification_summary/v1", ref)

	for what, bad := range map[string]string{
		"another image":    strings.Replace(statement, img.Digest, strings.Repeat("0", 64), 1),
		"a signature":      strings.Replace(statement, "https://slsa.dev/verification_summary/v1", "https://sigstore.dev/cosign/sign/v1", 1),
		"an unknown field": strings.Replace(statement, `"_type"`, `"extra":1,"_type"`, 1),
		"equal keys":       strings.Replace(statement, `"predicate":{`, `"predicate":{"verificationResult":"FAILED",`, 1),
	} {
		write(t, w, "bad.json", bad)
		before := w.Count(audit.ImageAttest, "")
		if r := w.Do("attest", "--key", "cosign.key", "--statement", "bad.json", ref); r.Code == 0 || !strings.Contains(r.Stderr, "attest.statement") {
			t.Errorf("%s: exit %d %s", what, r.Code, r.Stderr)
		}
		if w.Count(audit.ImageAttest, "") != before {
			t.Errorf("%s: recorded as if it had been signed", what)
		}
	}
}
