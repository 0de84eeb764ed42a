package verify_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// identityYAML is a keyless authority for the identity that sigstore.Signing
// means by its zero value.
const identityYAML = `  authorities:
    - name: ci
      keyless:
        identities:
          - issuer: ` + sigstore.Issuer + `
            subject: ` + sigstore.Subject + `
`

// keyless is a trust directory with that policy and the authority's root.
func keyless(t testing.TB, root []byte, authorities string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "policy.yaml", cip("ci", "registry.example.com/**", authorities))
	if root != nil {
		putRoot(t, dir, "default", root)
	}
	return dir
}

func putRoot(t testing.TB, dir, name string, root []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "roots"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "roots", name+".json"), root, 0o644); err != nil {
		t.Fatal(err)
	}
}

// witnessed signs the image in one of the formats.
func witnessed(a *sigstore.Authority, format, digest string, s sigstore.Signing) verify.Material {
	if format == verify.KindBundle {
		return verify.Material{Kind: format, MediaType: verify.BundleMediaType, Payload: a.Bundle([]byte(statementOf(digest)), s)}
	}
	payload := []byte(payloadOf(digest))
	return verify.Material{Kind: format, MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Payload: payload, Annotations: a.Annotations(payload, s)}
}

var formats = []string{verify.KindCosign, verify.KindBundle}

// ci is a build's claims as GitHub's certificates have them.
var ci = map[int]string{
	sigstore.ExtBuilder: sigstore.Subject, sigstore.ExtRunner: "github-hosted", sigstore.ExtRepository: "https://github.com/team/app",
	sigstore.ExtSHA: strings.Repeat("ab", 20), sigstore.ExtRef: "refs/heads/main", sigstore.ExtWorkflow: sigstore.Subject, sigstore.ExtTrigger: "push",
	sigstore.ExtRun: "https://github.com/team/app/actions/runs/1",
}

func TestKeyless(t *testing.T) {
	a := sigstore.New(t)
	v := open(t, keyless(t, a.Root(), identityYAML))
	for _, format := range formats {
		for _, digest := range []string{imageDigest, indexDigest} {
			e, err := v.Verify(t.Context(), subject(), []verify.Material{witnessed(a, format, digest, sigstore.Signing{Extensions: ci, NoStamp: true})})
			if err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			s := e.Signers()
			want := verify.Claims{
				Repository: "https://github.com/team/app", Ref: "refs/heads/main", SHA: strings.Repeat("ab", 20), Workflow: sigstore.Subject,
				Builder: sigstore.Subject, Trigger: "push", Runner: "github-hosted", Run: "https://github.com/team/app/actions/runs/1",
			}
			if len(s) != 1 || s[0].Kind != verify.KindKeyless || s[0].Issuer != sigstore.Issuer || s[0].Subject != sigstore.Subject ||
				s[0].Digest != digest || s[0].Format != format || s[0].Claims == nil || *s[0].Claims != want {
				t.Fatalf("%+v %+v", s, s[0].Claims)
			}
			if at := s[0].SignedAt; at == nil || at.Source != "log" || at.By != sigstore.RekorURL || at.Time.Sub(a.Now()).Abs() > 2*time.Second {
				t.Fatalf("%+v", at)
			}
			b, err := json.Marshal(e)
			if err != nil || !strings.Contains(string(b), `"claims":{"repository":"https://github.com/team/app"`) || !strings.Contains(string(b), `"signed_at":{"time":`) {
				t.Fatalf("%s %v", b, err)
			}
		}
	}
}

// A log of the second kind gives no time: a timestamp has to.
func TestTiledLog(t *testing.T) {
	a := sigstore.New(t)
	v := open(t, keyless(t, a.Root(), identityYAML))
	e, err := v.Verify(t.Context(), subject(), []verify.Material{witnessed(a, verify.KindBundle, imageDigest, sigstore.Signing{Tiles: true})})
	if err != nil || e.Signers()[0].SignedAt.Source != "timestamp" {
		t.Fatalf("%+v %v", e.Signers(), err)
	}
	e, err = v.Verify(t.Context(), subject(), []verify.Material{witnessed(a, verify.KindBundle, imageDigest, sigstore.Signing{Tiles: true, NoStamp: true})})
	refused(t, e, err, fault.Unverified, "trust.time")
}

func bent(f func(*x509.Certificate)) sigstore.Signing {
	return sigstore.Signing{Bend: f, NoStamp: true}
}

// otherName is a subject that is neither address nor e-mail.
func otherName(t *testing.T, name string) func(*x509.Certificate) {
	value, err := asn1.MarshalWithParams(name, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	id, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 7})
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(class, tag int, b []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: true, Bytes: b})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	san := wrap(asn1.ClassUniversal, asn1.TagSequence, wrap(asn1.ClassContextSpecific, 0, append(id, wrap(asn1.ClassContextSpecific, 0, value)...)))
	return func(c *x509.Certificate) {
		c.URIs, c.EmailAddresses = nil, nil
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san})
	}
}

// TestKeylessRefusals is one thing wrong at a time, in both formats: each is
// refused, by its own rule, and a good signature beside it still counts.
func TestKeylessRefusals(t *testing.T) {
	a, stranger := sigstore.New(t), sigstore.New(t)
	v := open(t, keyless(t, a.Root(), identityYAML))
	hour := time.Hour
	past, now := a.Now().Add(-2*hour), a.Now()
	for name, c := range map[string]struct {
		by   *sigstore.Authority
		rule string
		s    sigstore.Signing
	}{
		"stranger's everything":   {stranger, "trust.log", sigstore.Signing{}},
		"no log":                  {a, "trust.log", sigstore.Signing{NoLog: true}},
		"stranger's log":          {a, "trust.log", sigstore.Signing{OtherLog: stranger}},
		"no SCT":                  {a, "trust.sct", sigstore.Signing{NoSCT: true}},
		"stranger's SCT":          {a, "trust.sct", sigstore.Signing{OtherSCT: stranger}},
		"other subject":           {a, "trust.identity", sigstore.Signing{Subject: sigstore.Subject + "2"}},
		"other case":              {a, "trust.identity", sigstore.Signing{Subject: strings.Replace(sigstore.Subject, "team", "Team", 1)}},
		"other issuer":            {a, "trust.identity", sigstore.Signing{Issuer: "https://accounts.example.com"}},
		"issuer and a slash":      {a, "trust.identity", sigstore.Signing{Issuer: sigstore.Issuer + "/"}},
		"no issuer":               {a, "trust.identity", sigstore.Signing{Issuer: "-"}},
		"two issuers":             {a, "trust.identity", sigstore.Signing{Extensions: map[int]string{sigstore.ExtIssuerV1: "https://accounts.example.com"}}},
		"NUL in a mail":           {a, "trust.identity", sigstore.Signing{Subject: "ci@example.com\x00.evil.test"}},
		"NUL in another name":     {a, "trust.identity", bent(otherName(t, sigstore.Subject+"\x00"))},
		"look-alike letter":       {a, "trust.identity", bent(otherName(t, strings.Replace(sigstore.Subject, "a", "а", 1)))},
		"no name":                 {a, "trust.identity", bent(func(c *x509.Certificate) { c.URIs = nil })},
		"claim with NUL":          {a, "trust.identity", sigstore.Signing{Extensions: map[int]string{sigstore.ExtRef: "refs/heads/main\x00x"}}},
		"not for signing code":    {a, "trust.certificate", bent(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		"expired when logged":     {a, "trust.log", sigstore.Signing{NotBefore: past, NotAfter: past.Add(hour), NoStamp: true}},
		"not yet valid":           {a, "trust.log", sigstore.Signing{NotBefore: now.Add(hour), NotAfter: now.Add(2 * hour), NoStamp: true}},
		"expired when stamped":    {a, "trust.time", sigstore.Signing{NotBefore: past, NotAfter: past.Add(hour), LoggedAt: past.Add(time.Minute)}},
		"logged in the future":    {a, "trust.clock", sigstore.Signing{NotBefore: now, NotAfter: now.AddDate(0, 1, 0), LoggedAt: now.Add(24 * hour), NoStamp: true}},
		"logged before the log":   {a, "trust.log", sigstore.Signing{NotBefore: now.AddDate(-3, 0, 0), NotAfter: now.AddDate(1, 0, 0), LoggedAt: now.AddDate(-2, 0, 0), NoStamp: true}},
		"by a key and logged":     {a, "trust.wrong-key", sigstore.Signing{Key: sigstore.NewKey(t)}},
		"subject longer by a tab": {a, "trust.identity", sigstore.Signing{Subject: "ci@example.com\t"}},
	} {
		for _, format := range formats {
			t.Run(name+" "+format, func(t *testing.T) {
				m := witnessed(c.by, format, imageDigest, c.s)
				e, err := v.Verify(t.Context(), subject(), []verify.Material{m})
				f := refused(t, e, err, fault.Unverified, c.rule)
				if f.Remedy == "" || len(f.Cause) > 2000 {
					t.Errorf("%q %q", f.Cause, f.Remedy)
				}
				good := witnessed(a, format, imageDigest, sigstore.Signing{})
				if e, err := v.Verify(t.Context(), subject(), []verify.Material{m, good}); err != nil || !e.Verified() {
					t.Errorf("a good signature beside it: %v", err)
				}
			})
		}
	}
}

// What a certificate's key signed about another image says nothing of this one.
func TestKeylessOtherImage(t *testing.T) {
	a := sigstore.New(t)
	v := open(t, keyless(t, a.Root(), identityYAML))
	for _, format := range formats {
		m := witnessed(a, format, otherDigest, sigstore.Signing{})
		e, err := v.Verify(t.Context(), subject(), []verify.Material{m})
		refused(t, e, err, fault.Unverified, "trust.wrong-digest")
		m.Payload = []byte(strings.Replace(string(m.Payload), otherDigest, imageDigest, 1))
		if format == verify.KindCosign {
			e, err = v.Verify(t.Context(), subject(), []verify.Material{m})
			refused(t, e, err, fault.Unverified, "trust.log")
		}
	}
}

// TestIdentities is which names a policy's words accept.
func TestIdentities(t *testing.T) {
	a := sigstore.New(t)
	for _, c := range []struct {
		policy, subject, issuer string
		accepted                bool
	}{
		{`subjectRegExp: "https://github.com/team/.*"`, sigstore.Subject, "", true},
		{`subjectRegExp: "github.com/team/app"`, sigstore.Subject, "", false},
		{`subjectRegExp: "https://github.com/team/app"`, sigstore.Subject, "", false},
		{`subjectRegExp: "^https://github.com/team/.*$"`, sigstore.Subject, "", true},
		{`subjectRegExp: "x|https://github.com/team/.*"`, "https://evil.test/?https://github.com/team/x", "", false},
		{`subjectRegExp: "https://github.com/team/.*|x"`, "https://github.com/team/x", "", true},
		{`subjectRegExp: "(?i)https://GITHUB.com/team/.*"`, sigstore.Subject, "", true},
		{`subjectRegExp: ".*@example.com"`, "ci@example.com", "", true},
		{`subjectRegExp: ".*@example.com"`, "ci@example.com.evil.test", "", false},
		{`subjectRegExp: ".*@example.com"`, "ci@evil.test\x00@example.com", "", false},
		{`subjectRegExp: "https://.*/app"`, "https://xn--gthub-n4a.com/app", "", false},
		{`subjectRegExp: "https://xn--.*/app"`, "https://xn--gthub-n4a.com/app", "", true},
		{`subject: "https://xn--gthub-n4a.com/app"`, "https://xn--gthub-n4a.com/app", "", true},
		{`subject: "https://github.com/.*"`, sigstore.Subject, "", false},
		{`subject: ` + sigstore.Subject, sigstore.Subject, "https://token.actions.githubusercontent.com.evil.test", false},
	} {
		t.Run(c.policy+" "+c.subject, func(t *testing.T) {
			v := open(t, keyless(t, a.Root(), "  authorities:\n    - keyless:\n        identities:\n          - issuer: "+sigstore.Issuer+"\n            "+c.policy+"\n"))
			e, err := v.Verify(t.Context(), subject(), []verify.Material{witnessed(a, verify.KindBundle, imageDigest, sigstore.Signing{Subject: c.subject, Issuer: c.issuer})})
			if c.accepted != (err == nil) || c.accepted != e.Verified() {
				t.Fatalf("%v %+v", err, e)
			}
			if !c.accepted {
				refused(t, e, err, fault.Unverified, "trust.identity")
			}
		})
	}
}

func TestTrustRootIsNeeded(t *testing.T) {
	a, other := sigstore.New(t), sigstore.New(t)
	m := []verify.Material{witnessed(a, verify.KindCosign, imageDigest, sigstore.Signing{})}
	e, err := open(t, keyless(t, nil, identityYAML)).Verify(t.Context(), subject(), m)
	if f := refused(t, e, err, fault.Unverified, "trust.no-root"); !strings.Contains(f.Remedy, "ward trust root") {
		t.Error(f.Remedy)
	}
	named := strings.Replace(identityYAML, "keyless:", "keyless:\n        trustRootRef: mine", 1)
	dir := keyless(t, other.Root(), named)
	e, err = open(t, dir).Verify(t.Context(), subject(), m)
	refused(t, e, err, fault.Unverified, "trust.no-root")
	putRoot(t, dir, "mine", a.Root())
	v := open(t, dir)
	e, err = v.Verify(t.Context(), subject(), m)
	if err != nil {
		t.Fatal(err)
	}
	// Another root is another trust, though the policies are the same.
	before := trustOf(t, e)
	putRoot(t, dir, "mine", append(a.Root(), '\n'))
	if e, err = open(t, dir).Verify(t.Context(), subject(), m); err != nil || trustOf(t, e) == before {
		t.Fatal("the digest of trust does not tell", err)
	}
	for name, bad := range map[string]string{
		"empty": "", "not JSON": "x", "no authority": `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`,
		"unknown field": strings.Replace(string(a.Root()), `"tlogs"`, `"tlogz"`, 1), "twice": strings.Replace(string(a.Root()), `"tlogs"`, `"tlogs":[],"tlogs"`, 1),
		"huge": strings.Repeat(" ", 2<<20),
	} {
		t.Run(name, func(t *testing.T) {
			putRoot(t, dir, "mine", []byte(bad))
			v, err := verify.Open(dir)
			if err == nil {
				_, err = v.Verify(t.Context(), subject(), m)
			}
			refused(t, verify.Evidence{}, err, fault.Invalid, "trust.root")
		})
	}
	putRoot(t, dir, "mine", a.Root())
	if err := os.Chmod(filepath.Join(dir, "roots"), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = verify.Open(dir)
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.root")
}

// A policy that needs no trust root does not read one: a broken one is not in
// its way, and costs it nothing.
func TestKeysNeedNoRoot(t *testing.T) {
	k := newKey(t)
	dir := t.TempDir()
	write(t, dir, "p.yaml", cip("a", "**", byKey(k.pem)))
	putRoot(t, dir, "default", []byte("broken"))
	if e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}); err != nil || !e.Verified() {
		t.Fatal(err)
	}
}

func trustOf(t *testing.T, e verify.Evidence) string {
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Trust string }
	if err := json.Unmarshal(b, &v); err != nil || v.Trust == "" {
		t.Fatal(fmt.Sprint(err), string(b))
	}
	return v.Trust
}
