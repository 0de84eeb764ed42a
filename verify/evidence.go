package verify

import (
	"encoding/json"
	"errors"
	"slices"
)

// The kinds of Material, and the formats Sign can write.
const (
	// KindCosign is a simple signing payload with its signature in an annotation.
	KindCosign = "cosign"
	// KindBundle is a sigstore bundle v0.3 with a DSSE envelope.
	KindBundle = "bundle"
	// KindEnvelope is a DSSE envelope with an attestation, as Attest writes it
	// and cosign keeps it in the layers of the .att tag.
	KindEnvelope = "envelope"
)

// Material is one signature or attestation as it was found beside an image:
// bytes from a registry, believed only where a signature in them says so.
type Material struct {
	// Subject is the digest it was filed under ("sha256:…"). It is a hint of
	// the registry's; the signed bytes decide.
	Subject string
	// Kind is KindCosign, KindBundle or KindEnvelope; anything else is refused.
	Kind string
	// MediaType is the layer's media type and must be the kind's own.
	MediaType string
	// Payload is the layer's bytes.
	Payload []byte
	// Annotations are the layer's; cosign keeps the signature in one.
	Annotations map[string]string
}

// Subject is the image that is asked about.
type Subject struct {
	// Reference is the image's full name as it was asked for, with its registry.
	Reference string
	// Digests are the digests that count as the image: its manifest first,
	// then the index it was chosen from, if any.
	Digests []string
	// Omitted are attestations that are there and were too large to keep.
	Omitted []OmittedAttestation
}

// Signer says who vouched for the image, and where that was found.
type Signer struct {
	// Policy and Authority are the names in the trust policy.
	Policy    string `json:"policy"`
	Authority string `json:"authority"`
	// Kind is how the signer is identified: one of the Kind… constants below.
	Kind string `json:"kind"`
	// KeyID is "sha256:" and the hash of the public key's DER form (SPKI): the
	// trusted key's, or that of the certificate.
	KeyID string `json:"key_id"`
	// Format is KindCosign or KindBundle; KindEnvelope or KindBundle for attestations.
	Format string `json:"format"`
	// Digest is the one that was signed: the manifest's or its index's.
	Digest string `json:"digest"`
	// Issuer and Subject are who the certificate says signed: the address of
	// who knew them, and the name that the policy accepts. Empty for keys.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Claims are what else the certificate says; nil if nothing.
	Claims *Claims `json:"claims,omitempty"`
	// SignedAt is when it was signed, as far as somebody trusted witnessed it.
	SignedAt *SignedAt `json:"signed_at,omitempty"`
}

// The kinds of Signer.
const (
	// KindKey is a key that the trust policy holds.
	KindKey = "key"
	// KindKeyless is a name in a certificate by an authority of a trust root.
	KindKeyless = "keyless"
	// KindCertificate is one in a certificate by an authority of one's own.
	KindCertificate = "certificate"
	// KindStatic is nobody: a policy says yes without a signature, or no and only warns.
	KindStatic = "static"
)

// Evidence is the proof that an image was verified. Its fields are unexported
// so that only Verify can make one; the zero value is unverified.
type Evidence struct {
	reference string
	digest    string
	policies  []string
	signers   []Signer
	trust     string

	attestations []Attestation
	omitted      []OmittedAttestation
	refused      []RefusedAttestation
	warnings     []Warning
}

// Warning is a matching policy that the image does not satisfy, and that only
// warns.
type Warning struct {
	Policy string `json:"policy"`
	// Rule and Cause are those of the refusal that it would be.
	Rule  string `json:"rule"`
	Cause string `json:"cause"`
}

// Verified says whether the evidence proves anything.
func (e Evidence) Verified() bool { return e.digest != "" && len(e.signers) > 0 }

// Signed says whether somebody vouches for the image, and not only a policy
// that asks for nobody.
func (e Evidence) Signed() bool {
	return e.Verified() && slices.ContainsFunc(e.signers, func(s Signer) bool { return s.Kind != KindStatic })
}

// Digest is the manifest digest that was verified, or "".
func (e Evidence) Digest() string { return e.digest }

// Reference is the name under which it was verified, or "".
func (e Evidence) Reference() string { return e.reference }

// Warnings are the policies that matched, are not satisfied, and only warn.
func (e Evidence) Warnings() []Warning { return slices.Clone(e.warnings) }

// Policies are the names of the policies that matched and are satisfied: all
// but those that only warn.
func (e Evidence) Policies() []string { return slices.Clone(e.policies) }

// Signers are the authorities that vouched for the image, in policy order.
func (e Evidence) Signers() []Signer { return slices.Clone(e.signers) }

// Attestations are what is stated about the image by whom a policy believes.
func (e Evidence) Attestations() []Attestation { return slices.Clone(e.attestations) }

// Predicates are the attestations' predicates by their digests, for policy:
// JSON of evidence holds digest and size alone.
func (e Evidence) Predicates() map[string]json.RawMessage {
	if len(e.attestations) == 0 {
		return nil
	}
	m := make(map[string]json.RawMessage, len(e.attestations))
	for _, a := range e.attestations {
		m[a.PredicateDigest] = a.said.predicate
	}
	return m
}

// predicateBytes is what the statements take in memory.
func (e Evidence) predicateBytes() int {
	n := 0
	for _, a := range e.attestations {
		n += 3 * len(a.said.text) // the text, and the envelope in base64
	}
	return n
}

// MarshalJSON writes the evidence for records and policy input. It is one-way:
// nothing turns JSON back into evidence.
func (e Evidence) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Verified  bool     `json:"verified"`
		Reference string   `json:"reference"`
		Digest    string   `json:"digest"`
		Policies  []string `json:"policies"`
		Signers   []Signer `json:"signers"`
		// Trust is the digest of the trust directory's content at the time.
		Trust string `json:"trust"`
		// The lists are never null: a rule may count on them.
		Attestations []Attestation        `json:"attestations"`
		Count        int                  `json:"attestations_refused"`
		Refused      []RefusedAttestation `json:"refused"`
		Omitted      []OmittedAttestation `json:"omitted"`
		Warnings     []Warning            `json:"warnings"`
	}{e.Verified(), e.reference, e.digest, notNil(e.policies), notNil(e.signers), e.trust, notNil(e.attestations), len(e.refused), notNil(e.refused), notNil(e.omitted), notNil(e.warnings)})
}

// UnmarshalJSON always fails: a record of evidence is not evidence. Without it
// encoding/json would find nothing to fill in and call that a success.
func (e *Evidence) UnmarshalJSON([]byte) error {
	return errors.New("evidence cannot be read back; verify the image again")
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
