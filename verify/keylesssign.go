package verify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/sigstore/cosign/v2/pkg/types"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ward-project/ward/internal/fault"
)

// witnessed signs a statement with services: by a key made for this one
// signature, for whose holder an authority issues a certificate, or by the
// signatory's own. What the services answer is checked as a verifier would,
// by the trust root; a signature that nobody could verify is not handed out.
func (s *Signatory) witnessed(ctx context.Context, statement []byte, digest, predicateType, format string) (Material, error) {
	if format != KindBundle {
		return Material{}, fault.New(fault.Invalid, "sign.format", "what services witness is written as a bundle only", "add --new-bundle-format")
	}
	sv := s.services
	var pair sign.Keypair = keypair{s.sv}
	opts := sign.BundleOptions{Context: ctx}
	if s.sv == nil {
		var err error
		if pair, err = sign.NewEphemeralKeypair(nil); err != nil {
			return Material{}, err
		}
		opts.CertificateProvider = sign.NewFulcio(&sign.FulcioOptions{BaseURL: trimSlash(sv.FulcioURL), Timeout: serviceTimeout, Transport: newTransport()})
		opts.CertificateProviderOptions = &sign.CertificateProviderOptions{IDToken: sv.Token}
	}
	if sv.TimestampURL != "" {
		opts.TimestampAuthorities = []*sign.TimestampAuthority{sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{
			URL: sv.TimestampURL, Timeout: serviceTimeout, Transport: newTransport(),
		})}
	}
	if sv.RekorURL != "" {
		opts.TransparencyLogs = []sign.Transparency{sign.NewRekor(&sign.RekorOptions{BaseURL: sv.RekorURL, Timeout: serviceTimeout, Client: sv.rekorClient()})}
	}
	b, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: types.IntotoPayloadType}, pair, opts)
	if err != nil {
		return Material{}, serviceFault(ctx, err)
	}
	raw, err := protojson.Marshal(b)
	if err != nil {
		return Material{}, err
	}
	if s.by, err = s.reread(raw, digest); err != nil {
		return Material{}, err
	}
	return Material{Subject: digest, Kind: KindBundle, MediaType: BundleMediaType, Payload: raw, Annotations: map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": predicateType,
	}}, nil
}

// reread judges the bundle as a verifier would that trusts anybody's name, and
// returns whose it is.
func (s *Signatory) reread(raw []byte, digest string) (Signer, error) {
	no := func(err error) error {
		return fault.New(fault.Unverified, "sign.check", "the signature that the services made does not verify: "+clip(printableText(err.Error())),
			"see that the trust root is that of the services; nothing is kept")
	}
	set := setting{clock: newClock(time.Now()), roots: &roots{files: map[string]*rootFile{
		defaultRoot: {path: "the trusted root", raw: s.services.TrustedRoot},
	}}}
	t, err := set.roots.get(defaultRoot)
	if err != nil {
		return Signer{}, err
	}
	a := authority{name: "signed"}
	if s.services.RekorURL != "" {
		a.log = &logDemand{}
	}
	if s.services.TimestampURL != "" {
		a.timestamp = &timeDemand{}
	}
	if s.sv == nil {
		any := identity{namePattern{any: true}, namePattern{any: true}}
		// A trust root without certificate logs asks for no promise of theirs.
		a.keyless = &keylessAuthority{identities: []identity{any}, ignoreSCT: len(t.CTLogs()) == 0}
	} else {
		a.key = &keyAuthority{threshold: 1}
	}
	m, err := set.trusted(a)
	if err != nil {
		return Signer{}, no(err)
	}
	if s.sv != nil {
		m.key = lasting{s.sv}
	}
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(raw); err != nil {
		return Signer{}, no(err)
	}
	signer, err := bundleClaim(b, nil).checkWitnessed(a, set, m, digest)
	if err != nil {
		return Signer{}, no(err)
	}
	if s.sv != nil {
		signer.Kind, signer.KeyID = KindKey, s.by.KeyID
	}
	signer.Authority = ""
	return signer, nil
}

// keypair is a private key of ward's (ECDSA P-256) as sigstore-go wants one.
type keypair struct{ sv signature.SignerVerifier }

// GetHashAlgorithm implements sign.Keypair.
func (keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_SHA2_256
}

// GetSigningAlgorithm implements sign.Keypair.
func (keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}

// GetHint implements sign.Keypair; it is the one cosign writes.
func (k keypair) GetHint() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.GetPublicKey())
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(der)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

// GetKeyAlgorithm implements sign.Keypair.
func (keypair) GetKeyAlgorithm() string { return "ECDSA" }

// GetPublicKey implements sign.Keypair.
func (k keypair) GetPublicKey() crypto.PublicKey {
	pub, err := k.sv.PublicKey()
	if err != nil {
		return nil
	}
	return pub
}

// GetPublicKeyPem implements sign.Keypair.
func (k keypair) GetPublicKeyPem() (string, error) {
	pem, err := cryptoutils.MarshalPublicKeyToPEM(k.GetPublicKey())
	return string(pem), err
}

// SignData implements sign.Keypair.
func (k keypair) SignData(ctx context.Context, data []byte) (sig, digest []byte, err error) {
	sum := sha256.Sum256(data)
	sig, err = k.sv.SignMessage(bytes.NewReader(data), options.WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	return sig, sum[:], nil
}
