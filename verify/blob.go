package verify

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/ward-project/ward/internal/fault"
)

// MaxBundle bounds a bundle about a file; it may hold a long statement.
const MaxBundle = 16 << 20

// BlobRequest asks whether a bundle vouches for a file. Either KeyPEM is
// given, or who may have signed: one of each pair of name and expression.
type BlobRequest struct {
	// Bundle is a sigstore bundle, v0.1 to v0.3.
	Bundle []byte
	// TrustedRoot is a trusted_root.json; needed but for a key with IgnoreLog.
	TrustedRoot []byte
	// KeyPEM is one public key.
	KeyPEM []byte
	// Identity and Issuer are exact; the expressions match whole names.
	Identity, IdentityRegexp, Issuer, IssuerRegexp string
	// UnsafeIgnoreLog asks for no log entry, UnsafeIgnoreSCT for no certificate log's
	// promise. Timestamp asks for an RFC 3161 timestamp besides.
	UnsafeIgnoreLog, UnsafeIgnoreSCT, Timestamp bool
	// Artifact is the file; Digest ("sha256:…") stands for it if it is nil.
	Artifact io.Reader
	Digest   string
}

// VerifyBlob returns who vouches for a file, or a refusal. A statement (DSSE)
// must have the file as a subject; what it says besides is not judged. It
// opens no socket and reads nothing but what it is given.
func VerifyBlob(_ context.Context, r BlobRequest) (Signer, error) {
	a, key, err := r.authority()
	if err != nil {
		return Signer{}, err
	}
	set := setting{clock: newClock(time.Now()), roots: &roots{files: map[string]*rootFile{}}}
	if r.TrustedRoot != nil {
		set.roots.files[defaultRoot] = &rootFile{path: "the trusted root", raw: r.TrustedRoot}
	}
	c, err := r.claim()
	if err != nil {
		return Signer{}, fault.New(fault.Unverified, "trust.malformed", clip(err.Error()), "give a sigstore bundle, v0.1 to v0.3")
	}
	m, err := set.trusted(a)
	if err != nil {
		return Signer{}, blobRefusal(err)
	}
	if (key == nil) != c.certified {
		return Signer{}, fault.New(fault.Unverified, "trust.wrong-key", "the bundle was signed with "+c.how(), "give what it was signed with, a key or a certificate's names")
	}
	if key != nil {
		m.key = lasting{key.verifier}
	}
	signer, err := c.checkWitnessed(a, set, m, "")
	if err != nil {
		return Signer{}, blobRefusal(err)
	}
	if key != nil {
		signer.Kind, signer.KeyID = KindKey, key.id
	}
	signer.Authority = ""
	return signer, nil
}

func (c claim) how() string {
	if c.certified {
		return "a certificate"
	}
	return "a key"
}

// authority is what the request would be as a trust policy.
func (r BlobRequest) authority() (authority, *publicKey, error) {
	a := authority{name: "request"}
	if !r.UnsafeIgnoreLog {
		a.log = &logDemand{}
	}
	if r.Timestamp {
		a.timestamp = &timeDemand{}
	}
	named := r.Identity != "" || r.IdentityRegexp != "" || r.Issuer != "" || r.IssuerRegexp != ""
	if len(r.KeyPEM) > 0 == named {
		return a, nil, fault.New(fault.Invalid, "usage", "who must have signed: a key, or the identity and issuer of a certificate", "give one of the two")
	}
	if !named {
		keys, err := parsePublicKeys(r.KeyPEM, crypto.SHA256)
		if err == nil && len(keys) != 1 {
			err = errors.New("more than one key")
		}
		if err != nil {
			return a, nil, fault.Wrap(fault.Invalid, "trust.key", err, "give one PEM public key")
		}
		a.key = &keyAuthority{keys: keys, threshold: 1}
		return a, &keys[0], nil
	}
	var i identity
	var err error
	if i.subject, err = newPattern(r.Identity, r.IdentityRegexp); err == nil {
		i.issuer, err = newPattern(r.Issuer, r.IssuerRegexp)
	}
	if err == nil && (i.subject.any || i.issuer.any || i.subject.all) {
		err = errors.New("a certificate's identity and issuer are both needed, and an identity that not everyone has")
	}
	if err != nil {
		return a, nil, fault.Wrap(fault.Invalid, "trust.identity", err, "say who must have signed")
	}
	a.keyless = &keylessAuthority{identities: []identity{i}, ignoreSCT: r.UnsafeIgnoreSCT}
	return a, nil, nil
}

// claim reads the bundle, of any version that sigstore-go knows.
func (r BlobRequest) claim() (claim, error) {
	if len(r.Bundle) > MaxBundle {
		return claim{}, fmt.Errorf("the bundle is larger than %d bytes", MaxBundle)
	}
	if _, err := strictJSON(r.Bundle); err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(r.Bundle); err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	if e, ok := b.Content.(*protobundle.Bundle_DsseEnvelope); ok {
		// One reader must see in the statement what another does.
		if _, err := strictJSON(e.DsseEnvelope.GetPayload()); err != nil {
			return claim{}, fmt.Errorf("statement: %w", err)
		}
	}
	c := bundleClaim(b, nil)
	c.artifact = func(string) (sgverify.ArtifactPolicyOption, error) {
		if r.Artifact != nil {
			return sgverify.WithArtifact(r.Artifact), nil
		}
		if !validDigest(r.Digest) {
			return nil, miss{rankMalformed, "trust.digest", fmt.Sprintf("%q is not a sha256 digest", clip(r.Digest))}
		}
		return digestArtifact(r.Digest)
	}
	return c, nil
}

// blobRefusal is a reason as an answer.
func blobRefusal(err error) error {
	var one miss
	var none errNoRoot
	switch {
	case errors.As(err, &one):
		return fault.New(fault.Unverified, one.rule, clip(one.cause), "")
	case errors.As(err, &none):
		return fault.New(fault.Unverified, ruleNoRoot, none.what, "give --trusted-root, or ward trust root add default FILE")
	case fault.ClassOf(err) != fault.Internal:
		return err
	}
	return fault.New(fault.Unverified, "trust.wrong-key", clip(err.Error()), "")
}
