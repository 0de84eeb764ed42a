// Package sigstore is a sigstore of one's own, for tests: a certificate
// authority that writes Fulcio's extensions, a certificate log, a transparency
// log of both kinds, a timestamp authority, and the trusted_root.json that
// vouches for them. Everything it issues is made in memory; each wish of
// Signing leaves out or bends one thing, so that a test can show which missing
// thing is refused. It opens no socket, but for Servers and what Rekor is served
// by, and is no part of ward.
package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
)

// The addresses that the trust root gives its parts.
const (
	FulcioURL = "https://fulcio.example.test"
	RekorURL  = "https://rekor.example.test"
	TSAURL    = "https://virtual.tsa.sigstore.dev"
)

// Authority is the whole sigstore.
type Authority struct {
	t testing.TB
	// CA and its Intermediate issue the certificates.
	CA, Intermediate *x509.Certificate
	caKey, between   *ecdsa.PrivateKey
	rekor, ctlog     *ecdsa.PrivateKey
	stamps           *ca.VirtualSigstore
	now              time.Time
}

// New makes one whose parts are valid from a year ago for two years.
func New(t testing.TB) *Authority {
	t.Helper()
	stamps, err := ca.NewVirtualSigstore()
	check(t, err)
	a := &Authority{t: t, rekor: NewKey(t), ctlog: NewKey(t), caKey: NewKey(t), between: NewKey(t), stamps: stamps, now: time.Now()}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: a.now.AddDate(-1, 0, 0), NotAfter: a.now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	a.CA = issue(t, template, template, a.caKey.Public(), a.caKey)
	template = &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		NotBefore: a.now.AddDate(-1, 0, 0), NotAfter: a.now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	a.Intermediate = issue(t, template, a.CA, a.between.Public(), a.caKey)
	return a
}

// Root is the trusted_root.json that vouches for all of it.
func (a *Authority) Root() []byte { return a.RootOf(Vouch{}) }

// Vouch says what a trust root is not to vouch for; the zero value leaves
// nothing out.
type Vouch struct {
	NoCA, NoCTLog, NoLog, NoStamps bool
	// CAUntil, CTLogUntil and LogUntil end what is vouched for at that time.
	CAUntil, CTLogUntil, LogUntil time.Time
}

// RootOf is a trusted_root.json that vouches for less.
func (a *Authority) RootOf(v Vouch) []byte {
	a.t.Helper()
	year := a.now.AddDate(-1, 0, 0)
	var cas []root.CertificateAuthority
	if !v.NoCA {
		cas = append(cas, &root.FulcioCertificateAuthority{
			Root: a.CA, Intermediates: []*x509.Certificate{a.Intermediate}, ValidityPeriodStart: year, ValidityPeriodEnd: v.CAUntil, URI: FulcioURL,
		})
	}
	ctlogs, logs := map[string]*root.TransparencyLog{}, map[string]*root.TransparencyLog{}
	if !v.NoCTLog {
		l := transparency(a.t, a.ctlog.Public(), "https://ct.example.test", year)
		l.ValidityPeriodEnd = v.CTLogUntil
		ctlogs[LogID(a.t, a.ctlog.Public())] = l
	}
	if !v.NoLog {
		l := transparency(a.t, a.rekor.Public(), RekorURL, year)
		l.ValidityPeriodEnd = v.LogUntil
		logs[LogID(a.t, a.rekor.Public())] = l
	}
	var stamps []root.TimestampingAuthority
	if !v.NoStamps {
		stamps = a.stamps.TimestampingAuthorities()
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, ctlogs, stamps, logs)
	check(a.t, err)
	b, err := r.MarshalJSON()
	check(a.t, err)
	return b
}

func transparency(t testing.TB, pub crypto.PublicKey, address string, since time.Time) *root.TransparencyLog {
	t.Helper()
	id, err := hex.DecodeString(LogID(t, pub))
	check(t, err)
	return &root.TransparencyLog{BaseURL: address, ID: id, ValidityPeriodStart: since, HashFunc: crypto.SHA256, PublicKey: pub, SignatureHashFunc: crypto.SHA256}
}

// LogID is the name of a log: the digest of its key.
func LogID(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	check(t, err)
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// NewKey makes an ECDSA P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return k
}

func issue(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return c
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	check(t, err)
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Fulcio's extensions, by the last number of their object identifier.
const (
	ExtIssuerV1   = 1
	ExtIssuer     = 8
	ExtBuilder    = 9
	ExtRunner     = 11
	ExtRepository = 12
	ExtSHA        = 13
	ExtRef        = 14
	ExtWorkflow   = 18
	ExtTrigger    = 20
	ExtRun        = 21
)

// extension writes one of Fulcio's extensions; the first six hold bare text.
func extension(t testing.TB, n int, value string) pkix.Extension {
	t.Helper()
	e := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: []byte(value)}
	if n > 6 {
		der, err := asn1.MarshalWithParams(value, "utf8")
		check(t, err)
		e.Value = der
	}
	return e
}

func address(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	check(t, err)
	return u
}
