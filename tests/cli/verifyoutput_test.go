package cli

import (
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/tests/lab"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// alike runs both commands, which must say the same byte for byte.
func alike(t *testing.T, w *lab.Ward, c lab.Cosign, theirs, ours []string) string {
	t.Helper()
	a := c.Must(t, append([]string{"verify"}, theirs...)...)
	b := w.Do(append([]string{"verify"}, ours...)...)
	if b.Code != 0 || a != b.Stdout {
		t.Errorf("cosign prints\n%s\nward prints (exit %d)\n%s%s", a, b.Code, b.Stdout, b.Stderr)
	}
	if !strings.Contains(b.Stderr, "  - The cosign claims were validated") {
		t.Error(b.Stderr)
	}
	return b.Stdout
}

// What scripts read of cosign verify, they read of ward verify: by key, in
// both formats, one signature and several.
func TestVerifyPrintsAsCosign(t *testing.T) {
	for _, form := range []string{verify.KindCosign, verify.KindBundle} {
		t.Run(form, func(t *testing.T) {
			w, c, ref := signingWard(t)
			w.Must("push", ref)
			var more []string
			if form == verify.KindBundle {
				more = []string{"--new-bundle-format"}
			}
			sign := func(args ...string) {
				t.Helper()
				c.Must(t, join([]string{"sign", "--key", "cosign.key", "--tlog-upload=false", "-y"}, args, more, []string{ref})...)
			}
			sign("-a", "env=prod,team=<x>")
			theirs := join([]string{"--key", "cosign.pub", "--insecure-ignore-tlog", "--trusted-root", "empty-root.json"}, more)
			ours := []string{"--key", "cosign.pub", "--insecure-ignore-tlog", "-o", "json"}
			w.Must("pull", ref)
			alike(t, w, c, append(theirs, ref), append(ours, ref))
			if form == verify.KindBundle { // cosign takes any annotation there
				if r := w.Do(append(ours, "-a", "env=prod", ref)...); r.Code == 0 || r.Stdout != "" {
					t.Errorf("exit %d %s", r.Code, r.Stdout)
				}
				return
			}
			sign("-a", "env=dev")
			w.Must("pull", ref)
			if out := alike(t, w, c, append(theirs, ref), append(ours, ref)); strings.Count(out, `"critical"`) != 2 {
				t.Errorf("not both: %s", out)
			}
			for ask, want := range map[string]int{"env=prod": 1, "env=prod,team=<x>": 1, "env=dev,team=<x>": 0, "env=": 0, "nobody=1": 0} {
				if want > 0 {
					alike(t, w, c, append(theirs, "-a", ask, ref), append(ours, "-a", ask, ref))
					continue
				}
				a, b := c.Do(t, join([]string{"verify"}, theirs, []string{"-a", ask, ref})...), w.Do(join([]string{"verify"}, ours, []string{"-a", ask, ref})...)
				if a.Code == 0 || b.Code != 1 || b.Stdout != "" || !strings.Contains(b.Stderr, "trust.annotation") {
					t.Errorf("%s: cosign exits %d, ward %d %s%s", ask, a.Code, b.Code, b.Stdout, b.Stderr)
				}
			}
			for _, bad := range [][]string{{"-a", "env"}, {"-a", "=x"}, {"-a", "env=a", "-a", "env=b"}} {
				if r := w.Do(join([]string{"verify"}, ours, bad, []string{ref})...); r.Code != 2 || r.Stdout != "" {
					t.Errorf("%v: exit %d %s", bad, r.Code, r.Stdout)
				}
			}
			// ward's own signature, with several annotations in one flag.
			w.Must("sign", "--key", "cosign.key", "-a", "by=ward,env=test", "--upload", ref)
			alike(t, w, c, append(theirs, "-a", "env=test", "-a", "by=ward", ref), append(ours, "-a", "env=test", "-a", "by=ward", ref))

			// What a terminal would obey is written as an escape.
			w.Must("sign", "--key", "cosign.key", "-a", "x=\u009b31m\x7f", ref)
			if out := w.Must("verify", "--key", "cosign.pub", "-o", "json", "-a", "x=\u009b31m\x7f", ref); !strings.Contains(out, `"x":"\u009b31m\u007f"`) {
				t.Errorf("%q", out)
			}

			var ev struct{ Signers []verify.Signer }
			if err := json.Unmarshal([]byte(w.Must("verify", "--key", "cosign.pub", "-o", "evidence", ref)), &ev); err != nil || len(ev.Signers) != 1 {
				t.Errorf("%v %+v", err, ev)
			}
		})
	}
}

// The same by a certificate's names.
func TestVerifyPrintsCertificates(t *testing.T) {
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		t.Run(format, func(t *testing.T) {
			// As public authorities still write them: the only ones that cosign prints.
			w, _ := keylessWardBy(t, format, true, sigstore.Signing{Extensions: map[int]string{
				1: sigstore.Issuer, 2: "push", 3: strings.Repeat("ab", 20), 4: "release", 5: "team/app", 6: "refs/heads/main"}})
			c := lab.NewCosign(t, w.Dir)
			h, err := registry.New(filepath.Join(w.Dir, "registry"))
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(h)
			t.Cleanup(srv.Close)
			ref := srv.Listener.Addr().String() + "/team/app:1"
			w.Must("tag", keylessRef, ref)
			w.Must("push", ref)
			args := []string{"--certificate-identity", sigstore.Subject, "--certificate-oidc-issuer", sigstore.Issuer, "--trusted-root", "root.json", "--use-signed-timestamps"}
			theirs := append(args, "--offline")
			if format == verify.KindBundle {
				theirs = append(theirs, "--new-bundle-format")
			}
			out := alike(t, w, c, append(theirs, ref), append(args, "-o", "json", ref))
			if format == verify.KindCosign && (!strings.Contains(out, `"Subject":"`+sigstore.Subject) || !strings.Contains(out, `"Bundle":{`) ||
				!strings.Contains(out, `"githubWorkflowRef":"refs/heads/main"`) || !strings.Contains(out, `"RFC3161Timestamp":{`)) {
				t.Error(out)
			}
		})
	}
}
