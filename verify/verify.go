package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/ward-project/ward/internal/fault"
)

// Bounds on what one image may bring: a registry decides what is sent, and
// every signature is tried with every key.
const (
	maxMaterials     = 64
	maxMaterialBytes = 1 << 20
	maxDigests       = 4
)

// Verifier checks signatures against the trust policies it was opened with. It
// does not notice later changes of the files; a Directory does. Safe for
// concurrent use. The zero value trusts nothing.
type Verifier struct {
	policies []policy
	roots    *roots
	trust    string
	rego     Evaluator
}

// Open reads every policy in trustDir. A directory that does not exist holds
// no policies, so that everything is refused as "trust.no-policy"; a file that
// cannot be read or understood is an error and nothing can be verified.
func Open(trustDir string) (*Verifier, error) {
	return NewDirectory(trustDir).current()
}

// claim is a parsed signature: what it says, and how to check that it is so.
type claim struct {
	format  string
	digests []string
	// name is the one it was made for, as written; a bundle has none.
	name string
	// certified is set if it brings a certificate.
	certified bool
	// misfiled is set if it was found beside another digest.
	misfiled bool
	// misnamed is set if the policy that is asked does not take its name.
	misnamed bool
	// byKey fails unless key k signed a statement about digest; nil if no key
	// that is not in a certificate can have.
	byKey func(ctx context.Context, k publicKey, digest string) error
	// entity and artifact are the claim and what it is about as sigstore-go
	// wants them, for what byKey does not look at. Made when they are needed.
	entity   func() (sgverify.SignedEntity, error)
	artifact func(digest string) (sgverify.ArtifactPolicyOption, error)
	// bad is why the material could not be parsed.
	bad error

	// The rest is an attestation's: what it states, the digest it is filed
	// under, the type it is said to have, and what timestamps are about if not
	// the signature.
	said    *statement
	dsse    *envelope
	filed   string
	hint    string
	stamped []byte
}

// Verify returns evidence that the image is vouched for as the policies
// demand, or a refusal. It judges only the given materials, opens no socket,
// and stops when ctx ends.
func (v *Verifier) Verify(ctx context.Context, s Subject, materials []Material) (Evidence, error) {
	return v.verify(ctx, s, materials, newClock(time.Now()))
}

func (v *Verifier) verify(ctx context.Context, s Subject, materials []Material, now *clock) (Evidence, error) {
	ref, err := checkSubject(s)
	if err != nil {
		return Evidence{}, err
	}
	policies, err := v.applying(ref, s)
	if err != nil {
		return Evidence{}, err
	}
	materials, st := sortOut(s, materials)
	if len(materials) > maxMaterials {
		return Evidence{}, fault.New(fault.Unverified, "trust.too-many",
			fmt.Sprintf("%s carries %d signatures, at most %d are looked at", label(s), len(materials), maxMaterials),
			"remove signatures that are no longer needed from the registry")
	}
	claims := make([]claim, len(materials))
	for i, m := range materials {
		if claims[i] = parse(m, s); errors.Is(claims[i].bad, errNotSignature) {
			st.add(m) // whatever it was filed as
		}
	}
	e := Evidence{reference: s.Reference, trust: v.trust}
	set := v.setting(now, st)
	for _, p := range policies {
		signers, missed, err := p.judge(ctx, s, set, claims)
		if err != nil {
			return Evidence{}, err
		}
		if len(signers) == 0 {
			refusal := p.refusal(s, claims, missed, len(st.materials)+len(st.omitted))
			if p.mode != modeWarn {
				return Evidence{}, refusal
			}
			e.warn(p, s, refusal)
			continue
		}
		e.policies = append(e.policies, p.name)
		e.signers = append(e.signers, signers...)
	}
	if err := e.attest(ctx, s, set, policies, st); err != nil {
		return Evidence{}, err
	}
	e.digest = s.Digests[0]
	return e, nil
}

// warn notes that a policy is not satisfied that only warns. Nobody vouches for
// the image by it: where no other does, a run needs a grant besides.
func (e *Evidence) warn(p policy, s Subject, refusal error) {
	f := fault.As(refusal)
	e.warnings = append(e.warnings, Warning{p.name, f.Rule, f.Cause})
	e.signers = append(e.signers, Signer{Policy: p.name, Kind: KindStatic, Digest: s.Digests[0]})
}

// applying are the policies that the image has to satisfy. Those that may be
// about other runs are asked too, but let nothing in by themselves.
func (v *Verifier) applying(ref name.Reference, s Subject) ([]policy, error) {
	var policies []policy
	if v != nil {
		policies, _ = matching(v.policies, spellings(ref, s.Reference))
	}
	if !slices.ContainsFunc(policies, func(p policy) bool { return p.reach == forAll }) {
		return nil, noPolicy(ref, s, policies)
	}
	return policies, nil
}

func (v *Verifier) setting(now *clock, st *stated) setting {
	return setting{clock: now, roots: v.roots, rego: v.rego, judged: map[string]error{}, stated: st}
}

// WithRego is the same verifier with somebody who judges by the Rego in trust
// policies. Without one, what asks for that is never satisfied.
func (v *Verifier) WithRego(e Evaluator) *Verifier {
	own := *v
	own.rego = e
	return &own
}

// attest adds what is stated about the image. It is not asked for, so that
// nothing here is a refusal but what stops everything.
func (e *Evidence) attest(ctx context.Context, s Subject, set setting, policies []policy, st *stated) error {
	e.omitted = st.omitted
	if len(st.materials) == 0 {
		return nil
	}
	g := newGathered()
	for _, p := range policies {
		var missed misses
		if err := p.attest(ctx, s, set, st.parse(), &missed, g); err != nil {
			return err
		}
	}
	e.attestations, e.refused = g.sorted(), g.refused(st.parse())
	return nil
}

// checkSubject refuses a question that makes no sense.
func checkSubject(s Subject) (name.Reference, error) {
	ref, err := parseReference(s.Reference)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "trust.reference", err, "name an image")
	}
	if len(s.Digests) == 0 || len(s.Digests) > maxDigests {
		return nil, fault.New(fault.Invalid, "trust.digest", fmt.Sprintf("%s: %d digests to verify", s.Reference, len(s.Digests)), "")
	}
	for _, d := range s.Digests {
		if !validDigest(d) {
			return nil, fault.New(fault.Invalid, "trust.digest", fmt.Sprintf("%s: %q is not a sha256 digest", s.Reference, d), "")
		}
	}
	return ref, nil
}

// validDigest accepts "sha256:" and 64 lower-case hex digits, nothing else:
// two spellings of one digest would not compare equal.
func validDigest(d string) bool {
	h, ok := strings.CutPrefix(d, "sha256:")
	return ok && len(h) == 64 && strings.Trim(h, "0123456789abcdef") == ""
}

// parse reads one material by its own kind.
func parse(m Material, s Subject) claim {
	var c claim
	var err error
	switch {
	case len(m.Payload) > maxMaterialBytes || annotationBytes(m) > maxMaterialBytes:
		err = fmt.Errorf("larger than %d bytes", maxMaterialBytes)
	case m.Kind == KindCosign:
		c, err = parseCosign(m)
	case m.Kind == KindBundle:
		c, err = parseBundle(m)
	default:
		err = fmt.Errorf("unknown kind %q", m.Kind)
	}
	// Filed under another image: whatever it says, it was not brought along
	// by this one.
	c.misfiled = m.Subject != "" && !slices.Contains(s.Digests, m.Subject)
	c.bad = err
	return c
}

func annotationBytes(m Material) int {
	n := 0
	for k, v := range m.Annotations {
		n += len(k) + len(v)
	}
	return n
}

// judge tries every authority of p and returns the signers of each that is
// satisfied. err is the end of ctx, or a trust root that cannot be read.
func (p policy) judge(ctx context.Context, s Subject, set setting, claims []claim) ([]Signer, misses, error) {
	var signers []Signer
	var missed misses
	claims, err := p.named(s, claims)
	if err != nil {
		return nil, missed, err
	}
	said, err := p.named(s, set.stated.parseFor(p))
	if err != nil {
		return nil, missed, err
	}
	matches := result{Matches: map[string]*match{}}
	for _, a := range p.authorities {
		var found []Signer
		var statements map[string][]word
		switch {
		case a.static != nil && a.static.pass:
			found = []Signer{{Authority: a.name, Kind: KindStatic, Digest: s.Digests[0]}}
		case len(a.wanted) > 0:
			found, statements, err = a.judgeStated(ctx, s, set, said, &missed)
		default:
			found, err = a.judge(ctx, s, set, claims, &missed)
		}
		if err != nil {
			return nil, missed, err
		}
		for _, signer := range found {
			signer.Policy = p.name
			signers = append(signers, signer)
		}
		if len(found) > 0 {
			matches.Matches[a.name] = matchOf(found, statements)
		}
	}
	if len(signers) == 0 {
		return nil, missed, nil
	}
	if err := p.ruled(ctx, set, matches); err != nil {
		if c := fault.ClassOf(err); c == fault.Invalid || c == fault.Unavailable {
			return nil, missed, err
		}
		missed.note(err)
		return nil, missed, nil
	}
	return signers, missed, nil
}

// named marks the claims that were made for a name the policy does not take
// for this image.
func (p policy) named(s Subject, claims []claim) ([]claim, error) {
	if p.signed.kind == "" {
		return claims, nil
	}
	ref, err := checkSubject(s)
	if err != nil {
		return nil, err
	}
	claims = slices.Clone(claims)
	for i, c := range claims {
		claims[i].misnamed = !p.signed.match(ref, c.name)
	}
	return claims, nil
}

// about returns the digest of the image that the claim is about, or what else
// it is about and false.
func (c claim) about(digests []string) (string, bool) {
	for _, d := range digests {
		if slices.Contains(c.digests, d) {
			return d, !c.misfiled
		}
	}
	return c.digests[0], false
}
