package verify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// parseCosign reads a simple signing payload strictly. The digest in it is
// only a claim until the returned check has passed.
func parseCosign(m Material) (claim, error) {
	if m.MediaType != types.SimpleSigningMediaType {
		return claim{}, fmt.Errorf("media type %q is not cosign's %q", m.MediaType, types.SimpleSigningMediaType)
	}
	b64 := m.Annotations[static.SignatureAnnotationKey]
	if b64 == "" {
		return claim{}, fmt.Errorf("annotation %q is missing", static.SignatureAnnotationKey)
	}
	// The standard decoder skips line breaks and ignores stray bits at the
	// end, so one signature would have many spellings.
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || len(raw) == 0 || strings.ContainsAny(b64, "\r\n") {
		return claim{}, errors.New("signature is not base64")
	}
	signed, digest, err := simpleSigningClaim(m.Payload)
	if err != nil {
		return claim{}, err
	}
	return claim{
		format:    KindCosign,
		digests:   []string{digest},
		certified: m.Annotations[static.CertificateAnnotationKey] != "",
		name:      signed,
		byKey: func(ctx context.Context, k publicKey, digest string) error {
			return checkCosign(ctx, m.Payload, b64, k, digest)
		},
		entity: func() (sgverify.SignedEntity, error) { return parseAnnotated(m, raw) },
		// What is signed is the payload, and simpleSigningDigest has read the
		// digest out of it.
		artifact: func(d string) (sgverify.ArtifactPolicyOption, error) {
			if d != digest {
				return nil, errNotTheirs
			}
			return sgverify.WithArtifact(bytes.NewReader(m.Payload)), nil
		},
	}, nil
}

// simpleSigningClaim returns the name and the digest a payload is about. Only "optional" may
// hold what we do not know: "critical" means that a reader who does not
// understand a field must refuse.
func simpleSigningClaim(b []byte) (name, digest string, err error) {
	v, err := strictJSON(b)
	if err != nil {
		return "", "", fmt.Errorf("payload: %w", err)
	}
	top, ok := v.(map[string]any)
	if !ok {
		return "", "", errors.New("payload is not a JSON object")
	}
	critical, err := object(top, "critical")
	if err != nil {
		return "", "", fmt.Errorf("payload: %w", err)
	}
	image, err := object(critical, "image")
	if err != nil {
		return "", "", fmt.Errorf("payload: critical: %w", err)
	}
	identity, err := object(critical, "identity")
	if err != nil {
		return "", "", fmt.Errorf("payload: critical: %w", err)
	}
	kind, err := text(critical, "type")
	if err == nil && kind != payload.CosignSignatureType {
		err = fmt.Errorf("type is %q, not %q", kind, payload.CosignSignatureType)
	}
	if err == nil {
		name, err = text(identity, "docker-reference")
	}
	if err == nil {
		digest, err = text(image, "docker-manifest-digest")
	}
	if err == nil && !validDigest(digest) {
		err = fmt.Errorf("%q is not a sha256 digest", digest)
	}
	if err == nil {
		err = errors.Join(onlyKeys(top, "critical", "optional"), onlyKeys(critical, "identity", "image", "type"),
			onlyKeys(identity, "docker-reference"), onlyKeys(image, "docker-manifest-digest"))
	}
	if err == nil {
		// What cosign's own reader cannot take (an "optional" that is no object) is
		// refused whoever signed it: with a key cosign does, with a certificate not.
		err = json.Unmarshal(b, new(payload.SimpleContainerImage))
	}
	if err != nil {
		return "", "", fmt.Errorf("payload: %w", err)
	}
	return name, digest, nil
}

// checkCosign verifies the signature with one key and the claim in it against
// digest.
func checkCosign(ctx context.Context, body []byte, b64 string, k publicKey, digest string) error {
	h, err := v1.NewHash(digest)
	if err != nil {
		return err
	}
	// Annotations other than the signature are left out on purpose: a
	// certificate or log entry there is not signed by the key and must not
	// take part in its verification.
	sig, err := static.NewSignature(body, b64)
	if err != nil {
		return err
	}
	_, err = cosign.VerifyImageSignature(ctx, sig, h, &cosign.CheckOpts{
		SigVerifier:   k.verifier,
		ClaimVerifier: claimVerifier,
		// A key needs no log to say when it signed. With IgnoreTlog there is
		// no Rekor client to ask, and Offline makes any attempt an error.
		IgnoreTlog: true,
		Offline:    true,
		MaxWorkers: 1,
	})
	return err
}

// claimVerifier is cosign's own check of the claim, with the type it forgets.
func claimVerifier(sig oci.Signature, h v1.Hash, annotations map[string]any) error {
	b, err := sig.Payload()
	if err != nil {
		return err
	}
	if err := new(payload.Cosign).UnmarshalJSON(b); err != nil {
		return err
	}
	return cosign.SimpleClaimVerifier(sig, h, annotations)
}

// newSimpleSigning writes the payload cosign would for this image.
func newSimpleSigning(repository, digest string, annotations map[string]string) ([]byte, error) {
	p := payload.SimpleContainerImage{
		Critical: payload.Critical{
			Identity: payload.Identity{DockerReference: repository},
			Image:    payload.Image{DockerManifestDigest: digest},
			Type:     payload.CosignSignatureType,
		},
	}
	if len(annotations) > 0 {
		p.Optional = map[string]any{}
		for k, v := range annotations {
			p.Optional[k] = v
		}
	}
	return json.Marshal(p)
}
