package verify

import (
	"context"
	"fmt"

	"github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ward-project/ward/internal/fault"
)

// SignatoryConfig says who signs: the holder of a private key, or of an
// identity token if KeyPath is empty.
type SignatoryConfig struct {
	// KeyPath names the private key (ECDSA P-256): an encrypted file of cosign's,
	// env://VARIABLE with the same content, or NAME://KEY for a key plugin.
	KeyPath string
	// Password decrypts it; empty for a key made without one.
	Password []byte
	// Services are asked for certificate, log entry and timestamp; nil asks
	// nobody, and opens no socket.
	Services *Services
}

// Signatory signs images and statements about them. It is for one command and
// one goroutine.
type Signatory struct {
	sv       signature.SignerVerifier // nil: a new key for each signature
	services *Services
	by       Signer
}

// NewSignatory opens the private key. It asks no service yet.
func NewSignatory(ctx context.Context, c SignatoryConfig) (*Signatory, error) {
	if c.KeyPath == "" && c.Services == nil {
		return nil, fault.New(fault.Invalid, "sign.no-key", "neither a key nor a certificate authority is named", "give --key, or --identity-token and --fulcio-url")
	}
	if c.Services != nil {
		if err := c.Services.check(c.KeyPath == ""); err != nil {
			return nil, err
		}
		if c.KeyPath == "" {
			return &Signatory{services: c.Services, by: Signer{Kind: KindKeyless}}, nil
		}
	}
	sv, err := loadSigner(ctx, c.KeyPath, c.Password)
	if err != nil {
		return nil, err
	}
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, err
	}
	id, err := keyID(pub)
	return &Signatory{sv: sv, services: c.Services, by: Signer{Kind: KindKey, KeyID: id}}, err
}

// By is who signs: the key's id, or after a keyless signature the names in the
// certificate.
func (s *Signatory) By() Signer { return s.by }

// Sign vouches for a digest and returns the signature as Material, ready to be
// kept beside the image. Of r, the key and its password are not looked at.
func (s *Signatory) Sign(ctx context.Context, r SignRequest) (Material, error) {
	repository, err := r.check()
	if err != nil {
		return Material{}, err
	}
	if r.Format == KindCosign && s.services == nil {
		return signCosign(ctx, s.sv, repository, r)
	}
	statement, err := newStatement(r.Digest)
	if err != nil {
		return Material{}, err
	}
	return s.state(ctx, statement, r.Digest, types.CosignSignPredicateType, r.Format)
}

// Attest signs an in-toto statement about an image and returns it as Material.
// Of r, the key and its password are not looked at.
func (s *Signatory) Attest(ctx context.Context, r AttestRequest) (Material, error) {
	statement, err := r.statement()
	if err != nil {
		return Material{}, err
	}
	return s.state(ctx, statement, r.Digest, r.PredicateType, r.Format)
}

// AttestStatement signs an in-toto statement that somebody else wrote, as it
// is. It must have the image among its subjects.
func (s *Signatory) AttestStatement(ctx context.Context, statement []byte, digest, format string) (m Material, predicateType string, err error) {
	if predicateType, err = foreignStatement(statement, digest, format); err != nil {
		return Material{}, "", fault.Wrap(fault.Invalid, "attest.statement", err, "name an in-toto statement about this image")
	}
	m, err = s.state(ctx, statement, digest, predicateType, format)
	return m, predicateType, err
}

func (s *Signatory) state(ctx context.Context, statement []byte, digest, predicateType, format string) (Material, error) {
	if s.services != nil {
		return s.witnessed(ctx, statement, digest, predicateType, format)
	}
	return signStatement(ctx, s.sv, statement, digest, predicateType, format)
}

// foreignStatement reads of a statement what has to be known before it is
// signed: its type, and that it is about digest.
func foreignStatement(b []byte, digest, format string) (predicateType string, err error) {
	if len(b) > maxPredicate || !validDigest(digest) {
		return "", fmt.Errorf("%d bytes about %q; at most %d are signed", len(b), digest, maxPredicate)
	}
	if format != KindEnvelope && format != KindBundle {
		return "", fmt.Errorf("unknown attestation format %q", format)
	}
	v, err := strictJSON(b)
	if err != nil {
		return "", err
	}
	top, ok := v.(map[string]any)
	if !ok {
		return "", fmt.Errorf("it is not a JSON object")
	}
	if err := onlyKeys(top, "_type", "subject", "predicateType", "predicate"); err != nil {
		return "", err
	}
	if t, err := text(top, "_type"); err != nil || t != StatementV01 && t != StatementV1 {
		return "", fmt.Errorf("_type is not %s or %s", StatementV01, StatementV1)
	}
	if _, err := object(top, "predicate"); err != nil {
		return "", err
	}
	if predicateType, err = text(top, "predicateType"); err != nil {
		return "", err
	}
	if _, err := PredicateType(predicateType); err != nil || predicateType == types.CosignSignPredicateType {
		return "", fmt.Errorf("predicateType %q is not the type of an attestation", predicateType)
	}
	subjects, _ := top["subject"].([]any)
	for _, s := range subjects[:min(len(subjects), maxSubjects)] {
		m, _ := s.(map[string]any)
		set, err := object(m, "digest")
		if err != nil {
			return "", fmt.Errorf("subject: %w", err)
		}
		if set["sha256"] == digest[len("sha256:"):] {
			return predicateType, nil
		}
	}
	return "", fmt.Errorf("%s is not among the first %d of its %d subjects", digest, maxSubjects, len(subjects))
}
