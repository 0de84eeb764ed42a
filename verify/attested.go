package verify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/ward-project/ward/internal/fault"
)

// word is what one authority says of one statement.
type word struct {
	claim   claim
	digest  string
	signers []Signer
}

// believed returns the statements that the authority vouches for, each with as
// many different signers as it asks for. Why each of the others is not is kept
// in why, by envelope.
func (a authority) believed(ctx context.Context, s Subject, set setting, claims []claim, missed *misses, why map[string]string) ([]word, error) {
	if a.static != nil {
		return nil, nil
	}
	var words []word
	at := map[[sha256.Size]byte]int{}
	no := func(c claim, err error) {
		missed.note(err)
		var one misses
		if one.note(err); one.closest.rule != "" {
			why[c.filed] = one.closest.rule
		}
	}
	for _, c := range claims {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.Unavailable, "trust.interrupted", fmt.Sprintf("verify %s: %v", label(s), err), "try again")
		}
		if c.bad != nil {
			no(c, miss{rankMalformed, "trust.malformed", c.bad.Error()})
			continue
		}
		if !a.takes(c.format) {
			missed.format = true
			continue
		}
		digest, right := c.about(s.Digests)
		if !right {
			no(c, miss{rankMalformed, "trust.wrong-digest", "an attestation is about another image (" + digest + ")"})
			continue
		}
		signer, err := c.check(ctx, a, set, digest)
		if err != nil {
			if fault.ClassOf(err) == fault.Invalid {
				return nil, err
			}
			no(c, err)
			continue
		}
		if c.misnamed {
			no(c, miss{rankIdentity, "trust.wrong-name", fmt.Sprintf("an attestation was made for the name %q", clip(c.name))})
			continue
		}
		key := sha256.Sum256(c.said.text)
		i, ok := at[key]
		if !ok {
			i = len(words)
			at[key] = i
			words = append(words, word{claim: c, digest: digest})
		}
		if !slices.ContainsFunc(words[i].signers, signer.same) {
			words[i].signers = append(words[i].signers, signer)
		}
	}
	return slices.DeleteFunc(words, func(w word) bool {
		if len(w.signers) >= a.needs() {
			return false
		}
		no(w.claim, miss{rankThreshold, "trust.threshold", fmt.Sprintf("%d of the %d different keys that authority %q asks for signed an attestation",
			len(w.signers), a.needs(), a.name)})
		return true
	}), nil
}

// takes says whether the authority looks at this format. A cluster's word
// "legacy" means cosign's own way, for attestations too.
func (a authority) takes(format string) bool {
	if format == KindEnvelope {
		format = KindCosign
	}
	return a.format == "" || a.format == format
}

// gathered collects what authorities say into one list.
type gathered struct {
	list []Attestation
	at   map[[sha256.Size]byte]int
	why  map[string]string
}

func newGathered() *gathered {
	return &gathered{at: map[[sha256.Size]byte]int{}, why: map[string]string{}}
}

func (g *gathered) add(policy string, words []word) {
	for _, w := range words {
		key := sha256.Sum256(w.claim.said.text)
		i, ok := g.at[key]
		if !ok {
			i = len(g.list)
			g.at[key] = i
			g.list = append(g.list, attestationOf(w))
		}
		for _, signer := range w.signers {
			signer.Policy = policy
			g.list[i].Signers = append(g.list[i].Signers, signer)
		}
	}
}

func attestationOf(w word) Attestation {
	said := w.claim.said
	sum := sha256.Sum256(said.predicate)
	return Attestation{
		PredicateType: said.predicateType, Digest: w.digest, Envelope: w.claim.filed,
		PredicateDigest: "sha256:" + hex.EncodeToString(sum[:]), PredicateSize: len(said.predicate), said: said, dsse: w.claim.dsse,
	}
}

// sorted returns them in an order that does not depend on policies.
func (g *gathered) sorted() []Attestation {
	slices.SortFunc(g.list, func(a, b Attestation) int {
		return cmp.Or(strings.Compare(a.PredicateType, b.PredicateType), strings.Compare(a.Envelope, b.Envelope))
	})
	return g.list
}

// refused are the claims of which nothing came.
func (g *gathered) refused(claims []claim) []RefusedAttestation {
	var list []RefusedAttestation
	for _, c := range claims {
		if c.said != nil {
			if _, ok := g.at[sha256.Sum256(c.said.text)]; ok {
				continue
			}
		}
		list = append(list, RefusedAttestation{PredicateType: c.hint, Envelope: c.filed, Rule: first(g.why[c.filed], "trust.wrong-key")})
	}
	return list
}

// VerifyAttestations returns the attestations of the image that an authority
// of a matching policy vouches for, of one predicate type or, if that is
// empty, of all. None is a refusal that says why. It asks for no signature.
func (v *Verifier) VerifyAttestations(ctx context.Context, s Subject, materials []Material, predicateType string) ([]Attestation, error) {
	ref, err := checkSubject(s)
	if err != nil {
		return nil, err
	}
	policies, err := v.applying(ref, s)
	if err != nil {
		return nil, err
	}
	_, st := sortOut(s, materials)
	for _, m := range materials {
		if !m.states() && m.Kind == KindBundle {
			st.add(m) // whatever it says it is
		}
	}
	var claims []claim
	for _, c := range st.parse() {
		if predicateType == "" || c.hint == predicateType {
			claims = append(claims, c)
		}
	}
	set := v.setting(newClock(time.Now()), st)
	g, missed := newGathered(), misses{}
	for _, p := range policies {
		if err := p.attest(ctx, s, set, claims, &missed, g); err != nil {
			return nil, err
		}
	}
	if len(g.list) == 0 {
		return nil, noAttestation(s, policies, predicateType, st, claims, missed)
	}
	return g.sorted(), nil
}

// attest gathers what all authorities of p say.
func (p policy) attest(ctx context.Context, s Subject, set setting, claims []claim, missed *misses, g *gathered) error {
	claims, err := p.named(s, claims)
	if err != nil {
		return err
	}
	for _, a := range p.authorities {
		words, err := a.believed(ctx, s, set, claims, missed, g.why)
		if err == nil {
			words, err = a.accepted(ctx, set, words, g.why)
		}
		if err != nil {
			return err
		}
		g.add(p.name, words)
	}
	return nil
}

// noAttestation is the refusal where none is believed.
func noAttestation(s Subject, policies []policy, predicateType string, st *stated, claims []claim, missed misses) error {
	what := "attestation"
	if predicateType != "" {
		what += " of type " + predicateType
	}
	remedy := "ward attest --key KEY --type TYPE --predicate FILE " + s.Reference
	for _, o := range st.omitted {
		if predicateType == "" || o.PredicateType == predicateType || o.PredicateType == "" {
			return omittedRefusal(s, what, o)
		}
	}
	switch {
	case len(claims) == 0 && len(st.claims) == 0:
		return fault.New(fault.Unverified, "trust.no-attestation", label(s)+" has no "+what, remedy)
	case len(claims) == 0:
		var have []string
		for _, c := range st.claims {
			have = append(have, c.hint)
		}
		slices.Sort(have)
		return fault.New(fault.Unverified, "trust.no-attestation", fmt.Sprintf("%s has no %s; it has %s", label(s), what,
			clip(strings.Join(slices.Compact(have), ", "))), remedy)
	case missed.closest.rule != "":
		return fault.New(fault.Unverified, missed.closest.rule, fmt.Sprintf("%s: no %s satisfies trust policy %q: %s", label(s), what,
			policies[0].name, clip(missed.closest.cause)), mend(missed.closest.rule, remedy, policies[0]))
	}
	return fault.New(fault.Unverified, "trust.wrong-key", fmt.Sprintf("%s: no %s is by anybody whom its trust policies accept", label(s), what),
		remedy+" with a key that a policy accepts")
}

// omittedRefusal says that what is asked for may be there and was not looked
// at: that is neither yes nor "there is none".
func omittedRefusal(s Subject, what string, o OmittedAttestation) error {
	return fault.New(fault.Unverified, "trust.omitted", fmt.Sprintf("%s: an %s could not be judged, as one was not kept: %s", label(s), what, o.Reason),
		"make it smaller or remove it from the registry, then pull the image again")
}

// stampedLayer makes timestamps be about the whole layer and not about the
// signature in it: that is what cosign has timestamped.
type stampedLayer struct {
	root.TimestampingAuthority
	layer []byte
}

// Verify implements root.TimestampingAuthority.
func (a stampedLayer) Verify(stamp, _ []byte) (*root.Timestamp, error) {
	return a.TimestampingAuthority.Verify(stamp, bytes.Clone(a.layer))
}

func (m *material) stampedOver(layer []byte) *material {
	own := *m
	own.tsas = nil
	for _, a := range m.tsas {
		own.tsas = append(own.tsas, stampedLayer{a, layer})
	}
	return &own
}

// checkStated is byKey for an attestation. What lies beside the signature (a
// certificate, a log entry) is not signed by the key and takes no part.
func (c claim) checkStated(k publicKey, digest string) error {
	v, err := sgverify.NewVerifier(&material{key: lasting{k.verifier}}, sgverify.WithNoObserverTimestamps())
	if err != nil {
		return err
	}
	artifact, err := c.artifact(digest)
	if err != nil {
		return err
	}
	_, err = v.Verify(statedEntity{&annotated{}, c.dsse}, sgverify.NewPolicy(artifact, sgverify.WithoutIdentitiesUnsafe()))
	return err
}
