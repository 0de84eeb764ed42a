package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

const (
	imageRef    = "registry.example.com/team/app:1"
	imageDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	indexDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	otherDigest = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// keyPair is a signing key held in memory: what a key file holds, without the
// tenth of a second that deriving it from a password takes.
type keyPair struct {
	pem    []byte
	signer signature.Signer
}

func newKey(t testing.TB) keyPair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{pem, s}
}

// sign makes what Sign makes; TestSignAndVerify holds that ours verifies.
func (k keyPair) sign(t testing.TB, format, digest string) verify.Material {
	t.Helper()
	if format == verify.KindBundle {
		return k.bundleOf(t, inToto, statementOf(digest))
	}
	return k.cosignOf(t, payloadOf(digest))
}

// keyFiles makes a key pair with GenerateKey.
func keyFiles(t testing.TB, password string) (private string, public []byte) {
	t.Helper()
	key, pub, err := verify.GenerateKey(t.TempDir(), []byte(password))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key, b
}

// trusting returns a verifier that trusts k for glob.
func trusting(t testing.TB, k keyPair, glob string) *verify.Verifier {
	t.Helper()
	dir := t.TempDir()
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Glob: glob, KeyPEM: k.pem}); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func open(t testing.TB, dir string) *verify.Verifier {
	t.Helper()
	v, err := verify.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func subject() verify.Subject {
	return verify.Subject{Reference: imageRef, Digests: []string{imageDigest, indexDigest}}
}

// refused checks that nothing was proved, and why.
func refused(t *testing.T, e verify.Evidence, err error, class fault.Class, rule string) *fault.Error {
	t.Helper()
	if e.Verified() || e.Digest() != "" {
		t.Errorf("evidence in spite of a refusal: %+v", e)
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("want a refusal %s, got %v", rule, err)
	}
	if f.Class != class || f.Rule != rule {
		t.Fatalf("want %v %s, got %v %s: %s", class, rule, f.Class, f.Rule, f.Cause)
	}
	return f
}

func TestZeroEvidenceIsUnverified(t *testing.T) {
	var e verify.Evidence
	if e.Verified() || e.Digest() != "" || e.Reference() != "" || len(e.Policies()) != 0 || len(e.Signers()) != 0 {
		t.Fatalf("%+v", e)
	}
	b, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(b), `"verified":false`) || !strings.Contains(string(b), `"signers":[]`) {
		t.Fatalf("%s %v", b, err)
	}
	if err := json.Unmarshal([]byte(`{"verified":true,"digest":"`+imageDigest+`","signers":[{"kind":"key"}]}`), &e); err == nil || e.Verified() {
		t.Fatalf("evidence was made from JSON: %+v %v", e, err)
	}
}

func TestSignAndVerify(t *testing.T) {
	private, pem := keyFiles(t, "secret")
	v := trusting(t, keyPair{pem: pem}, "registry.example.com/team/*")
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		for _, signed := range []string{imageDigest, indexDigest} {
			t.Run(format+" "+signed[7:8], func(t *testing.T) {
				m, err := verify.Sign(t.Context(), verify.SignRequest{KeyPath: private, Password: []byte("secret"),
					Reference: imageRef, Digest: signed, Format: format})
				if err != nil {
					t.Fatal(err)
				}
				e, err := v.Verify(t.Context(), subject(), []verify.Material{m})
				if err != nil {
					t.Fatal(err)
				}
				if !e.Verified() || e.Digest() != imageDigest || e.Reference() != imageRef || len(e.Policies()) != 1 {
					t.Fatalf("%+v", e)
				}
				s := e.Signers()
				if len(s) != 1 || s[0].Digest != signed || s[0].Format != format || s[0].Kind != "key" || len(s[0].KeyID) != 71 {
					t.Fatalf("%+v", s)
				}
				s[0].KeyID = "changed"
				if e.Signers()[0].KeyID == "changed" {
					t.Fatal("evidence can be changed through its accessor")
				}
			})
		}
	}
}

func TestNothingTrusted(t *testing.T) {
	k := newKey(t)
	m := []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}
	for name, v := range map[string]*verify.Verifier{
		"nil":         nil,
		"zero":        new(verify.Verifier),
		"missing":     open(t, filepath.Join(t.TempDir(), "none")),
		"empty":       open(t, t.TempDir()),
		"other image": trusting(t, k, "registry.example.com/other/*"),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := v.Verify(t.Context(), subject(), m)
			f := refused(t, e, err, fault.Unverified, "trust.no-policy")
			if !strings.Contains(f.Cause, imageDigest) || !strings.Contains(f.Remedy, "ward trust add --key PUB 'registry.example.com/team/app:*'") {
				t.Fatalf("cause %q remedy %q", f.Cause, f.Remedy)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		garbage := k.sign(t, format, imageDigest)
		garbage.Payload = []byte("{")
		for rule, m := range map[string][]verify.Material{
			"trust.unsigned":     {},
			"trust.wrong-key":    {stranger.sign(t, format, imageDigest)},
			"trust.wrong-digest": {stranger.sign(t, format, imageDigest), k.sign(t, format, otherDigest), garbage},
			"trust.malformed":    {garbage},
		} {
			t.Run(format+" "+rule, func(t *testing.T) {
				e, err := v.Verify(t.Context(), subject(), m)
				f := refused(t, e, err, fault.Unverified, rule)
				if !strings.Contains(f.Cause, imageDigest) || !strings.Contains(f.Remedy, "ward sign --key KEY "+imageRef) {
					t.Fatalf("cause %q remedy %q", f.Cause, f.Remedy)
				}
			})
		}
	}
}
