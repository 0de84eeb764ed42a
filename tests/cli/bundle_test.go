package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/rogpeppe/go-internal/testscript"
)

// bundle FILE DIR REVISION: what "opa build --bundle DIR --signing-key KEY
// --revision REVISION --output FILE" makes, by the code behind it. The key is
// the script's own, in key.pem and key.pub.
func (s *script) bundle(ts *testscript.TestScript, _ bool, args []string) {
	dir := s.ward.Dir
	private, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		b, err := x509.MarshalPKCS8PrivateKey(key)
		ts.Check(err)
		private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
		ts.Check(os.WriteFile(filepath.Join(dir, "key.pem"), private, 0o600))
		b, err = x509.MarshalPKIXPublicKey(key.Public())
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("key.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}), 0o600))
	}
	var out bytes.Buffer
	c := compile.New().WithAsBundle(true).WithPaths(ts.MkAbs(args[1])).WithRevision(args[2]).WithOutput(&out).
		WithBundleSigningConfig(opabundle.NewSigningConfig(string(private), "ES256", "")).WithBundleVerificationKeyID("default")
	ts.Check(c.Build(context.Background()))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o644))
}
