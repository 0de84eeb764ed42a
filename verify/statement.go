package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// Bounds on an attestation, as package images keeps them.
const (
	maxAttestation = 12 << 20
	// maxStated bounds the subjects of a statement: a release names all that it
	// made. maxAlgorithms is how often each may be hashed.
	maxStated     = 1024
	maxAlgorithms = 32
	maxTypeName   = 1024
)

// statement is what somebody signed about images. It is only a claim until a
// signature over text has been verified.
type statement struct {
	text          []byte
	version       string
	predicateType string
	// predicate is as it stands in text; "null" if there is none.
	predicate json.RawMessage
	// names are those of the subjects, by sha256 digest.
	names   map[string]string
	digests []string
}

// parseStatement reads an in-toto statement strictly.
func parseStatement(b []byte) (*statement, error) {
	s := &statement{text: b, predicate: json.RawMessage("null"), names: map[string]string{}}
	str := func(dst *string, key string, value []byte) error {
		if len(value) > maxTypeName || json.Unmarshal(value, dst) != nil || *dst == "" {
			return fmt.Errorf("%s is not a string of 1 to %d bytes", key, maxTypeName)
		}
		return nil
	}
	whole := false
	err := scanJSON(b, func(key string, value []byte) error {
		whole = true
		switch key {
		case "_type":
			return str(&s.version, key, value)
		case "predicateType":
			return str(&s.predicateType, key, value)
		case "subject":
			return s.subjects(value)
		case "predicate":
			s.predicate = value
			return nil
		}
		return fmt.Errorf("unknown key %q", clip(key))
	})
	switch {
	case err != nil:
	case !whole:
		err = errors.New("not a JSON object with members")
	case s.version != StatementV01 && s.version != StatementV1:
		err = fmt.Errorf("_type is %q, not %q or %q", clip(s.version), StatementV1, StatementV01)
	case s.predicateType == "":
		err = errors.New("predicateType is missing")
	case plainName(s.predicateType) != nil:
		err = fmt.Errorf("predicateType %q is not printable ASCII", clip(s.predicateType))
	case len(s.digests) == 0:
		err = errors.New("no subject has a sha256 digest")
	}
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return s, nil
}

// subjects reads whom the statement is about.
func (s *statement) subjects(value []byte) error {
	// scanJSON has seen to equal keys by now, but not to their spelling.
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil {
		return errors.New("subject is not a list of objects")
	}
	if len(list) == 0 || len(list) > maxStated {
		return fmt.Errorf("%d subjects, 1 to %d are allowed", len(list), maxStated)
	}
	for _, subject := range list {
		var set map[string]string
		if json.Unmarshal(subject["digest"], &set) != nil || len(set) == 0 || len(set) > maxAlgorithms {
			return errors.New("subject without digests")
		}
		hash, ok := set["sha256"]
		if !ok {
			continue // a commit, say
		}
		digest := "sha256:" + hash
		if !validDigest(digest) {
			return fmt.Errorf("subject with the sha256 digest %q", clip(hash))
		}
		var name string
		if raw, ok := subject["name"]; ok && json.Unmarshal(raw, &name) != nil {
			return errors.New("subject with a name that is not a string")
		}
		if _, twice := s.names[digest]; !twice {
			s.names[digest] = name
			s.digests = append(s.digests, digest)
		}
	}
	return nil
}

// parseStated reads an attestation by its own kind. What it says are claims
// until the claim's check has passed.
func parseStated(m Material) (claim, error) {
	switch {
	case len(m.Payload) > maxAttestation || annotationBytes(m) > maxMaterialBytes:
		return claim{}, fmt.Errorf("larger than %d bytes", maxAttestation)
	case m.Kind == KindEnvelope:
		return parseEnvelope(m)
	case m.Kind == KindBundle:
		return parseStatedBundle(m)
	}
	return claim{}, fmt.Errorf("unknown kind %q", clip(m.Kind))
}

// parseEnvelope reads a layer of cosign's .att tag.
func parseEnvelope(m Material) (claim, error) {
	if m.MediaType != types.DssePayloadType {
		return claim{}, fmt.Errorf("media type %q is not %q", clip(m.MediaType), types.DssePayloadType)
	}
	text, signature, err := readEnvelope(m.Payload)
	if err != nil {
		return claim{}, fmt.Errorf("envelope: %w", err)
	}
	said, err := parseStatement(text)
	if err != nil {
		return claim{}, fmt.Errorf("envelope: %w", err)
	}
	if s := m.Annotations[static.SignatureAnnotationKey]; s != "" {
		// cosign leaves it empty: another signature here would be of what?
		return claim{}, fmt.Errorf("annotation %q is not empty", static.SignatureAnnotationKey)
	}
	content := newEnvelope(said, signature)
	c := statedClaim(KindEnvelope, said, content, func() (sgverify.SignedEntity, error) {
		e, err := parseAnnotated(m, signature)
		if err != nil {
			return nil, err
		}
		return statedEntity{e, content}, nil
	})
	c.certified = m.Annotations[static.CertificateAnnotationKey] != ""
	c.byKey = c.byKeyAlone()
	// cosign has the whole layer timestamped, not the signature.
	c.stamped = m.Payload
	return c, nil
}

// readEnvelope reads a DSSE envelope with exactly one signature.
func readEnvelope(b []byte) (text, signature []byte, err error) {
	var kind, payload string
	var signatures []map[string]json.RawMessage
	err = scanJSON(b, func(key string, value []byte) error {
		switch key {
		case "payloadType":
			return json.Unmarshal(value, &kind)
		case "payload":
			return json.Unmarshal(value, &payload)
		case "signatures":
			if len(value) > maxMaterialBytes {
				return errors.New("the signatures are too long")
			}
			return json.Unmarshal(value, &signatures)
		}
		return fmt.Errorf("unknown key %q", clip(key))
	})
	switch {
	case err != nil:
		return nil, nil, err
	case kind != types.IntotoPayloadType:
		return nil, nil, fmt.Errorf("payloadType is %q, not %q", clip(kind), types.IntotoPayloadType)
	case len(signatures) != 1:
		return nil, nil, fmt.Errorf("%d signatures where exactly one is allowed", len(signatures))
	}
	var sig, hint string
	for key, value := range signatures[0] {
		switch key {
		case "sig":
			err = json.Unmarshal(value, &sig)
		case "keyid":
			err = json.Unmarshal(value, &hint) // not signed, and not looked at
		default:
			err = fmt.Errorf("unknown key %q", clip(key))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("signature: %w", err)
		}
	}
	if text, err = strictBase64(payload); err != nil {
		return nil, nil, fmt.Errorf("payload: %w", err)
	}
	if signature, err = strictBase64(sig); err != nil {
		return nil, nil, fmt.Errorf("signature: %w", err)
	}
	return text, signature, nil
}

// strictBase64 takes one spelling of some bytes and no other.
func strictBase64(s string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) == 0 || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64")
	}
	return raw, nil
}

// parseStatedBundle reads a sigstore bundle around an attestation.
func parseStatedBundle(m Material) (claim, error) {
	if m.MediaType != BundleMediaType {
		return claim{}, fmt.Errorf("media type %q is not %q", clip(m.MediaType), BundleMediaType)
	}
	if err := scanJSON(m.Payload, nil); err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	b, envelope, err := openBundle(m.Payload)
	if err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	said, err := parseStatement(envelope.GetPayload())
	if err == nil && said.predicateType == signPredicate {
		err = errors.New("a signature, not an attestation")
	}
	if err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	content := newEnvelope(said, envelope.GetSignatures()[0].GetSig())
	c := statedClaim(KindBundle, said, content, func() (sgverify.SignedEntity, error) { return statedEntity{b, content}, nil })
	_, byKey := b.VerificationMaterial.GetContent().(*protobundle.VerificationMaterial_PublicKey)
	if c.certified = !byKey; byKey {
		c.byKey = c.byKeyAlone()
	}
	return c, nil
}

// statedClaim is what a statement claims.
func statedClaim(format string, said *statement, content *envelope, entity func() (sgverify.SignedEntity, error)) claim {
	return claim{format: format, digests: said.digests, said: said, dsse: content, entity: entity, artifact: digestArtifact}
}

// byKeyAlone is the check of its signature by a key that is in no certificate.
func (c claim) byKeyAlone() func(context.Context, publicKey, string) error {
	return func(_ context.Context, k publicKey, digest string) error { return c.checkStated(k, digest) }
}

// envelope is a statement and its signature as sigstore-go wants them. The
// statement it hands out has no predicate: nobody there looks at one, and it
// would be built in memory.
type envelope struct {
	raw       *dsse.Envelope
	signature []byte
	summary   *intoto.Statement
}

func newEnvelope(said *statement, signature []byte) *envelope {
	e := &envelope{signature: signature, summary: &intoto.Statement{Type: said.version, PredicateType: said.predicateType}}
	e.raw = &dsse.Envelope{
		PayloadType: types.IntotoPayloadType, Payload: base64.StdEncoding.EncodeToString(said.text),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(signature)}},
	}
	for _, d := range said.digests {
		e.summary.Subject = append(e.summary.Subject, &intoto.ResourceDescriptor{Digest: map[string]string{"sha256": strings.TrimPrefix(d, "sha256:")}})
	}
	return e
}

// Signature implements sgverify.SignatureContent.
func (e *envelope) Signature() []byte { return e.signature }

// EnvelopeContent implements sgverify.SignatureContent.
func (e *envelope) EnvelopeContent() sgverify.EnvelopeContent { return e }

// MessageSignatureContent implements sgverify.SignatureContent.
func (e *envelope) MessageSignatureContent() sgverify.MessageSignatureContent { return nil }

// RawEnvelope implements sgverify.EnvelopeContent.
func (e *envelope) RawEnvelope() *dsse.Envelope { return e.raw }

// Statement implements sgverify.EnvelopeContent.
func (e *envelope) Statement() (*intoto.Statement, error) { return e.summary, nil }

// statedEntity is an attestation as sigstore-go wants one.
type statedEntity struct {
	sgverify.SignedEntity
	content *envelope
}

// SignatureContent implements sgverify.SignedEntity.
func (e statedEntity) SignatureContent() (sgverify.SignatureContent, error) { return e.content, nil }
