package conformance

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/tests/lab"
)

// What the suite means where a case says nothing else.
const (
	beacon       = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
	beaconIssuer = "https://token.actions.githubusercontent.com"
)

// TestSigstoreConformance runs the bundle-verify cases of a checkout of
// sigstore/sigstore-conformance, whose directory stands in
// WARD_SIGSTORE_CONFORMANCE, through the suite's own client protocol. Cases
// without a trust root of their own need the public one, in
// WARD_SIGSTORE_ROOT. Every case is asked for the file and for its digest.
func TestSigstoreConformance(t *testing.T) {
	dir, public := os.Getenv("WARD_SIGSTORE_CONFORMANCE"), os.Getenv("WARD_SIGSTORE_ROOT")
	if dir == "" || public == "" {
		t.Skip("needs WARD_SIGSTORE_CONFORMANCE and WARD_SIGSTORE_ROOT")
	}
	cases, err := filepath.Glob(filepath.Join(dir, "test/assets/bundle-verify/*/bundle.sigstore.json"))
	if err != nil || len(cases) < 50 {
		t.Fatalf("%d cases: %v", len(cases), err)
	}
	client, err := filepath.Abs("sigstore-client")
	if err != nil {
		t.Fatal(err)
	}
	w := t.TempDir()
	for _, bundle := range cases {
		at := filepath.Dir(bundle)
		file := func(name, otherwise string) string {
			if _, err := os.Stat(filepath.Join(at, name)); err != nil {
				return otherwise
			}
			return filepath.Join(at, name)
		}
		text := func(name, otherwise string) string {
			b, err := os.ReadFile(filepath.Join(at, name))
			if err != nil {
				return otherwise
			}
			return strings.TrimSpace(string(b))
		}
		artifact := file("artifact", filepath.Join(filepath.Dir(at), "a.txt"))
		b, err := os.ReadFile(artifact)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		args := []string{"verify-bundle", "--bundle", bundle}
		if key := file("key.pub", ""); key != "" {
			args = append(args, "--key", key)
		} else {
			args = append(args, "--certificate-identity", text("identity", beacon), "--certificate-oidc-issuer", text("issuer", beaconIssuer))
		}
		args = append(args, "--trusted-root", file("trusted_root.json", public))
		for how, what := range map[string]string{"file": artifact, "digest": "sha256:" + hex.EncodeToString(sum[:])} {
			t.Run(filepath.Base(at)+"/"+how, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), client, append(args[:len(args):len(args)], what)...)
				cmd.Env = append(os.Environ(), "WARD="+filepath.Join(lab.Bin(), "ward"), "WARD_ROOT="+w)
				out, err := cmd.CombinedOutput()
				if refuse := strings.HasSuffix(filepath.Base(at), "_fail"); refuse != (err != nil) {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}
