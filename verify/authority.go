package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
}

// keyAuthority accepts signatures by keys that are named one by one.
type keyAuthority struct {
	keys []publicKey
	// threshold is how many different keys must have signed.
	threshold int
}

// keylessAuthority accepts signatures by a certificate's key, where an
// authority says in the certificate who held it.
type keylessAuthority struct{}

// staticAuthority answers without looking at any signature.
type staticAuthority struct {
	pass    bool
	message string // of fail, for whoever is refused
}

// needs is how many signers satisfy the authority.
func (a authority) needs() int {
	if a.key != nil {
		return max(a.key.threshold, 1)
	}
	return 1
}

// judge returns the signers that satisfy the authority, or none. err is only
// the end of ctx.
func (a authority) judge(ctx context.Context, s Subject, claims []claim, missed *misses) ([]Signer, error) {
	var signers []Signer
	for _, c := range claims {
		if err := ctx.Err(); err != nil {
			return nil, fault.New(fault.Unavailable, "trust.interrupted", fmt.Sprintf("verify %s: %v", label(s), err), "try again")
		}
		if c.bad != nil {
			continue
		}
		if a.format != "" && a.format != c.format {
			missed.format = true
			continue
		}
		digest, right := c.about(s.Digests)
		signer, err := c.check(ctx, a, digest)
		if err != nil {
			continue
		}
		if !right {
			missed.digest = digest
			continue
		}
		if c.misnamed {
			missed.misnamed, missed.name = true, c.name
			continue
		}
		// Two signatures by one signer are one signer's word.
		if slices.ContainsFunc(signers, func(o Signer) bool { return o.KeyID == signer.KeyID }) {
			continue
		}
		signers = append(signers, signer)
		if len(signers) >= a.needs() {
			return signers, nil
		}
	}
	return nil, nil
}

// errNotTheirs is the answer to a claim that the authority has no part in.
var errNotTheirs = errors.New("not a signature this authority could have made")

// check returns who made the claim about digest if the authority vouches for
// them. It is the only way from a claim to a Signer.
func (c claim) check(ctx context.Context, a authority, digest string) (Signer, error) {
	switch {
	case a.key != nil && !c.keyless:
		return c.checkKeys(ctx, a, digest)
	default:
		return Signer{}, errNotTheirs
	}
}

// checkKeys tries the authority's keys one after the other: the hint in a
// signature that names one is not signed.
func (c claim) checkKeys(ctx context.Context, a authority, digest string) (Signer, error) {
	err := errNotTheirs
	for _, k := range a.key.keys {
		if err = c.byKey(ctx, k, digest); err == nil {
			return Signer{Authority: a.name, Kind: "key", KeyID: k.id, Format: c.format, Digest: digest}, nil
		}
	}
	return Signer{}, err
}
