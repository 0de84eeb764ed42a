package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// keylessAuthority accepts signatures by a certificate's key, where an
// authority says in the certificate who held it.
type keylessAuthority struct {
	identities []identity
	// ca is an authority of one's own (ca-cert); nil: those of the trust root.
	ca *root.FulcioCertificateAuthority
	// url leaves one authority of the trust root; "" takes all.
	url string
	// rootRef names the trust root.
	rootRef string
	// ignoreSCT accepts a certificate that no public log has seen.
	ignoreSCT bool
}

// logDemand asks for an entry in a transparency log.
type logDemand struct {
	// url leaves one log of the trust root; "" takes all.
	url string
	// rootRef names the trust root; "" means the authority's.
	rootRef string
}

// timeDemand asks for a timestamp by an RFC 3161 authority.
type timeDemand struct {
	rootRef string
}

// SignedAt is when something was signed, as somebody trusted saw it.
type SignedAt struct {
	Time time.Time `json:"time"`
	// Source is "log" (a transparency log's) or "timestamp" (RFC 3161).
	Source string `json:"source"`
	// By is the address of the log or the authority, as the trust root says.
	By string `json:"by,omitempty"`
}

// maxClockLead is how far ahead of this machine's clock a signing time may be.
const maxClockLead = 10 * time.Minute

// setting is what the check of a claim knows besides the claim.
type setting struct {
	clock *clock
	roots *roots
	// rego judges by the Rego in policies; nil: nobody does. What it said once
	// it is not asked again, by module and document.
	rego   Evaluator
	judged map[string]error
	// stated is what is stated about the image; nil: nothing.
	stated *stated
}

// rootNames are the trust roots the authority may need.
func (a authority) rootNames() []string {
	var names []string
	if a.keyless != nil && (a.keyless.ca == nil || !a.keyless.ignoreSCT) {
		names = append(names, first(a.keyless.rootRef, defaultRoot))
	}
	if a.log != nil {
		names = append(names, a.logRoot())
	}
	if a.timestamp != nil {
		names = append(names, first(a.timestamp.rootRef, a.ownRoot()))
	}
	return names
}

func (a authority) ownRoot() string {
	if a.keyless != nil && a.keyless.rootRef != "" {
		return a.keyless.rootRef
	}
	return defaultRoot
}

func (a authority) logRoot() string { return first(a.log.rootRef, a.ownRoot()) }

// material is exactly what one authority trusts, and nothing else that happens
// to stand in the same trust root.
type material struct {
	root.BaseTrustedMaterial
	cas    []root.CertificateAuthority
	ctlogs map[string]*root.TransparencyLog
	logs   map[string]*root.TransparencyLog
	tsas   []root.TimestampingAuthority
	key    root.TimeConstrainedVerifier
}

// FulcioCertificateAuthorities implements root.TrustedMaterial.
func (m *material) FulcioCertificateAuthorities() []root.CertificateAuthority { return m.cas }

// CTLogs implements root.TrustedMaterial.
func (m *material) CTLogs() map[string]*root.TransparencyLog { return m.ctlogs }

// RekorLogs implements root.TrustedMaterial.
func (m *material) RekorLogs() map[string]*root.TransparencyLog { return m.logs }

// TimestampingAuthorities implements root.TrustedMaterial.
func (m *material) TimestampingAuthorities() []root.TimestampingAuthority { return m.tsas }

// PublicKeyVerifier implements root.TrustedMaterial. The hint that a signature
// gives is not signed and not looked at.
func (m *material) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	if m.key == nil {
		return nil, errors.New("no key is trusted")
	}
	return m.key, nil
}

// trusted gathers what the authority trusts.
func (s setting) trusted(a authority) (*material, error) {
	m := &material{}
	if k := a.keyless; k != nil {
		if err := s.certifiers(k, m); err != nil {
			return nil, err
		}
	}
	if a.log != nil {
		t, err := s.roots.get(a.logRoot())
		if err != nil {
			return nil, err
		}
		m.logs = maps.Clone(t.RekorLogs())
		maps.DeleteFunc(m.logs, func(_ string, l *root.TransparencyLog) bool {
			return a.log.url != "" && !sameURL(l.BaseURL, a.log.url)
		})
		if len(m.logs) == 0 {
			return nil, errNoRoot{fmt.Sprintf("the trust root %q has no transparency log %s", a.logRoot(), a.log.url)}
		}
		// A log of the second kind gives no time; one who watched may.
		m.tsas = t.TimestampingAuthorities()
	}
	if a.timestamp != nil {
		name := first(a.timestamp.rootRef, a.ownRoot())
		t, err := s.roots.get(name)
		if err != nil {
			return nil, err
		}
		if m.tsas = t.TimestampingAuthorities(); len(m.tsas) == 0 {
			return nil, errNoRoot{fmt.Sprintf("the trust root %q has no timestamp authority", name)}
		}
	}
	return m, nil
}

// certifiers are the certificate authorities and the logs of what they issue.
func (s setting) certifiers(k *keylessAuthority, m *material) error {
	if k.ca != nil {
		m.cas = []root.CertificateAuthority{k.ca}
	}
	if k.ca != nil && k.ignoreSCT {
		return nil
	}
	name := first(k.rootRef, defaultRoot)
	t, err := s.roots.get(name)
	if err != nil {
		return err
	}
	m.ctlogs = t.CTLogs()
	if k.ca != nil {
		return nil
	}
	for _, c := range t.FulcioCertificateAuthorities() {
		if f, ok := c.(*root.FulcioCertificateAuthority); ok && (k.url == "" || sameURL(f.URI, k.url)) {
			m.cas = append(m.cas, c)
		}
	}
	if len(m.cas) == 0 {
		return errNoRoot{fmt.Sprintf("the trust root %q has no certificate authority %s", name, k.url)}
	}
	return nil
}

// options are what sigstore-go is told to demand.
func (a authority) options(stated bool) []sgverify.VerifierOption {
	var opts []sgverify.VerifierOption
	if !stated { // an attestation hands out none
		opts = append(opts, sgverify.WithoutStatementPredicate())
	}
	if a.keyless != nil && !a.keyless.ignoreSCT {
		opts = append(opts, sgverify.WithSignedCertificateTimestamps(1))
	}
	if a.log != nil {
		opts = append(opts, sgverify.WithTransparencyLog(1))
	}
	switch {
	case a.timestamp != nil:
		return append(opts, sgverify.WithSignedTimestamps(1))
	case a.log != nil && (a.keyless != nil || a.key.windowed()):
		return append(opts, sgverify.WithObserverTimestamps(1))
	case a.keyless != nil:
		// Nobody is asked when it was: the certificate must be good now.
		return append(opts, sgverify.WithCurrentTime())
	}
	return append(opts, sgverify.WithNoObserverTimestamps())
}

// checkWitnessed checks a claim that needs more than a key: a certificate, a
// log, a timestamp. sigstore-go decides; what follows can only refuse more.
func (c claim) checkWitnessed(a authority, s setting, m *material, digest string) (Signer, error) {
	entity, err := c.entity()
	if err != nil {
		return Signer{}, miss{rankMalformed, "trust.malformed", err.Error()}
	}
	if c.stamped != nil {
		m = m.stampedOver(c.stamped)
	}
	v, err := sgverify.NewVerifier(m, a.options(c.said != nil)...)
	if err != nil {
		return Signer{}, err
	}
	artifact, err := c.artifact(digest)
	if err != nil {
		return Signer{}, err
	}
	s.clock.noteCertificates(m, entity)
	res, err := v.Verify(entity, sgverify.NewPolicy(artifact, sgverify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return Signer{}, diagnose(a, m, entity, err)
	}
	signer := Signer{Authority: a.name, Format: c.format, Digest: digest}
	times := res.VerifiedTimestamps
	if a.log != nil && a.timestamp == nil && a.keyless == nil {
		// No time was demanded; a log may have given one all the same.
		found, err := sgverify.VerifyTlogEntry(entity, m, 1, true)
		if err != nil {
			return Signer{}, err
		}
		times = nil
		for _, t := range found {
			times = append(times, sgverify.TimestampVerificationResult{Type: "Tlog", URI: t.URI, Timestamp: t.Time})
		}
	}
	for _, t := range times {
		at := SignedAt{Time: t.Timestamp.UTC(), By: t.URI}
		switch t.Type {
		case "Tlog":
			at.Source = "log"
		case "TimestampAuthority":
			at.Source = "timestamp"
		default:
			continue // this machine's clock is no witness
		}
		if s.clock.before(at.Time.Add(-maxClockLead)) {
			return Signer{}, miss{rankTime, "trust.clock", fmt.Sprintf("it was signed at %s, which this machine's clock (%s) has not reached",
				stamp(at.Time), stamp(s.clock.at))}
		}
		if signer.SignedAt == nil || at.Time.Before(signer.SignedAt.Time) {
			signer.SignedAt = &at
		}
	}
	if a.keyless == nil {
		return signer, nil
	}
	content, err := entity.VerificationContent()
	if err != nil {
		return Signer{}, err
	}
	return a.identify(signer, content.Certificate())
}

// identify completes the signer from a certificate that has been verified.
func (a authority) identify(signer Signer, cert *x509.Certificate) (Signer, error) {
	if cert == nil {
		return Signer{}, errNotTheirs
	}
	h, err := holderOf(cert)
	if err != nil {
		return Signer{}, miss{rankIdentity, "trust.identity", err.Error()}
	}
	if err := acceptable(cert.PublicKey); err != nil {
		return Signer{}, miss{rankIdentity, "trust.certificate", err.Error()}
	}
	signer.Kind = KindKeyless
	if a.keyless.ca != nil {
		signer.Kind = KindCertificate
	}
	for _, i := range a.keyless.identities {
		name, ok := i.match(h)
		if !ok {
			continue
		}
		if signer.KeyID, err = keyID(cert.PublicKey); err != nil {
			return Signer{}, err
		}
		signer.Issuer, signer.Subject, signer.Claims = h.issuer, name, h.claims
		return signer, nil
	}
	return Signer{}, miss{rankIdentity, "trust.identity", fmt.Sprintf("it was signed by %s, certified by %q", clip(fmt.Sprintf("%q", h.subjects)), h.issuer)}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
