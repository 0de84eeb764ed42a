package verify

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
)

// trusting is a setting and an authority that accept sigstore.Signing's zero
// value by a.
func trusting(f *testing.F, a *sigstore.Authority) (setting, authority) {
	f.Helper()
	who := identity{}
	var err error
	if who.issuer, err = exactly(sigstore.Issuer); err == nil {
		who.subject, err = exactly(sigstore.Subject)
	}
	if err != nil {
		f.Fatal(err)
	}
	// Each worker is a process of its own that makes an authority anew; the
	// seeds are the first one's, and so is its trust root.
	const env = "WARD_TEST_FUZZ_ROOT_"
	name := env + f.Name()
	if os.Getenv(name) == "" {
		if err := os.Setenv(name, string(a.Root())); err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { os.Unsetenv(name) })
	}
	set := setting{clock: newClock(a.Now()), roots: &roots{files: map[string]*rootFile{defaultRoot: {raw: []byte(os.Getenv(name))}}}}
	return set, authority{name: "a", keyless: &keylessAuthority{identities: []identity{who}}, log: &logDemand{}}
}

// neverMore checks that what is accepted is what was signed, by whom it was.
func neverMore(t *testing.T, c claim, a authority, set setting) {
	if c.bad != nil {
		return
	}
	s, err := c.check(t.Context(), a, set, c.digests[0])
	if err != nil {
		if fault.ClassOf(err) == fault.Invalid {
			t.Fatalf("a signature is no mistake of configuration: %v", err)
		}
		return
	}
	if len(c.digests) != 1 || c.digests[0] != testDigest || s.Digest != testDigest || s.Subject != sigstore.Subject || s.Issuer != sigstore.Issuer || s.SignedAt == nil {
		t.Fatalf("nobody signed this: %+v %v", s, c.digests)
	}
}

// A bundle with certificate, log entries and timestamps.
func FuzzWitnessedBundle(f *testing.F) {
	a := sigstore.New(f)
	statement, err := newStatement(testDigest)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []sigstore.Signing{{}, {Tiles: true}, {NoStamp: true}, {NoLog: true}, {NoPromise: true}, {Key: sigstore.NewKey(f)}} {
		f.Add(a.Bundle(statement, s))
	}
	whole := string(a.Bundle(statement, sigstore.Signing{}))
	f.Add([]byte(strings.Replace(whole, `"logIndex":"0"`, `"logIndex":"-1"`, 1)))
	f.Add([]byte(strings.Replace(whole, `"kind":"dsse"`, `"kind":"intoto"`, 1)))
	f.Add([]byte(strings.Replace(whole, `"tlogEntries":[`, `"tlogEntries":[{},null,`, 1)))
	set, by := trusting(f, a)
	f.Fuzz(func(t *testing.T, b []byte) {
		neverMore(t, parse(Material{Kind: KindBundle, MediaType: BundleMediaType, Payload: b}, Subject{Digests: []string{testDigest}}), by, set)
	})
}

// The annotations that cosign keeps beside a signature.
func FuzzCosignAnnotations(f *testing.F) {
	a := sigstore.New(f)
	body, err := newSimpleSigning("ghcr.io/team/app", testDigest, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []sigstore.Signing{{}, {NoStamp: true}, {NoLog: true}, {Key: sigstore.NewKey(f)}} {
		m := a.Annotations(body, s)
		f.Add(m[static.SignatureAnnotationKey], m[static.CertificateAnnotationKey], m[static.ChainAnnotationKey], m[static.BundleAnnotationKey], m[static.RFC3161TimestampAnnotationKey])
	}
	f.Add("AA==", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "x", `{"Payload":{"body":"e30="}}`, `{"SignedRFC3161Timestamp":"MAA="}`)
	f.Add("AA==", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", `{"SignedEntryTimestamp":"AA==","Payload":{"body":"eyJraW5kIjoicmVrb3JkIiwiYXBpVmVyc2lvbiI6IjAuMC4xIn0=","integratedTime":1,"logIndex":0,"logID":"`+strings.Repeat("0", 64)+`"}}`, "{}")
	set, by := trusting(f, a)
	f.Fuzz(func(t *testing.T, sig, cert, chain, entry, stamp string) {
		m := Material{Kind: KindCosign, MediaType: types.SimpleSigningMediaType, Payload: body, Annotations: map[string]string{
			static.SignatureAnnotationKey: sig, static.CertificateAnnotationKey: cert, static.ChainAnnotationKey: chain,
			static.BundleAnnotationKey: entry, static.RFC3161TimestampAnnotationKey: stamp}}
		neverMore(t, parse(m, Subject{Digests: []string{testDigest}}), by, set)
	})
}

// A trust root is understood whole or refused; what is understood can be
// described and asked.
func FuzzTrustRoot(f *testing.F) {
	a := sigstore.New(f)
	f.Add(a.Root())
	f.Add(a.RootOf(sigstore.Vouch{NoCA: true, NoLog: true}))
	f.Add([]byte(strings.Replace(string(a.Root()), `"validFor"`, `"validfor"`, 1)))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{}],"timestampAuthorities":[{"certChain":{}}]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","certificateAuthorities":[{"certChain":{"certificates":[{}]}}]}`))
	statement, err := newStatement(testDigest)
	if err != nil {
		f.Fatal(err)
	}
	c := parse(Material{Kind: KindBundle, MediaType: BundleMediaType, Payload: a.Bundle(statement, sigstore.Signing{})}, Subject{Digests: []string{testDigest}})
	set, by := trusting(f, a)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseTrustRoot(b); err != nil {
			return
		}
		own := setting{clock: set.clock, roots: &roots{files: map[string]*rootFile{defaultRoot: {raw: b}}}}
		neverMore(t, c, by, own)
	})
}

// A certificate's names are matched as they stand, or not at all.
func FuzzIdentity(f *testing.F) {
	f.Add(sigstore.Subject, sigstore.Subject, false)
	f.Add("https://github.com/team/.*", sigstore.Subject, true)
	f.Add(".*@example.com", "a@evil.test\x00@example.com", true)
	f.Add("a|b", "xa", true)
	f.Add("(?i)A", "a", true)
	f.Add("xn--.*", "xn--a", true)
	f.Add("https://.*", "https://ехample", true)
	f.Fuzz(func(t *testing.T, pattern, name string, expr bool) {
		p, err := exactly(pattern)
		if expr {
			p, err = wholly(pattern)
		}
		if err != nil || plainName(name) != nil {
			return
		}
		if !expr && p.match(name) != (pattern == name) {
			t.Fatalf("%q matches %q", pattern, name)
		}
		if strings.ContainsAny(name, "\x00\r\n \t") {
			t.Fatalf("%q is plain", name)
		}
		if p.match(name) && strings.Contains(strings.ToLower(name), "xn--") && !strings.Contains(strings.ToLower(pattern), "xn--") {
			t.Fatalf("%q matches %q", pattern, name)
		}
		if p.match("") {
			t.Fatalf("%q matches nobody", pattern)
		}
	})
}

// Certificates of an authority of one's own, and of a signer, in PEM and DER.
func FuzzCertificates(f *testing.F) {
	a := sigstore.New(f)
	f.Add([]byte(a.Chain()))
	f.Add(a.CA.Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nX: y\n\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ca, err := ownAuthority(b); err == nil && (ca.Root == nil || !ca.Root.IsCA || len(ca.Intermediates) >= maxChain) {
			t.Fatalf("%+v", ca)
		}
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return
		}
		h, err := holderOf(c)
		if err != nil {
			return
		}
		for _, s := range h.subjects {
			if plainName(s) != nil {
				t.Fatalf("%q", s)
			}
		}
		if out, err := json.Marshal(h.claims); err != nil || len(out) > 16*maxClaim*6 {
			t.Fatal(err, len(out))
		}
	})
}
