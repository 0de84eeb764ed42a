package verify

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/ward-project/ward/internal/fault"
)

// pluginName is what this test program calls itself when it is a key plugin.
const pluginName = "sigstore-kms-wardtest"

// plugin answers one call of sigstore's protocol with the key in a file.
func plugin() int {
	args, err := handler.GetPluginArgs(os.Args)
	if err == nil {
		var p fileKMS
		if p.SignerVerifier, err = openFileKMS(args); err == nil {
			_, err = handler.Dispatch(os.Stdout, os.Stdin, args, p)
		}
	}
	if err != nil {
		_ = handler.WriteErrorResponse(os.Stdout, err)
		return 1
	}
	return 0
}

func openFileKMS(args *common.PluginArgs) (signature.SignerVerifier, error) {
	b, err := os.ReadFile(args.InitOptions.KeyResourceID)
	if err != nil {
		return nil, err
	}
	return cosign.LoadPrivateKey(b, nil, nil)
}

// fileKMS has what the protocol asks for besides signing.
type fileKMS struct{ signature.SignerVerifier }

func (fileKMS) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, fmt.Errorf("not here")
}

func (fileKMS) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, fmt.Errorf("not here")
}

func (fileKMS) SupportedAlgorithms() []string { return []string{"ecdsa-p256"} }

func (fileKMS) DefaultAlgorithm() string { return "ecdsa-p256" }

// Whatever way a key is named, what it signs verifies.
func TestSignWithKeysOfEveryKind(t *testing.T) {
	key, pub, err := GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, pluginName)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WARD_TEST_KEY", string(text))
	pem, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := TrustAdd(dir, TrustRule{Glob: "**", KeyPEM: pem}); err != nil {
		t.Fatal(err)
	}
	v, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, format := range map[string]string{"env://WARD_TEST_KEY": KindCosign, "wardtest://" + key: KindBundle} {
		m, err := Sign(t.Context(), SignRequest{KeyPath: name, Reference: "ghcr.io/a", Digest: testDigest, Format: format})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ev, err := v.Verify(t.Context(), Subject{Reference: "ghcr.io/a", Digests: []string{testDigest}}, []Material{m})
		if err != nil || !ev.Verified() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, rule := range map[string]string{
		"env://WARD_TEST_NONE": "key.read", "nokms://x": "key.plugin", "awskms:///alias/x": "key.plugin", "../x://y": "key.read", "://": "key.read",
		"wardtest:///none": "key.read", "env://PATH": "key.read",
	} {
		_, err := Sign(t.Context(), SignRequest{KeyPath: name, Reference: "ghcr.io/a", Digest: testDigest, Format: KindCosign})
		if f := fault.As(err); f.Rule != rule || f.Remedy == "" || strings.Contains(f.Cause, string(text)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
