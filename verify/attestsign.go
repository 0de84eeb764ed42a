package verify

import (
	"bytes"
	"context"
	"fmt"

	cbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/ward-project/ward/internal/fault"
)

// EnvelopeMediaType is that of the layers in which cosign keeps attestations.
const EnvelopeMediaType = types.DssePayloadType

// predicateTypeKey is where cosign repeats the predicate type beside an
// envelope; what is signed decides.
const predicateTypeKey = "predicateType"

// AttestRequest names what to state about an image, and with what to sign it.
// All fields but Password and Statement are required.
type AttestRequest struct {
	// KeyPath and Password are as in SignRequest.
	KeyPath  string
	Password []byte
	// Reference is the image's full name; its repository becomes the subject's.
	Reference string
	// Digest is the subject's, "sha256:…".
	Digest string
	// PredicateType is a URI, see PredicateType.
	PredicateType string
	// Predicate is JSON; see NewPredicate for what cosign's types hold.
	Predicate []byte
	// Statement is the statement's version; StatementV01 unless given.
	Statement string
	// Format is KindEnvelope or KindBundle.
	Format string
}

// Attest signs an in-toto statement about an image and returns it as Material,
// ready to be kept beside the image or written to a file. It touches neither
// registry nor store.
func Attest(ctx context.Context, r AttestRequest) (Material, error) {
	if _, err := r.statement(); err != nil {
		return Material{}, err
	}
	s, err := NewSignatory(ctx, SignatoryConfig{KeyPath: r.KeyPath, Password: r.Password})
	if err != nil {
		return Material{}, err
	}
	return s.Attest(ctx, r)
}

// statement checks everything that is asked before a key is touched.
func (r AttestRequest) statement() ([]byte, error) {
	ref, err := parseReference(r.Reference)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "attest.reference", err, "name an image")
	}
	if !validDigest(r.Digest) {
		return nil, fault.New(fault.Invalid, "attest.digest", fmt.Sprintf("%q is not a sha256 digest", r.Digest), "name an image that is in the store")
	}
	if r.Format != KindEnvelope && r.Format != KindBundle {
		return nil, fault.New(fault.Invalid, "attest.format", fmt.Sprintf("unknown attestation format %q", r.Format), "use envelope or bundle")
	}
	if r.PredicateType == types.CosignSignPredicateType {
		// In a bundle this statement would be a signature.
		return nil, fault.New(fault.Invalid, "attest.type", r.PredicateType+" is the type of a signature, not of an attestation", "sign the image with `ward sign`")
	}
	if _, err := PredicateType(r.PredicateType); err != nil {
		return nil, err
	}
	if len(r.Predicate) > 2*maxPredicate {
		return nil, fault.New(fault.Invalid, "attest.predicate", fmt.Sprintf("the predicate has %d bytes", len(r.Predicate)), "state less, or name a file by its digest")
	}
	v, err := strictJSON(r.Predicate)
	if err != nil {
		return nil, fault.New(fault.Invalid, "attest.predicate", fmt.Sprintf("the predicate is not JSON that all read alike: %v", err), "mend the predicate")
	}
	if _, object := v.(map[string]any); !object && r.Format == KindBundle {
		// No reader of bundles takes anything else, cosign not even its own.
		return nil, fault.New(fault.Invalid, "attest.predicate", "a bundle holds predicates that are JSON objects only",
			"state it in the envelope format, or as spdxjson")
	}
	version := first(r.Statement, StatementV01)
	if version != StatementV01 && version != StatementV1 {
		return nil, fault.New(fault.Invalid, "attest.statement", fmt.Sprintf("unknown statement version %q", version), "")
	}
	return attested(version, ref.Context().Name(), r.Digest, r.PredicateType, r.Predicate)
}

// signStatement signs a statement about digest and puts it into the form that
// cosign keeps: an envelope as a layer of the .att tag, or a bundle.
func signStatement(ctx context.Context, s signature.SignerVerifier, statement []byte, digest, predicateType, format string) (Material, error) {
	envelope, err := dsse.WrapSigner(s, types.IntotoPayloadType).SignMessage(bytes.NewReader(statement), options.WithContext(ctx))
	if err != nil {
		return Material{}, fmt.Errorf("sign %s: %w", digest, err)
	}
	m := Material{Subject: digest, Kind: format, MediaType: EnvelopeMediaType, Payload: envelope}
	if format == KindEnvelope {
		// The signature is in the envelope; cosign wants the annotation, empty.
		m.Annotations = map[string]string{static.SignatureAnnotationKey: "", predicateTypeKey: predicateType}
		return m, nil
	}
	pub, err := s.PublicKey()
	if err != nil {
		return Material{}, err
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(pub)
	if err != nil {
		return Material{}, err
	}
	m.MediaType = BundleMediaType
	if m.Payload, err = cbundle.MakeNewBundle(pub, nil, statement, envelope, pem, nil); err != nil {
		return Material{}, fmt.Errorf("sign %s: %w", digest, err)
	}
	// The annotations cosign puts on the referrer's manifest.
	m.Annotations = map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": predicateType,
	}
	return m, nil
}
