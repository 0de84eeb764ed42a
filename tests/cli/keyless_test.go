package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/tests/lab"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

const keylessRef = "registry.example.com/team/app:1"

// keylessWard has an image that a build signed with a certificate, in a
// format; the policy that names the build; and the trust root, if given.
func keylessWard(t *testing.T, format string, root bool) (*lab.Ward, *sigstore.Authority) {
	t.Helper()
	return keylessWardBy(t, format, root, asBuilt)
}

// asBuilt is what a build's signature is like.
var asBuilt = sigstore.Signing{Extensions: map[int]string{sigstore.ExtRef: "refs/heads/main", sigstore.ExtRunner: "github-hosted"}}

// keylessWardBy is keylessWard with a signature as it is told.
func keylessWardBy(t *testing.T, format string, root bool, s sigstore.Signing) (*lab.Ward, *sigstore.Authority) {
	t.Helper()
	w := lab.New(t)
	a := sigstore.New(t)
	w.Busybox(keylessRef)
	store, err := images.Open(images.Config{Dir: filepath.Join(w.Root, "lib/images")})
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Resolve(t.Context(), keylessRef)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Attach(t.Context(), images.Attachment(keylessMaterial(a, format, img.Digest, s))); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(w.Dir, "ci.yaml")
	content := "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: ci\nspec:\n  images:\n    - glob: registry.example.com/**\n" +
		"  authorities:\n    - keyless:\n        identities:\n          - issuer: " + sigstore.Issuer + "\n            subject: " + sigstore.Subject + "\n"
	for path, b := range map[string][]byte{policy: []byte(content), filepath.Join(w.Dir, "root.json"): a.Root()} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.Must("trust", "import", policy)
	if root {
		w.Must("trust", "root", "add", "default", filepath.Join(w.Dir, "root.json"))
	}
	return w, a
}

func keylessMaterial(a *sigstore.Authority, format, digest string, s sigstore.Signing) verify.Material {
	if format == verify.KindBundle {
		statement := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(digest, "sha256:") +
			`"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`
		return verify.Material{Subject: digest, Kind: format, MediaType: verify.BundleMediaType, Payload: a.Bundle([]byte(statement), s),
			Annotations: map[string]string{"dev.sigstore.bundle.content": "dsse-envelope"}}
	}
	payload := `{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":{"docker-manifest-digest":"` + digest +
		`"},"type":"cosign container image signature"},"optional":null}`
	return verify.Material{Subject: digest, Kind: format, MediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
		Payload: []byte(payload), Annotations: a.Annotations([]byte(payload), s)}
}

// alone prepares a command in a network namespace where nothing is up.
func alone(w *lab.Ward, args ...string) *exec.Cmd {
	cmd := w.Command()
	c := exec.Command("unshare", append([]string{"-n", cmd.Path}, args...)...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	return c
}

// sockets returns the sockets that a command asks the kernel for.
func sockets(t *testing.T, w *lab.Ward, args ...string) string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	file := filepath.Join(w.Dir, "trace")
	cmd := w.Command()
	c := exec.Command(strace, append([]string{"-f", "-qq", "-e", "trace=socket,socketpair,connect", "-e", "signal=none", "-o", file, cmd.Path}, args...)...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	if r := w.Finish(c); r.Code != 0 {
		t.Fatalf("under strace: %d %s", r.Code, r.Stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestKeylessRun goes through the whole gate with a certificate, in a network
// namespace that has no interface that is up: nothing is asked of anybody. The
// system calls of what starts nothing say so too.
func TestKeylessRun(t *testing.T) {
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		t.Run(format, func(t *testing.T) {
			w, _ := keylessWard(t, format, true)
			for _, args := range [][]string{
				{"run", "--rm", "--offline", keylessRef, "true"}, {"verify", "--offline", keylessRef}, {"gate", "--offline", keylessRef},
			} {
				r := w.Finish(alone(w, args...))
				if r.Code != 0 {
					t.Fatalf("%v: exit %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
				}
				if args[0] == "verify" && !strings.Contains(r.Stdout, sigstore.Subject+" by "+sigstore.Issuer) {
					t.Error(r.Stdout)
				}
				if args[0] == "run" {
					continue // its launcher and monitor talk over unix sockets
				}
				if out := sockets(t, w, args...); out != "" {
					t.Errorf("%v asks for a socket:\n%s", args, out)
				}
			}
			records, err := json.Marshal(w.Records())
			if err != nil || !strings.Contains(string(records), `"kind":"keyless"`) || !strings.Contains(string(records), sigstore.Subject) {
				t.Errorf("who signed is not on record: %v", err)
			}
		})
	}
	// An image that is not there is not fetched, and nobody is asked for it.
	w := lab.New(t)
	for _, args := range [][]string{{"run", "--offline", "registry.example.com/x:1"}, {"verify", "--offline", "registry.example.com/x:1"}} {
		if r := w.Finish(alone(w, args...)); r.Code == 0 || !strings.Contains(r.Stderr, "image.") {
			t.Errorf("%v: %d %s", args, r.Code, r.Stderr)
		}
	}
	if r := w.Do("run", "--offline", "--pull", "always", "registry.example.com/x:1"); r.Code != 125 || !strings.Contains(r.Stderr, "contradict") {
		t.Errorf("%d %s", r.Code, r.Stderr)
	}
}

// TestKeylessNeedsItsRoot: without a trust root the run is refused, on record,
// and none is looked for; with it back the same image runs.
func TestKeylessNeedsItsRoot(t *testing.T) {
	w, _ := keylessWard(t, verify.KindBundle, false)
	r := w.Finish(alone(w, "run", "--rm", keylessRef, "true"))
	if r.Code != 125 || !strings.Contains(r.Stderr, "trust.no-root") || !strings.Contains(r.Stderr, "ward trust root") {
		t.Fatalf("%d %s", r.Code, r.Stderr)
	}
	w.Must("trust", "root", "add", "default", filepath.Join(w.Dir, "root.json"))
	if out := w.Must("trust", "root", "list"); !strings.Contains(out, sigstore.RekorURL) {
		t.Error(out)
	}
	w.Must("run", "--rm", keylessRef, "true")
	if r := w.Do("trust", "root", "add", "default", filepath.Join(w.Dir, "root.json")); r.Code == 0 || !strings.Contains(r.Stderr, "trust.exists") {
		t.Error(r)
	}
	w.Must("trust", "root", "rm", "default")
	if r := w.Do("run", "--rm", keylessRef, "true"); r.Code != 125 || !strings.Contains(r.Stderr, "trust.no-root") {
		t.Fatalf("%d %s", r.Code, r.Stderr)
	}
	if r := w.Finish(alone(w, "trust", "root", "update")); r.Code == 0 || !strings.Contains(r.Stderr, "trust.update") {
		t.Fatalf("%d %s", r.Code, r.Stderr)
	}
}

// TestVerifyBlobCommand is the front door that a conformance suite drives.
func TestVerifyBlobCommand(t *testing.T) {
	w, a := lab.New(t), sigstore.New(t)
	artifact := []byte("an artifact\n")
	sum := sha256.Sum256(artifact)
	for name, b := range map[string][]byte{"a.txt": artifact, "b.txt": []byte("b"), "root.json": a.Root(), "bundle": a.Blob(artifact, sigstore.Signing{})} {
		if err := os.WriteFile(filepath.Join(w.Dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	who := []string{"verify-blob", "--bundle", "bundle", "--certificate-identity", sigstore.Subject, "--certificate-oidc-issuer", sigstore.Issuer}
	with := func(args ...string) []string { return append(slices.Clone(who), args...) }
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, with("--trusted-root", "root.json", "a.txt")},
		{0, with("--trusted-root", "root.json", "sha256:"+hex.EncodeToString(sum[:]))},
		{1, with("--trusted-root", "root.json", "b.txt")},
		{1, with("--trusted-root", "root.json", "sha256:"+strings.Repeat("0", 64))},
		{1, with("--trusted-root", "root.json", "sha256:short")},
		{1, with("a.txt")},
		{1, append([]string{"verify-blob", "--bundle", "bundle", "--trusted-root", "root.json", "--certificate-identity-regexp", "github.com",
			"--certificate-oidc-issuer-regexp", "https://.*"}, "a.txt")},
		{0, append([]string{"verify-blob", "--bundle", "bundle", "--trusted-root", "root.json", "--certificate-identity-regexp", "https://github.com/team/.*",
			"--certificate-oidc-issuer-regexp", "https://token[.].*"}, "a.txt")},
		{2, []string{"verify-blob", "--bundle", "bundle", "--trusted-root", "root.json", "a.txt"}},
		{2, with("--trusted-root", "missing", "a.txt")},
		{2, with("--trusted-root", "root.json", "missing")},
		{2, []string{"verify-blob", "a.txt"}},
	} {
		if r := w.Finish(alone(w, c.args...)); r.Code != c.code {
			t.Errorf("%v: exit %d, want %d\n%s", c.args, r.Code, c.code, r.Stderr)
		}
	}
	if out := sockets(t, w, with("--trusted-root", "root.json", "a.txt")...); out != "" {
		t.Error(out)
	}
	w.Must("trust", "root", "add", "default", "root.json")
	w.Must(with("a.txt")...)
}
