package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxStatements bounds the attestations of one image, its manifest's and its
// index's. What is more is omitted, and said to be.
const maxStatements = 130

// Attestation is a statement about an image by somebody whom a trust policy
// believes. Only this package can make one that says anything.
type Attestation struct {
	// PredicateType is a URI: what kind of statement it is.
	PredicateType string `json:"predicate_type"`
	// Digest is the subject: the image's manifest, or the index it was chosen from.
	Digest string `json:"digest"`
	// Envelope is the digest of the signed document as it lies in a registry;
	// where several hold the same statement, of the first in order of digests.
	Envelope string `json:"envelope"`
	// PredicateDigest and PredicateSize are those of the predicate's text.
	PredicateDigest string `json:"predicate_digest"`
	PredicateSize   int    `json:"predicate_size"`
	// Signers are all that vouch for it, in policy order.
	Signers []Signer `json:"signers"`

	said *statement
	dsse *envelope
}

// Predicate is what is stated, as it stands in the signed text.
func (a Attestation) Predicate() json.RawMessage {
	if a.said == nil {
		return nil
	}
	return slices.Clone(a.said.predicate)
}

// Statement is the signed text: an in-toto statement.
func (a Attestation) Statement() []byte {
	if a.said == nil {
		return nil
	}
	return slices.Clone(a.said.text)
}

// DSSE is the envelope around the statement, in the form that cosign prints.
func (a Attestation) DSSE() ([]byte, error) {
	if a.dsse == nil {
		return nil, errors.New("no attestation")
	}
	return json.Marshal(a.dsse.raw)
}

// OmittedAttestation is one that is there and that nobody could judge here.
// Nothing of this is signed.
type OmittedAttestation struct {
	// PredicateType is what somebody says that it is; may be empty.
	PredicateType string `json:"predicate_type"`
	// Digest is the image's, Size in bytes.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Reason string `json:"reason"`
}

// RefusedAttestation is one that no trust policy believes. Nothing of this is
// to be relied on but that it is there.
type RefusedAttestation struct {
	PredicateType string `json:"predicate_type"`
	Envelope      string `json:"envelope"`
	// Rule says what it came to grief at, in the words of refusals.
	Rule string `json:"rule"`
}

// states says whether m is filed as an attestation and not as a signature.
func (m Material) states() bool {
	if m.Kind == KindEnvelope {
		return true
	}
	hint := m.Annotations[bundlePredicateKey]
	return m.Kind == KindBundle && hint != "" && hint != signPredicate
}

// stated is what an image brings along besides signatures, parsed when
// somebody first wants to know.
type stated struct {
	subject   Subject
	materials []Material
	omitted   []OmittedAttestation
	claims    []claim
	parsed    bool
	full      bool
}

// sortOut separates attestations from signatures.
func sortOut(s Subject, materials []Material) (signatures []Material, st *stated) {
	st = &stated{subject: s}
	for _, o := range s.Omitted[:min(len(s.Omitted), maxStatements)] {
		st.omitted = append(st.omitted, OmittedAttestation{plainOr(o.PredicateType, ""), o.Digest, o.Size, plainText(o.Reason)})
	}
	for _, m := range materials {
		if m.states() {
			st.add(m)
		} else {
			signatures = append(signatures, m)
		}
	}
	return signatures, st
}

// add takes one more attestation, within the bound.
func (st *stated) add(m Material) {
	if len(st.materials) < maxStatements {
		st.materials = append(st.materials, m)
	} else if !st.full {
		st.full = true
		st.omitted = append(st.omitted, OmittedAttestation{Digest: m.Subject, Reason: fmt.Sprintf("more than %d attestations", maxStatements)})
	}
}

// plainOr is s if that is printable ASCII, else another text.
func plainOr(s, other string) string {
	if len(s) <= maxTypeName && plainName(s) == nil {
		return s
	}
	return other
}

// plainText is a text without what could confuse a terminal or a reader.
func plainText(s string) string {
	return clip(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?")))
}

// parse reads them all, once, in the order of their digests: which of two that
// say the same is named must not depend on where they lay.
func (st *stated) parse() []claim {
	if st == nil {
		return nil
	}
	if st.parsed {
		return st.claims
	}
	st.parsed = true
	for _, m := range st.materials {
		c, err := parseStated(m)
		c.bad = err
		c.misfiled = m.Subject != "" && !slices.Contains(st.subject.Digests, m.Subject)
		sum := sha256.Sum256(m.Payload)
		c.filed = "sha256:" + hex.EncodeToString(sum[:])
		c.hint = plainOr(first(m.Annotations[predicateTypeKey], m.Annotations[bundlePredicateKey]), "")
		if c.said != nil {
			c.hint = c.said.predicateType
			if d, ok := c.about(st.subject.Digests); ok {
				c.name = c.said.names[d]
			}
		}
		st.claims = append(st.claims, c)
	}
	slices.SortFunc(st.claims, func(a, b claim) int { return strings.Compare(a.filed, b.filed) })
	return st.claims
}

// parseFor parses where the policy asks for attestations: what nobody asks
// for costs nothing until the image is let in.
func (st *stated) parseFor(p policy) []claim {
	if !slices.ContainsFunc(p.authorities, func(a authority) bool { return len(a.wanted) > 0 }) {
		return nil
	}
	return st.parse()
}
