package verify

import (
	"crypto/x509"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
)

// clock is the moment of one verification. All comparisons with it go through
// its methods, which note the next instant at which one of them would come out
// differently: an answer may be kept until then and no longer.
type clock struct {
	at time.Time
	// until is that instant; zero if there is none.
	until time.Time
}

// newClock stops the clock at t. Only the wall clock counts: it is what
// certificates and windows are written in, and it can be set.
func newClock(t time.Time) *clock { return &clock{at: t.Round(0)} }

// before says whether now is before t.
func (c *clock) before(t time.Time) bool {
	c.note(t)
	return c.at.Before(t)
}

// after says whether now is after t.
func (c *clock) after(t time.Time) bool {
	c.note(t)
	return c.at.After(t)
}

// note remembers that the answer may depend on whether t has come.
func (c *clock) note(t time.Time) {
	if t.IsZero() || !t.After(c.at) {
		return // it has, and stays so for as long as the clock goes on
	}
	if c.until.IsZero() || t.Before(c.until) {
		c.until = t
	}
}

// noteCertificates notes the validity of everything by which a certificate may
// be judged. sigstore-go compares with a clock of its own where no witness
// says when it was signed; to note all of it is earlier than need be, at worst.
func (c *clock) noteCertificates(m *material, e sgverify.SignedEntity) {
	var certs []*x509.Certificate
	if content, err := e.VerificationContent(); err == nil {
		certs = append(certs, content.Certificate())
		certs = append(certs, content.Intermediates()...)
	}
	for _, ca := range m.cas {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok {
			certs = append(append(certs, f.Root), f.Intermediates...)
			c.note(f.ValidityPeriodStart)
			c.note(f.ValidityPeriodEnd)
		}
	}
	for _, cert := range certs {
		if cert != nil {
			c.note(cert.NotBefore)
			c.note(cert.NotAfter)
		}
	}
}
