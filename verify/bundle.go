package verify

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// BundleMediaType is the only bundle version that is read or written.
const BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// signPredicate is the predicate type of a signature.
const signPredicate = types.CosignSignPredicateType

// bundlePredicateKey is where cosign repeats a bundle's predicate type.
const bundlePredicateKey = "dev.sigstore.bundle.predicateType"

// maxSubjects bounds the subjects of a statement; cosign writes one.
const maxSubjects = 64

// errNotSignature marks an attestation: true things said about an image are
// not somebody's word that it may run.
var errNotSignature = errors.New("not an image signature")

// parseBundle reads a bundle strictly. Its digests are only claims until the
// returned check has passed.
func parseBundle(m Material) (claim, error) {
	if m.MediaType != BundleMediaType {
		return claim{}, fmt.Errorf("media type %q is not %q", m.MediaType, BundleMediaType)
	}
	// protojson refuses unknown and duplicate fields but takes two spellings
	// of each; strictJSON has seen to equal keys and depth by then.
	if _, err := strictJSON(m.Payload); err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	b, envelope, err := openBundle(m.Payload)
	if err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	digests, err := statementDigests(envelope.GetPayload())
	if err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	return bundleClaim(b, digests), nil
}

// openBundle reads a bundle that holds a statement under one signature. The
// caller has seen to equal keys.
func openBundle(payload []byte) (*sgbundle.Bundle, *protodsse.Envelope, error) {
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(payload); err != nil {
		return nil, nil, err
	}
	if b.MediaType != BundleMediaType {
		return nil, nil, fmt.Errorf("mediaType %q is not %q", b.MediaType, BundleMediaType)
	}
	content, ok := b.Content.(*protobundle.Bundle_DsseEnvelope)
	if !ok || content.DsseEnvelope == nil {
		return nil, nil, errors.New("holds no DSSE envelope")
	}
	if n := len(content.DsseEnvelope.GetSignatures()); n != 1 {
		return nil, nil, fmt.Errorf("%d signatures where exactly one is allowed", n)
	}
	if t := content.DsseEnvelope.GetPayloadType(); t != types.IntotoPayloadType {
		return nil, nil, fmt.Errorf("payload type %q is not %q", t, types.IntotoPayloadType)
	}
	return b, content.DsseEnvelope, nil
}

// bundleClaim is what a bundle claims about digests.
func bundleClaim(b *sgbundle.Bundle, digests []string) claim {
	c := claim{
		format:   KindBundle,
		digests:  digests,
		entity:   func() (sgverify.SignedEntity, error) { return b, nil },
		artifact: digestArtifact,
	}
	if _, ok := b.VerificationMaterial.GetContent().(*protobundle.VerificationMaterial_PublicKey); ok {
		c.byKey = func(ctx context.Context, k publicKey, digest string) error {
			return checkBundle(ctx, b, k, digest)
		}
	} else {
		c.certified = true
	}
	return c
}

// digestArtifact asks that a statement is about digest.
func digestArtifact(digest string) (sgverify.ArtifactPolicyOption, error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return nil, err
	}
	return sgverify.WithArtifactDigest("sha256", raw), nil
}

// statementDigests returns the digests an in-toto statement is about. The
// predicate type is required to be cosign's signature type: cosign 2.6 itself
// takes any statement signed by the key, also one that says the image is bad.
func statementDigests(b []byte) ([]string, error) {
	v, err := strictJSON(b)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	top, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("statement is not a JSON object")
	}
	if err := onlyKeys(top, "_type", "subject", "predicateType", "predicate"); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	predicate, err := text(top, "predicateType")
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if predicate != types.CosignSignPredicateType {
		return nil, fmt.Errorf("%w but an attestation of type %q", errNotSignature, predicate)
	}
	kind, err := text(top, "_type")
	if err == nil && kind != intoto.StatementTypeUri {
		err = fmt.Errorf("_type is %q, not %q", kind, intoto.StatementTypeUri)
	}
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	subjects, _ := top["subject"].([]any)
	if len(subjects) == 0 || len(subjects) > maxSubjects {
		return nil, fmt.Errorf("statement: %d subjects, 1 to %d are allowed", len(subjects), maxSubjects)
	}
	var digests []string
	for _, s := range subjects {
		m, _ := s.(map[string]any)
		set, err := object(m, "digest")
		if err != nil {
			return nil, fmt.Errorf("statement: subject: %w", err)
		}
		hash, err := text(set, "sha256")
		if err != nil || !validDigest("sha256:"+hash) {
			return nil, errors.New("statement: subject without a sha256 digest")
		}
		digests = append(digests, "sha256:"+hash)
	}
	return digests, nil
}

// checkBundle verifies the envelope with one key and its subject against
// digest. The bundle's own key hint is not looked at: it is not signed.
func checkBundle(ctx context.Context, b *sgbundle.Bundle, k publicKey, digest string) error {
	artifact, err := digestArtifact(digest)
	if err != nil {
		return err
	}
	_, err = cosign.VerifyNewBundle(ctx, &cosign.CheckOpts{
		SigVerifier:     k.verifier,
		NewBundleFormat: true,
		// There is nothing to trust but the key: no certificate authority, no
		// log, no timestamp. Empty material makes any of them an error.
		TrustedMaterial: &root.BaseTrustedMaterial{},
		IgnoreTlog:      true,
		Offline:         true,
	}, artifact, b)
	return err
}

// newStatement writes the in-toto statement cosign 2.6 signs for an image:
// one subject without a name, and no predicate.
func newStatement(digest string) ([]byte, error) {
	type subject struct {
		Digest map[string]string `json:"digest"`
	}
	return json.Marshal(struct {
		Type          string    `json:"_type"`
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
	}{
		intoto.StatementTypeUri,
		[]subject{{map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
		types.CosignSignPredicateType,
	})
}
