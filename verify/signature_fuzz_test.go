package verify

import (
	"encoding/json"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// What is printed of a signature names the image and the name that were judged,
// whatever else is in the payload and beside it.
func FuzzSignaturePrinted(f *testing.F) {
	good := `{"critical":{"identity":{"docker-reference":"a/b"},"image":{"docker-manifest-digest":"` + testDigest + `"},"type":"cosign container image signature"},"optional":`
	f.Add(good+`null}`, "", `{"SignedEntryTimestamp":"YQ==","Payload":{"body":"e30=","integratedTime":1,"logIndex":9007199254740993,"logID":"a"}}`, `{"SignedRFC3161Timestamp":"YQ=="}`)
	f.Add(good+`{"Bundle":1,"Subject":{"a":[1e400]}}}`, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", `{"Payload":{"body":{}}}`, `null`)
	f.Add(good+`{"a":1},"Critical":{"image":{}},"OPTIONAL":{}}`, "", "[]", "0")
	ref := name.MustParseReference("registry.example.com/team/app:1")
	f.Fuzz(func(t *testing.T, said, cert, entry, stamp string) {
		signed, digest, err := simpleSigningClaim([]byte(said))
		if err != nil {
			return
		}
		m := Material{Payload: []byte(said), Annotations: map[string]string{
			static.CertificateAnnotationKey: cert, static.BundleAnnotationKey: entry, static.RFC3161TimestampAnnotationKey: stamp}}
		for _, kind := range []string{KindKey, KindKeyless} {
			for _, beside := range []bool{false, true} {
				w := &witness{Signer{Kind: kind, Format: KindCosign, Subject: "x"}, beside, beside}
				p, err := w.print(ref, m)
				if err != nil {
					if kind == KindKey && !beside {
						t.Fatalf("%q: %v", said, err)
					}
					continue
				}
				b, err := json.Marshal(Signature{p})
				if err != nil {
					t.Fatal(err)
				}
				var back payload.SimpleContainerImage
				if err := json.Unmarshal(b, &back); err != nil || back.Critical.Image.DockerManifestDigest != digest || back.Critical.Identity.DockerReference != signed {
					t.Fatalf("%q is printed as %s (%v)", said, b, err)
				}
			}
		}
	})
}
