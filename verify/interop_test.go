package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// cosignCLI is the real cosign, as other people run it.
type cosignCLI struct {
	path, dir string
}

func newCosignCLI(t *testing.T) cosignCLI {
	t.Helper()
	path := os.Getenv("WARD_COSIGN")
	if path == "" {
		path = filepath.Join("..", "bin", "tools", "cosign")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs the real cosign: %v", err)
		}
		t.Skipf("needs the real cosign (make bin/tools/cosign, or WARD_COSIGN): %v", err)
	}
	c := cosignCLI{path, t.TempDir()}
	// cosign wants a trusted root for bundles even where a key is all it
	// needs; without this file it would ask the public one over the network.
	root := `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	if err := os.WriteFile(filepath.Join(c.dir, "root.json"), []byte(root), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// try runs cosign in its own directory. Any way out but loopback is closed.
func (c cosignCLI) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + c.dir, "COSIGN_PASSWORD=secret",
		"HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1"}
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func (c cosignCLI) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := c.try(t, args...); err != nil {
		t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (c cosignCLI) sign(t *testing.T, key, format string, img name.Digest, more ...string) {
	t.Helper()
	args := append([]string{"sign", "--key", key, "--tlog-upload=false", "-y"}, more...)
	if format == verify.KindBundle {
		args = append(args, "--new-bundle-format")
	}
	c.run(t, append(args, img.String())...)
}

// verifies says whether cosign accepts img by key, in the given format only.
func (c cosignCLI) verifies(t *testing.T, key, format string, img name.Digest, more ...string) bool {
	t.Helper()
	args := append([]string{"verify", "--key", key, "--insecure-ignore-tlog", "--trusted-root", "root.json"}, more...)
	if format == verify.KindBundle {
		args = append(args, "--new-bundle-format")
	}
	out, err := c.try(t, append(args, img.String())...)
	if err != nil {
		t.Logf("cosign: %v: %s", err, out)
	}
	return err == nil
}

// pushImage puts a random image into a registry of its own.
func pushImage(t *testing.T) name.Digest {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(s.Listener.Addr().String() + "/team/app@" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref.Context().Tag("1"), img); err != nil {
		t.Fatal(err)
	}
	return ref
}

// pull reads the signatures of img as they lie in the registry.
func pull(t *testing.T, img name.Digest) []verify.Material {
	t.Helper()
	var found []verify.Material
	add := func(kind string, ref name.Reference) {
		i, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		m, err := i.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Layers {
			l, err := i.LayerByDigest(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, verify.Material{Subject: img.DigestStr(), Kind: kind, MediaType: string(d.MediaType), Payload: b, Annotations: d.Annotations})
		}
	}
	tag := img.Context().Tag(sigTag(img))
	if _, err := remote.Head(tag); err == nil {
		add(verify.KindCosign, tag)
	}
	index, err := remote.Referrers(img)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		add(verify.KindBundle, img.Context().Digest(d.Digest.String()))
	}
	return found
}

func sigTag(img name.Digest) string {
	return strings.Replace(img.DigestStr(), ":", "-", 1) + ".sig"
}

// push puts a signature of ours where cosign looks for it.
func push(t *testing.T, img name.Digest, m verify.Material) {
	t.Helper()
	if m.Kind == verify.KindBundle {
		if err := ociremote.WriteAttestationNewBundleFormat(img, m.Payload, m.Annotations["dev.sigstore.bundle.predicateType"]); err != nil {
			t.Fatal(err)
		}
		return
	}
	sig, err := mutate.Append(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1),
		mutate.Addendum{Layer: static.NewLayer(m.Payload, types.MediaType(m.MediaType)), Annotations: m.Annotations})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(img.Context().Tag(sigTag(img)), sig); err != nil {
		t.Fatal(err)
	}
}

// importKey gives cosign a key of any kind and returns the names of its files.
func (c cosignCLI) importKey(t *testing.T, k crypto.Signer) (private, public string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(c.dir, "raw.pem")
	if err := os.WriteFile(raw, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "import-key-pair", "--key", raw, "--output-key-prefix", "imported", "-y")
	return "imported.key", "imported.pub"
}

func (c cosignCLI) trusting(t *testing.T, pub string, img name.Digest) *verify.Verifier {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, pub))
	if err != nil {
		t.Fatal(err)
	}
	return trusting(t, keyPair{pem: b}, img.Context().Name()+"*")
}

func imageSubject(img name.Digest) verify.Subject {
	return verify.Subject{Reference: img.String(), Digests: []string{img.DigestStr()}}
}

func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"p256": p256, "p384": p384, "rsa2048": rsa2048, "ed25519": ed}
}

func TestCosignSignsWardVerifies(t *testing.T) {
	c := newCosignCLI(t)
	stranger := newKey(t)
	for kind, key := range signers(t) {
		private, public := c.importKey(t, key)
		for _, format := range []string{verify.KindCosign, verify.KindBundle} {
			t.Run(kind+" "+format, func(t *testing.T) {
				img := pushImage(t)
				c.sign(t, private, format, img)
				found := pull(t, img)
				if len(found) != 1 || found[0].Kind != format {
					t.Fatalf("cosign left %+v", found)
				}
				e, err := c.trusting(t, public, img).Verify(t.Context(), imageSubject(img), found)
				if err != nil || !e.Verified() || e.Digest() != img.DigestStr() || e.Signers()[0].Format != format {
					t.Fatalf("%+v %v", e, err)
				}
				e, err = trusting(t, stranger, img.Context().Name()+"*").Verify(t.Context(), imageSubject(img), found)
				refused(t, e, err, fault.Unverified, "trust.wrong-key")
			})
		}
	}
}

func TestWardSignsCosignVerifies(t *testing.T) {
	c := newCosignCLI(t)
	key, pub, err := verify.GenerateKey(t.TempDir(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	c.run(t, "generate-key-pair")
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		t.Run(format, func(t *testing.T) {
			img, unsigned := pushImage(t), pushImage(t)
			r := verify.SignRequest{KeyPath: key, Password: []byte("secret"), Reference: img.String(), Digest: img.DigestStr(), Format: format}
			if format == verify.KindCosign {
				r.Annotations = map[string]string{"build": "7"}
			}
			m, err := verify.Sign(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			push(t, img, m)
			if back := pull(t, img); len(back) != 1 || !bytes.Equal(back[0].Payload, m.Payload) {
				t.Fatalf("%+v", back)
			}
			if !c.verifies(t, pub, format, img) {
				t.Error("cosign refuses what ward signed")
			}
			if format == verify.KindCosign && (!c.verifies(t, pub, format, img, "-a", "build=7") || c.verifies(t, pub, format, img, "-a", "build=8")) {
				t.Error("cosign reads our annotations differently")
			}
			// The control: the same command refuses another key and another image.
			if c.verifies(t, "cosign.pub", format, img) || c.verifies(t, pub, format, unsigned) {
				t.Error("cosign accepts anything")
			}
		})
	}
}

func TestKeysAreInterchangeable(t *testing.T) {
	c := newCosignCLI(t)
	c.run(t, "generate-key-pair")
	ours, ourPub, err := verify.GenerateKey(t.TempDir(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		img := pushImage(t)
		c.sign(t, ours, format, img)
		b, err := os.ReadFile(ourPub)
		if err != nil {
			t.Fatal(err)
		}
		v := trusting(t, keyPair{pem: b}, img.Context().Name()+"*")
		if e, err := v.Verify(t.Context(), imageSubject(img), pull(t, img)); err != nil || !e.Verified() {
			t.Errorf("%s: cosign with our key: %v", format, err)
		}

		img = pushImage(t)
		r := verify.SignRequest{KeyPath: filepath.Join(c.dir, "cosign.key"), Password: []byte("secret"),
			Reference: img.String(), Digest: img.DigestStr(), Format: format}
		m, err := verify.Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := c.trusting(t, "cosign.pub", img).Verify(t.Context(), imageSubject(img), []verify.Material{m}); err != nil || !e.Verified() {
			t.Errorf("%s: ward with cosign's key: %v", format, err)
		}
		push(t, img, m)
		if !c.verifies(t, "cosign.pub", format, img) {
			t.Errorf("%s: cosign refuses what ward signed with its key", format)
		}
		r.Password = []byte("wrong")
		if _, err := verify.Sign(t.Context(), r); fault.ClassOf(err) != fault.Invalid {
			t.Errorf("a wrong password: %v", err)
		}
	}
}

// cosign 2.6 verify takes any statement by the key for a signature, also one
// that says the image is bad. ward must not.
func TestAttestationIsNotASignature(t *testing.T) {
	c := newCosignCLI(t)
	c.run(t, "generate-key-pair")
	img := pushImage(t)
	predicate := filepath.Join(c.dir, "predicate.json")
	if err := os.WriteFile(predicate, []byte(`{"verdict":"bad"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--new-bundle-format", "--type", "custom", "--predicate", predicate, img.String())
	found := pull(t, img)
	if len(found) != 1 || !c.verifies(t, "cosign.pub", verify.KindBundle, img) {
		t.Fatalf("cosign has changed: %+v", found)
	}
	v := c.trusting(t, "cosign.pub", img)
	e, err := v.Verify(t.Context(), imageSubject(img), found)
	refused(t, e, err, fault.Unverified, "trust.unsigned")

	c.sign(t, "cosign.key", verify.KindBundle, img)
	if e, err := v.Verify(t.Context(), imageSubject(img), pull(t, img)); err != nil || !e.Verified() {
		t.Fatalf("signature beside an attestation: %v", err)
	}
}
