package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ward-project/ward/tests/lab"
	"github.com/ward-project/ward/tests/sigstore"
)

const yesRego = "package signature\n\nallow { input.predicate.scanner.result.critical == 0 }\n"

// envelopes are the lines of standard output, which must all be envelopes, in
// one spelling: cosign orders the fields in one way for each form.
func envelopes(t *testing.T, r lab.Result) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	for i, l := range lines {
		var e struct {
			PayloadType string `json:"payloadType"`
			Payload     []byte `json:"payload"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || r.Code != 0 || e.PayloadType != "application/vnd.in-toto+json" || len(e.Signatures) != 1 {
			t.Fatalf("exit %d: %q %s", r.Code, r.Stdout, r.Stderr)
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(b)
	}
	return lines
}

// What cosign attests, ward verify-attestation accepts, in both forms, by key
// and by this host's policies, and prints what cosign prints.
func TestVerifyAttestation(t *testing.T) {
	for _, form := range []string{"envelope", "bundle"} {
		t.Run(form, func(t *testing.T) {
			w, c, ref := signingWard(t)
			w.Must("push", ref)
			more := []string{}
			if form == "bundle" {
				more = []string{"--new-bundle-format"}
			}
			c.Must(t, append([]string{"attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--type", "vuln", "--predicate", "p.json", ref}, more...)...)
			write(t, w, "text", "hello")
			c.Must(t, append([]string{"attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--predicate", "text", ref}, more...)...)
			theirs := c.Do(t, append([]string{"verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "empty-root.json", "--type", "vuln", ref}, more...)...)

			w.Must("pull", ref)
			ours := w.Do("verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--type", "vuln", ref)
			if a, b := envelopes(t, theirs), envelopes(t, ours); len(a) != 1 || len(b) != 1 || a[0] != b[0] {
				t.Errorf("cosign prints\n%s\nward prints\n%s", theirs.Stdout, ours.Stdout)
			}
			for _, line := range []string{"Verification for " + ref + " --", "  - The signatures were verified against the specified public key", "The cosign claims were validated"} {
				if !strings.Contains(ours.Stderr, line) || !strings.Contains(theirs.Stderr, line) {
					t.Errorf("%q is missing: ward says %s, cosign %s", line, ours.Stderr, theirs.Stderr)
				}
			}
			write(t, w, "yes.rego", yesRego)
			write(t, w, "no.rego", strings.Replace(yesRego, "==", ">", 1))
			envelopes(t, w.Do("verify-attestation", "--key", "cosign.pub", "--type", "vuln", "--policy", "yes.rego", ref))

			w.Must("key", "generate", "--out", w.Dir+"/other")
			for what, bad := range map[string][]string{
				"another key":    {"--key", "other/cosign.pub", "--type", "vuln"},
				"another type":   {"--key", "cosign.pub", "--type", "openvex"},
				"a policy":       {"--key", "cosign.pub", "--type", "vuln", "--policy", "no.rego"},
				"no host policy": {"--type", "vuln"},
			} {
				if r := w.Do(append(append([]string{"verify-attestation"}, bad...), ref)...); r.Code != 1 || r.Stdout != "" {
					t.Errorf("%s: exit %d, %s%s", what, r.Code, r.Stdout, r.Stderr)
				}
			}
			w.Must("trust", "add", "--key", "cosign.pub", "**")
			if r := w.Do("verify-attestation", "--type", "vuln", "-o", "json", ref); len(envelopes(t, r)) != 1 || !strings.Contains(r.Stderr, "trust policies of this host") {
				t.Error(r.Stderr)
			}
			envelopes(t, w.Do("verify-attestation", ref)) // custom
		})
	}
}

// A certificate's names, given as flags, judge as a trust policy would.
func TestVerifyByCertificateFlags(t *testing.T) {
	for _, format := range []string{"cosign", "bundle"} {
		w, _ := keylessWard(t, format, true)
		who := []string{"--certificate-identity", sigstore.Subject, "--certificate-oidc-issuer", sigstore.Issuer}
		if r := w.Do(append(append([]string{"verify"}, who...), keylessRef)...); r.Code != 0 || !strings.Contains(r.Stdout, sigstore.Subject) {
			t.Errorf("%s: exit %d %s", format, r.Code, r.Stderr)
		}
		w.Must(append(append([]string{"verify", "--use-signed-timestamps", "--trusted-root", "root.json"}, who...), keylessRef)...)
		w.Must("verify", "--certificate-identity-regexp", "https://github\\.com/team/.*", "--certificate-oidc-issuer-regexp", ".*actions.*", keylessRef)
		for what, bad := range map[string][]string{
			"another identity": {"--certificate-identity", "somebody@example.test", "--certificate-oidc-issuer", sigstore.Issuer},
			"another issuer":   {"--certificate-identity", sigstore.Subject, "--certificate-oidc-issuer", "https://example.test"},
			"part of a name":   {"--certificate-identity-regexp", "github", "--certificate-oidc-issuer", sigstore.Issuer},
		} {
			if r := w.Do(append(append([]string{"verify"}, bad...), keylessRef)...); r.Code != 1 || r.Stdout != "" {
				t.Errorf("%s: %s: exit %d %s%s", format, what, r.Code, r.Stdout, r.Stderr)
			}
		}
		for what, bad := range map[string][]string{
			"no issuer":        {"--certificate-identity", sigstore.Subject},
			"two ways":         append([]string{"--key", "root.json"}, who...),
			"a weaker policy":  {"--insecure-ignore-tlog"},
			"everybody's name": {"--certificate-identity-regexp", ".*", "--certificate-oidc-issuer", sigstore.Issuer},
		} {
			if r := w.Do(append(append([]string{"verify"}, bad...), keylessRef)...); r.Code != 2 || r.Stdout != "" {
				t.Errorf("%s: %s: exit %d %s%s", format, what, r.Code, r.Stdout, r.Stderr)
			}
		}
	}
}
