package verify

import (
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// miss is why one signature did not satisfy one authority. A higher rank came
// closer, and says more to whoever has to mend it.
type miss struct {
	rank  int
	rule  string
	cause string
}

func (m miss) Error() string { return m.cause }

// The steps of a check, in the order in which a signature passes them.
const (
	rankMalformed = iota + 1
	rankAbsent
	rankSignature
	rankLog
	rankTime
	rankCertificate
	rankSCT
	rankIdentity
	rankWindow
	rankThreshold
	rankRule
	rankOmitted
	rankRoot
)

// diagnose finds out which step refused, by taking the steps that passing
// needs one at a time. It is asked after the refusal and cannot undo it.
func diagnose(a authority, m *material, e sgverify.SignedEntity, refused error) error {
	cause := clip(refused.Error())
	var times []time.Time
	if a.log != nil {
		found, err := sgverify.VerifyTlogEntry(e, m, 1, true)
		if err != nil {
			return miss{rankLog, "trust.log", "no entry in a trusted transparency log vouches for it: " + clip(err.Error())}
		}
		for _, t := range found {
			times = append(times, t.Time)
		}
	}
	stamped, problems, err := sgverify.VerifySignedTimestamp(e, m)
	if err != nil {
		return miss{rankTime, "trust.time", clip(err.Error())}
	}
	for _, t := range stamped {
		times = append(times, t.Time)
	}
	if a.timestamp != nil && len(stamped) == 0 {
		cause := "it bears no timestamp"
		if len(problems) > 0 {
			cause = "no timestamp of a trusted authority vouches for it: " + clip(errors.Join(problems...).Error())
		}
		return miss{rankTime, "trust.time", cause}
	}
	content, err := e.VerificationContent()
	if err != nil {
		return miss{rankMalformed, "trust.malformed", clip(err.Error())}
	}
	if cert := content.Certificate(); cert != nil && a.keyless != nil {
		return diagnoseCertificate(a, m, content, times, problems, cause)
	}
	return miss{rankSignature, "trust.wrong-key", cause}
}

func diagnoseCertificate(a authority, m *material, content sgverify.VerificationContent, times []time.Time, problems []error, cause string) error {
	cert := content.Certificate()
	if a.log == nil && a.timestamp == nil {
		now := time.Now()
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return miss{rankTime, "trust.time", "its certificate is valid from " + stamp(cert.NotBefore) + " to " + stamp(cert.NotAfter) +
				", now is " + stamp(now) + ", and neither a log nor a timestamp says when it was signed"}
		}
		times = append(times, now)
	}
	if len(times) == 0 {
		cause := "neither a log nor a timestamp says when it was signed, and its certificate is valid for a moment only"
		if len(problems) > 0 {
			cause += ": " + clip(errors.Join(problems...).Error())
		}
		return miss{rankTime, "trust.time", cause}
	}
	for _, t := range times {
		if t.Before(cert.NotBefore) || t.After(cert.NotAfter) {
			return miss{rankTime, "trust.time", "it was signed at " + stamp(t) + ", its certificate is valid from " +
				stamp(cert.NotBefore) + " to " + stamp(cert.NotAfter)}
		}
		if !chained(m, cert, content.Intermediates(), t) {
			return miss{rankCertificate, "trust.certificate", "no trusted authority issued its certificate (for signing code, valid at " + stamp(t) + ")"}
		}
	}
	if !a.keyless.ignoreSCT && !logged(m, cert, content.Intermediates(), times[0]) {
		return miss{rankSCT, "trust.sct", "no trusted certificate log vouches for its certificate (no valid SCT)"}
	}
	if _, err := holderOf(cert); err != nil {
		return miss{rankIdentity, "trust.identity", clip(err.Error())}
	}
	return miss{rankSignature, "trust.wrong-key", cause}
}

// chains returns the ways from cert to a trusted authority at a time.
func chains(m *material, cert *x509.Certificate, between []*x509.Certificate, t time.Time) [][]*x509.Certificate {
	for _, ca := range m.cas {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok {
			own := *f
			own.Intermediates = slices.Concat(f.Intermediates, between)
			ca = &own
		}
		if found, err := ca.Verify(cert, t); err == nil {
			return found
		}
	}
	return nil
}

func chained(m *material, cert *x509.Certificate, between []*x509.Certificate, t time.Time) bool {
	return len(chains(m, cert, between, t)) > 0
}

func logged(m *material, cert *x509.Certificate, between []*x509.Certificate, t time.Time) bool {
	return sgverify.VerifySignedCertificateTimestamp(chains(m, cert, between, t), 1, m) == nil
}
