package verify_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// pullStated reads the attestations of img as they lie in the registry.
func pullStated(t *testing.T, img name.Digest) []verify.Material {
	t.Helper()
	found := pull(t, img)
	i, err := remote.Image(img.Context().Tag(strings.Replace(img.DigestStr(), ":", "-", 1) + ".att"))
	if err != nil {
		return found
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
		found = append(found, verify.Material{Subject: img.DigestStr(), Kind: verify.KindEnvelope, MediaType: string(d.MediaType), Payload: b, Annotations: d.Annotations})
	}
	return found
}

// What the real cosign attests, in both of its formats and with every kind of
// predicate, is believed by its key and by no other.
func TestCosignAttestsWardVerifies(t *testing.T) {
	c := newCosignCLI(t)
	c.run(t, "generate-key-pair")
	stranger := newKey(t)
	for _, format := range statedFormats {
		t.Run(format, func(t *testing.T) {
			img := pushImage(t)
			types := map[string][2]string{
				"https://slsa.dev/provenance/v0.2":                {"slsaprovenance", "slsa02"},
				"https://slsa.dev/provenance/v1":                  {"slsaprovenance1", "slsa1"},
				"https://spdx.dev/Document":                       {"spdxjson", "spdx"},
				"https://cyclonedx.org/bom":                       {"cyclonedx", "cyclonedx"},
				"https://openvex.dev/ns":                          {"openvex", "openvex"},
				"https://cosign.sigstore.dev/attestation/vuln/v1": {"vuln", "vuln"},
				"https://cosign.sigstore.dev/attestation/v1":      {"custom", "openvex"},
				"https://example.com/review/v1":                   {"https://example.com/review/v1", "openvex"},
			}
			for _, what := range types {
				file, err := filepath.Abs(filepath.Join("..", "policy", "testdata", "attestations", what[1]+".json"))
				if err != nil {
					t.Fatal(err)
				}
				args := []string{"attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--type", what[0], "--predicate", file}
				if format == verify.KindBundle {
					args = append(args, "--new-bundle-format")
				}
				c.run(t, append(args, img.String())...)
			}
			found := pullStated(t, img)
			if len(found) != len(types) {
				t.Fatalf("cosign left %d", len(found))
			}
			as, err := c.trusting(t, "cosign.pub", img).VerifyAttestations(t.Context(), imageSubject(img), found, "")
			if err != nil || len(as) != len(types) {
				t.Fatalf("%d: %v", len(as), err)
			}
			for _, a := range as {
				what, ok := types[a.PredicateType]
				if !ok || a.Digest != img.DigestStr() || len(a.Signers) != 1 || a.Signers[0].Format != format {
					t.Errorf("%+v", a)
				}
				var got, want any
				b, err := os.ReadFile(filepath.Join("..", "policy", "testdata", "attestations", what[1]+".json"))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(b, &want); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(a.Predicate(), &got); err != nil {
					t.Fatal(err)
				}
				switch what[0] {
				case "custom": // cosign wraps the text
					if data, _ := got.(map[string]any)["Data"].(string); data != string(b) {
						t.Errorf("custom: %q", data)
					}
				case "spdxjson", "cyclonedx", "openvex": // the others it completes
					if !reflect.DeepEqual(got, want) {
						t.Errorf("%s is not what was attested: %s", what[0], a.Predicate())
					}
				}
			}
			_, err = trusting(t, stranger, img.Context().Name()+"*").VerifyAttestations(t.Context(), imageSubject(img), found, "")
			refused(t, verify.Evidence{}, err, fault.Unverified, "trust.wrong-key")
		})
	}
}

// Every kind of key that cosign signs with.
func TestCosignAttestsWithEveryKey(t *testing.T) {
	c := newCosignCLI(t)
	file := filepath.Join(c.dir, "predicate.json")
	if err := os.WriteFile(file, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, key := range signers(t) {
		private, public := c.importKey(t, key)
		for _, format := range statedFormats {
			t.Run(kind+" "+format, func(t *testing.T) {
				img := pushImage(t)
				args := []string{"attest", "--key", private, "--tlog-upload=false", "-y", "--type", "https://example.com/x", "--predicate", file}
				if format == verify.KindBundle {
					args = append(args, "--new-bundle-format")
				}
				c.run(t, append(args, img.String())...)
				as, err := c.trusting(t, public, img).VerifyAttestations(t.Context(), imageSubject(img), pullStated(t, img), "https://example.com/x")
				if err != nil || len(as) != 1 || string(as[0].Predicate()) != `{"a":1}` {
					t.Fatalf("%+v %v", as, err)
				}
			})
		}
	}
}
