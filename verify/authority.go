package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ward-project/ward/internal/fault"
)

// authority is one entry of spec.authorities: exactly one of key, keyless and
// static is set. One that has none is never satisfied.
type authority struct {
	name    string
	key     *keyAuthority
	keyless *keylessAuthority
	static  *staticAuthority
	format  string // KindCosign, KindBundle or "" for either
	// log and timestamp are demanded besides the signature; nil: not asked for.
	log       *logDemand
	timestamp *timeDemand
	// wanted are attestations, asked for instead of a signature.
	wanted []wanted
}

// keyAuthority accepts signatures by keys that are named one by one.
type keyAuthority struct {
	keys []publicKey
	// threshold is how many different keys must have signed.
	threshold int
	// notBefore and notAfter bound when they may have; zero: no bound.
	notBefore, notAfter time.Time
}

func (k *keyAuthority) windowed() bool {
	return k != nil && (!k.notBefore.IsZero() || !k.notAfter.IsZero())
}

// staticAuthority answers without looking at any signature.
type staticAuthority struct {
	pass    bool
	message string // for whoever is refused
}

// needs is how many signers satisfy the authority.
func (a authority) needs() int {
	if a.key != nil {
		return max(a.key.threshold, 1)
	}
	return 1
}

// judge returns the signers that satisfy the authority, or none. err is the
// end of ctx, or a trust root that cannot be read.
func (a authority) judge(ctx context.Context, s Subject, set setting, claims []claim, missed *misses) ([]Signer, error) {
	var signers []Signer
	for _, c := range claims {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.Unavailable, "trust.interrupted", fmt.Sprintf("verify %s: %v", label(s), err), "try again")
		}
		signer, ok, err := a.accepts(ctx, s, set, c, missed)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		// Two signatures by one signer are one signer's word.
		if slices.ContainsFunc(signers, signer.same) {
			continue
		}
		signers = append(signers, signer)
		if len(signers) >= a.needs() {
			return signers, nil
		}
	}
	if len(signers) > 0 {
		missed.note(miss{rankThreshold, "trust.threshold", fmt.Sprintf("%d of the %d different keys that authority %q asks for signed it",
			len(signers), a.needs(), a.name)})
	}
	return nil, nil
}

// accepts returns who made the claim if the authority takes their word for
// this image. Why not is noted in missed.
func (a authority) accepts(ctx context.Context, s Subject, set setting, c claim, missed *misses) (signer Signer, ok bool, err error) {
	if c.bad != nil {
		return Signer{}, false, nil
	}
	if a.format != "" && a.format != c.format {
		missed.format = true
		return Signer{}, false, nil
	}
	digest, right := c.about(s.Digests)
	if signer, err = c.check(ctx, a, set, digest); err != nil {
		if fault.ClassOf(err) == fault.Invalid {
			return Signer{}, false, err
		}
		missed.note(err)
		return Signer{}, false, nil
	}
	if !right {
		missed.digest = digest
		return Signer{}, false, nil
	}
	if c.misnamed {
		missed.misnamed, missed.name = true, c.name
		return Signer{}, false, nil
	}
	return signer, true, nil
}

// same says whether both are one signer's: a key is known by itself, the
// holder of a certificate by name, since each certificate has a new key.
func (s Signer) same(o Signer) bool {
	if s.Kind != o.Kind {
		return false
	}
	if s.Kind == KindKey {
		return s.KeyID == o.KeyID
	}
	return s.Issuer == o.Issuer && s.Subject == o.Subject
}

// errNotTheirs is the answer to a claim that the authority has no part in.
var errNotTheirs = errors.New("not a signature this authority could have made")

// check returns who made the claim about digest if the authority vouches for
// them. It is the only way from a claim to a Signer.
func (c claim) check(ctx context.Context, a authority, set setting, digest string) (Signer, error) {
	switch {
	case a.key != nil && c.byKey != nil:
		return c.checkKeys(ctx, a, set, digest)
	case a.keyless != nil && c.certified:
		m, err := set.trusted(a)
		if err != nil {
			return Signer{}, err
		}
		return c.checkWitnessed(a, set, m, digest)
	}
	return Signer{}, errNotTheirs
}

// checkKeys tries the authority's keys one after the other: the hint in a
// signature that names one is not signed.
func (c claim) checkKeys(ctx context.Context, a authority, set setting, digest string) (Signer, error) {
	for _, k := range a.key.keys {
		if c.byKey(ctx, k, digest) != nil {
			continue
		}
		signer := Signer{Authority: a.name, Format: c.format, Digest: digest}
		if a.log != nil || a.timestamp != nil {
			m, err := set.trusted(a)
			if err != nil {
				return Signer{}, err
			}
			m.key = lasting{k.verifier}
			if signer, err = c.checkWitnessed(a, set, m, digest); err != nil {
				return Signer{}, err
			}
		}
		signer.Kind, signer.KeyID = KindKey, k.id
		return signer, a.key.inForce(signer.SignedAt, set.clock)
	}
	return Signer{}, errNotTheirs
}

// inForce judges the keys' window at the verified time of signing, and where
// nobody witnessed one, now: a signature without a time may be younger than
// the day its key was given up.
func (k *keyAuthority) inForce(at *SignedAt, now *clock) error {
	when, what := now, "now is "
	if at != nil {
		when, what = newClock(at.Time), "it was signed at "
	}
	switch {
	case !k.notBefore.IsZero() && when.before(k.notBefore):
		return miss{rankWindow, "trust.key-window", "the key that signed it counts from " + stamp(k.notBefore) + ", " + what + stamp(when.at)}
	case !k.notAfter.IsZero() && when.after(k.notAfter):
		return miss{rankWindow, "trust.key-window", "the key that signed it counted until " + stamp(k.notAfter) + ", " + what + stamp(when.at)}
	}
	return nil
}

// lasting is a key as sigstore-go wants one. Its window is judged by inForce,
// which can say what is wrong.
type lasting struct{ signature.Verifier }

// ValidAtTime implements root.TimeConstrainedVerifier.
func (lasting) ValidAtTime(time.Time) bool { return true }
