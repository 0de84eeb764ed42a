package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/cosign/v2/pkg/oci/static"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// maxChain bounds the certificates a signature may bring.
const maxChain = 8

// annotated is a signature in cosign's format seen as sigstore-go sees a
// bundle: the same steps in the same order then judge both formats.
type annotated struct {
	digest, signature []byte
	cert              *x509.Certificate // nil: by a key
	chain             []*x509.Certificate
	entries           []*tlog.Entry
	timestamps        [][]byte
}

// parseAnnotated reads what cosign keeps in annotations beside the signature.
// An annotation that cannot be read is an error, never as if it were missing.
func parseAnnotated(m Material, signature []byte) (*annotated, error) {
	sum := sha256.Sum256(m.Payload)
	e := &annotated{digest: sum[:], signature: signature}
	var err error
	if s := m.Annotations[static.CertificateAnnotationKey]; s != "" {
		certs, err := parseCertificates([]byte(s), 1)
		if err != nil {
			return nil, fmt.Errorf("annotation %q: %w", static.CertificateAnnotationKey, err)
		}
		e.cert = certs[0]
	}
	if s := m.Annotations[static.ChainAnnotationKey]; s != "" {
		if e.chain, err = parseCertificates([]byte(s), maxChain); err != nil {
			return nil, fmt.Errorf("annotation %q: %w", static.ChainAnnotationKey, err)
		}
	}
	if s := m.Annotations[static.BundleAnnotationKey]; s != "" {
		entry, err := parseLogEntry([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("annotation %q: %w", static.BundleAnnotationKey, err)
		}
		e.entries = []*tlog.Entry{entry}
	}
	if s := m.Annotations[static.RFC3161TimestampAnnotationKey]; s != "" {
		b, err := parseTimestamp([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("annotation %q: %w", static.RFC3161TimestampAnnotationKey, err)
		}
		e.timestamps = [][]byte{b}
	}
	return e, nil
}

// parseCertificates reads PEM certificates and nothing between them.
func parseCertificates(b []byte, limit int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for len(bytes.TrimSpace(b)) > 0 {
		b = bytes.TrimSpace(b)
		block, rest := pem.Decode(b)
		if block == nil || !bytes.HasPrefix(b, []byte("-----BEGIN")) {
			return nil, errors.New("not a PEM certificate")
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, fmt.Errorf("PEM block %q is not a certificate", block.Type)
		}
		if len(certs) == limit {
			return nil, fmt.Errorf("more than %d certificates", limit)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, b = append(certs, c), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}

// parseLogEntry reads cosign's "bundle" annotation: a Rekor v1 entry with the
// log's promise to include it. Log and index are signed in that promise.
func parseLogEntry(b []byte) (*tlog.Entry, error) {
	v, err := onlyObject(b, "SignedEntryTimestamp", "Payload")
	if err != nil {
		return nil, err
	}
	payload, err := object(v, "Payload")
	if err != nil {
		return nil, err
	}
	if err := onlyKeys(payload, "body", "integratedTime", "logIndex", "logID"); err != nil {
		return nil, err
	}
	var a struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(a.Payload.LogID)
	if err != nil || len(id) != sha256.Size {
		return nil, fmt.Errorf("logID %q is not a log's", clip(a.Payload.LogID))
	}
	if a.Payload.IntegratedTime <= 0 || a.Payload.LogIndex < 0 || len(a.SignedEntryTimestamp) == 0 {
		return nil, errors.New("the log entry has no time, index or signature")
	}
	var kind struct{ Kind, APIVersion string }
	if _, err := strictJSON(a.Payload.Body); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if err := json.Unmarshal(a.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return tlog.ParseTransparencyLogEntry(&protorekor.TransparencyLogEntry{
		LogIndex: a.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id},
		KindVersion:    &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime: a.Payload.IntegratedTime, CanonicalizedBody: a.Payload.Body,
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: a.SignedEntryTimestamp},
	})
}

// onlyObject checks that b is a JSON object with those keys and no other;
// encoding/json alone takes any spelling of a key, and the last of two.
func onlyObject(b []byte, keys ...string) (map[string]any, error) {
	v, err := strictJSON(b)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return m, onlyKeys(m, keys...)
}

func parseTimestamp(b []byte) ([]byte, error) {
	const field = "SignedRFC3161Timestamp"
	v, err := onlyObject(b, field)
	if err != nil {
		return nil, err
	}
	s, err := text(v, field)
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) == 0 {
		return nil, errors.New("not a timestamp in base64")
	}
	return raw, nil
}

// HasInclusionPromise implements sgverify.SignedEntity.
func (e *annotated) HasInclusionPromise() bool { return len(e.entries) > 0 }

// HasInclusionProof implements sgverify.SignedEntity.
func (e *annotated) HasInclusionProof() bool { return false }

// SignatureContent implements sgverify.SignedEntity.
func (e *annotated) SignatureContent() (sgverify.SignatureContent, error) {
	return sgbundle.NewMessageSignature(e.digest, "SHA2_256", e.signature), nil
}

// Timestamps implements sgverify.SignedEntity.
func (e *annotated) Timestamps() ([][]byte, error) { return e.timestamps, nil }

// TlogEntries implements sgverify.SignedEntity.
func (e *annotated) TlogEntries() ([]*tlog.Entry, error) { return e.entries, nil }

// VerificationContent implements sgverify.SignedEntity.
func (e *annotated) VerificationContent() (sgverify.VerificationContent, error) {
	if e.cert == nil {
		return oneKey{}, nil
	}
	return withChain{sgbundle.NewCertificate(e.cert), e.chain}, nil
}

// Version implements sgverify.SignedEntity. It is no bundle's, so that no
// allowance for old bundles is made.
func (e *annotated) Version() (string, error) { return "cosign", nil }

// withChain is a certificate with the intermediates that came along. They are
// believed only as far as a trusted root signed them.
type withChain struct {
	sgverify.VerificationContent
	chain []*x509.Certificate
}

// Intermediates implements sgverify.VerificationContent.
func (c withChain) Intermediates() []*x509.Certificate { return c.chain }

// oneKey is a signature by whatever key the trusted material holds.
type oneKey struct{}

// Hint implements sgverify.PublicKeyProvider.
func (oneKey) Hint() string { return "" }

// CompareKey implements sgverify.VerificationContent.
func (k oneKey) CompareKey(key any, tm root.TrustedMaterial) bool {
	v, err := tm.PublicKeyVerifier(k.Hint())
	if err != nil {
		return false
	}
	pub, err := v.PublicKey()
	if err != nil {
		return false
	}
	id, err := keyID(key)
	if err != nil {
		return false
	}
	want, err := keyID(pub)
	return err == nil && id == want
}

// ValidAtTime implements sgverify.VerificationContent.
func (k oneKey) ValidAtTime(t time.Time, tm root.TrustedMaterial) bool {
	v, err := tm.PublicKeyVerifier(k.Hint())
	return err == nil && v.ValidAtTime(t)
}

// Certificate implements sgverify.VerificationContent.
func (oneKey) Certificate() *x509.Certificate { return nil }

// Intermediates implements sgverify.VerificationContent.
func (oneKey) Intermediates() []*x509.Certificate { return nil }

// PublicKey implements sgverify.VerificationContent.
func (k oneKey) PublicKey() sgverify.PublicKeyProvider { return k }
