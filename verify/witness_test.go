package verify_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// noted is a policy with an annotation of ours.
func noted(key, value, authorities string) string {
	return strings.Replace(cip("a", "registry.example.com/**", authorities), "  name: a\n",
		fmt.Sprintf("  name: a\n  annotations:\n    ward.dev/%s: %q\n", key, value), 1)
}

func several(keys ...keyPair) string {
	var all []byte
	for _, k := range keys {
		all = append(all, k.pem...)
	}
	return byKey(all)
}

func TestThreshold(t *testing.T) {
	a, b, c, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
	dir := t.TempDir()
	write(t, dir, "p.yaml", noted("threshold", "authority-0=2", several(a, b, c)))
	v := open(t, dir)
	sa, sb := a.sign(t, verify.KindCosign, imageDigest), b.sign(t, verify.KindBundle, indexDigest)
	for name, m := range map[string][]verify.Material{
		"one": {sa}, "one twice": {sa, sa}, "one in two formats": {sa, a.sign(t, verify.KindBundle, imageDigest)},
		"one and a stranger": {sa, stranger.sign(t, verify.KindCosign, imageDigest)},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := v.Verify(t.Context(), subject(), m)
			if f := refused(t, e, err, fault.Unverified, "trust.threshold"); !strings.Contains(f.Cause, "1 of the 2") {
				t.Error(f.Cause)
			}
		})
	}
	t.Run("the second is about another image", func(t *testing.T) {
		e, err := v.Verify(t.Context(), subject(), []verify.Material{sa, b.sign(t, verify.KindCosign, otherDigest)})
		refused(t, e, err, fault.Unverified, "trust.wrong-digest")
	})
	e, err := v.Verify(t.Context(), subject(), []verify.Material{sa, sa, sb})
	if err != nil || len(e.Signers()) != 2 || e.Signers()[0].KeyID == e.Signers()[1].KeyID {
		t.Fatalf("%v %+v", err, e.Signers())
	}
	for _, bad := range []string{"authority-0=0", "authority-0=4", "authority-0=-1", "authority-0=two", "authority-1=1", "2", "", "authority-0=2,"} {
		dir := t.TempDir()
		write(t, dir, "p.yaml", noted("threshold", bad, several(a, b, c)))
		_, err := verify.Open(dir)
		refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
	}
	// The same key twice is one key.
	dir = t.TempDir()
	write(t, dir, "p.yaml", noted("threshold", "authority-0=2", several(a, a)))
	_, err = verify.Open(dir)
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
	dir = t.TempDir()
	write(t, dir, "p.yaml", noted("thresholds", "authority-0=2", several(a, b)))
	_, err = verify.Open(dir)
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
}

// A key's window is judged now where nobody saw it sign, and then where a log
// or a timestamp authority did.
func TestKeyWindow(t *testing.T) {
	a, key := sigstore.New(t), sigstore.NewKey(t)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	plain := byKey(public)
	logged, stamped := plain+"      ctlog: {trustRootRef: default}\n", plain+"      rfc3161timestamp: {trustRootRef: default}\n"
	now := a.Now()
	for name, c := range map[string]struct {
		annotation  string
		at          time.Duration
		authorities string
		s           sigstore.Signing
		rule        string
	}{
		"in force":                    {"not-after", time.Hour, plain, sigstore.Signing{NoLog: true, NoStamp: true}, ""},
		"given up":                    {"not-after", -time.Hour, plain, sigstore.Signing{NoLog: true, NoStamp: true}, "trust.key-window"},
		"given up, a time unasked":    {"not-after", -time.Hour, plain, sigstore.Signing{LoggedAt: now.Add(-2 * time.Hour)}, "trust.key-window"},
		"given up, logged before":     {"not-after", -time.Hour, logged, sigstore.Signing{LoggedAt: now.Add(-2 * time.Hour), NoStamp: true}, ""},
		"given up, logged after":      {"not-after", -3 * time.Hour, logged, sigstore.Signing{LoggedAt: now.Add(-2 * time.Hour), NoStamp: true}, "trust.key-window"},
		"given up, stamped after":     {"not-after", -time.Hour, stamped, sigstore.Signing{NoLog: true}, "trust.key-window"},
		"in force, stamped":           {"not-after", time.Hour, stamped, sigstore.Signing{NoLog: true}, ""},
		"not yet":                     {"not-before", time.Hour, plain, sigstore.Signing{NoLog: true, NoStamp: true}, "trust.key-window"},
		"not yet when it was logged":  {"not-before", -time.Hour, logged, sigstore.Signing{LoggedAt: now.Add(-2 * time.Hour), NoStamp: true}, "trust.key-window"},
		"by now":                      {"not-before", -time.Hour, plain, sigstore.Signing{NoLog: true, NoStamp: true}, ""},
		"no entry where one is asked": {"not-before", -time.Hour, logged, sigstore.Signing{NoLog: true}, "trust.log"},
		"no stamp where one is asked": {"not-before", -time.Hour, stamped, sigstore.Signing{NoStamp: true}, "trust.time"},
	} {
		for _, format := range formats {
			t.Run(name+" "+format, func(t *testing.T) {
				dir := t.TempDir()
				write(t, dir, "p.yaml", noted(c.annotation, "authority-0="+now.Add(c.at).Format(time.RFC3339), c.authorities))
				putRoot(t, dir, "default", a.Root())
				c.s.Key = key
				e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{witnessed(a, format, imageDigest, c.s)})
				if c.rule != "" {
					refused(t, e, err, fault.Unverified, c.rule)
				} else if err != nil || !e.Verified() || e.Signers()[0].Kind != verify.KindKey {
					t.Fatalf("%v %+v", err, e.Signers())
				}
			})
		}
	}
	for _, bad := range []string{"authority-0=2026-01-01", "authority-0=tomorrow", "authority-0=", "x=2026-01-01T00:00:00Z"} {
		dir := t.TempDir()
		write(t, dir, "p.yaml", noted("not-after", bad, plain))
		_, err := verify.Open(dir)
		refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
	}
}

// A key's signature whose log entry or timestamp is about something else, or
// by a stranger, is refused; so is one whose entry names another key.
func TestKeyWithWitness(t *testing.T) {
	a, stranger, key := sigstore.New(t), sigstore.New(t), sigstore.NewKey(t)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	both := byKey(public) + "      ctlog: {trustRootRef: default}\n      rfc3161timestamp: {}\n"
	v := open(t, keyless(t, a.Root(), both))
	for _, format := range formats {
		ok := witnessed(a, format, imageDigest, sigstore.Signing{Key: key})
		e, err := v.Verify(t.Context(), subject(), []verify.Material{ok})
		if err != nil || e.Signers()[0].SignedAt == nil {
			t.Fatalf("%s: %v", format, err)
		}
		for name, c := range map[string]struct {
			rule string
			s    sigstore.Signing
		}{
			"stranger's log":   {"trust.log", sigstore.Signing{Key: key, OtherLog: stranger}},
			"stranger's stamp": {"trust.time", sigstore.Signing{Key: key, OtherStamp: stranger}},
			"no stamp":         {"trust.time", sigstore.Signing{Key: key, NoStamp: true}},
			"no log":           {"trust.log", sigstore.Signing{Key: key, NoLog: true}},
			"another key":      {"trust.wrong-key", sigstore.Signing{Key: sigstore.NewKey(t)}},
			"a certificate":    {"trust.wrong-key", sigstore.Signing{}},
		} {
			t.Run(name+" "+format, func(t *testing.T) {
				e, err := v.Verify(t.Context(), subject(), []verify.Material{witnessed(a, format, imageDigest, c.s)})
				refused(t, e, err, fault.Unverified, c.rule)
			})
		}
	}
	// A key and a log of the second kind: there is no time, and none is asked.
	loggedOnly := open(t, keyless(t, a.Root(), byKey(public)+"      ctlog: {url: "+sigstore.RekorURL+"/}\n"))
	e, err := loggedOnly.Verify(t.Context(), subject(), []verify.Material{witnessed(a, verify.KindBundle, imageDigest, sigstore.Signing{Key: key, Tiles: true, NoStamp: true})})
	if err != nil || e.Signers()[0].SignedAt != nil {
		t.Fatalf("%v %+v", err, e.Signers())
	}
}

// Only the log, authority and timestamp authority that a policy names count.
func TestOnlyWhatIsNamed(t *testing.T) {
	a, other := sigstore.New(t), sigstore.New(t)
	m := []verify.Material{witnessed(a, verify.KindCosign, imageDigest, sigstore.Signing{})}
	in := func(extra string) string {
		return strings.Replace(identityYAML, "      keyless:", extra+"      keyless:", 1)
	}
	under := func(extra string) string {
		return strings.Replace(identityYAML, "        identities:", extra+"        identities:", 1)
	}
	for name, c := range map[string]struct{ authorities, rule string }{
		"the log by address":        {in("      ctlog: {url: " + sigstore.RekorURL + "}\n"), ""},
		"another log":               {in("      ctlog: {url: https://rekor.sigstore.dev}\n"), "trust.no-root"},
		"the authority by address":  {under("        url: " + sigstore.FulcioURL + "\n"), ""},
		"another authority":         {under("        url: https://fulcio.sigstore.dev\n"), "trust.no-root"},
		"a log of another root":     {in("      ctlog: {trustRootRef: other}\n"), "trust.log"},
		"stamps of another root":    {in("      rfc3161timestamp: {trustRootRef: other}\n"), "trust.time"},
		"an authority of another":   {strings.Replace(in("      ctlog: {trustRootRef: default}\n"), "keyless:", "keyless:\n        trustRootRef: other", 1), "trust.certificate"},
		"stamps instead of a log":   {in("      rfc3161timestamp: {}\n"), ""},
		"neither, while it is good": {in("      ctlog: {}\n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := keyless(t, a.Root(), c.authorities)
			putRoot(t, dir, "other", other.Root())
			e, err := open(t, dir).Verify(t.Context(), subject(), m)
			if c.rule != "" {
				refused(t, e, err, fault.Unverified, c.rule)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, v := range map[string]struct {
		vouch sigstore.Vouch
		rule  string
	}{
		"no authority":       {sigstore.Vouch{NoCA: true}, "trust.no-root"},
		"no certificate log": {sigstore.Vouch{NoCTLog: true}, "trust.sct"},
		"no log":             {sigstore.Vouch{NoLog: true}, "trust.no-root"},
		"authority given up": {sigstore.Vouch{CAUntil: a.Now().AddDate(0, -1, 0)}, "trust.certificate"},
		"CT log given up":    {sigstore.Vouch{CTLogUntil: a.Now().AddDate(0, -1, 0)}, "trust.sct"},
		"log given up":       {sigstore.Vouch{LogUntil: a.Now().AddDate(0, -1, 0)}, "trust.log"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := open(t, keyless(t, a.RootOf(v.vouch), identityYAML)).Verify(t.Context(), subject(), m)
			refused(t, e, err, fault.Unverified, v.rule)
		})
	}
	// Without log and timestamp a certificate counts as long as it is valid.
	for name, s := range map[string]sigstore.Signing{
		"expired": {NotBefore: a.Now().Add(-2 * time.Hour), NotAfter: a.Now().Add(-time.Hour), NoLog: true, NoStamp: true},
		"not yet": {NotBefore: a.Now().Add(time.Hour), NotAfter: a.Now().Add(2 * time.Hour), NoLog: true, NoStamp: true},
		// A time that the policy does not ask for makes nothing valid.
		"expired, logged in time": {NotBefore: a.Now().Add(-2 * time.Hour), NotAfter: a.Now().Add(-time.Hour), LoggedAt: a.Now().Add(-90 * time.Minute), NoStamp: true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := open(t, keyless(t, a.Root(), in("      ctlog: {}\n"))).Verify(t.Context(), subject(),
				[]verify.Material{witnessed(a, verify.KindBundle, imageDigest, s)})
			refused(t, e, err, fault.Unverified, "trust.time")
		})
	}
}

// ownCA is an authority of one's own.
func ownCA(extra, identity string, certs ...*x509.Certificate) string {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return "  authorities:\n    - name: own\n" + extra + "      keyless:\n        insecureIgnoreSCT: true\n        identities:\n          - " + identity +
		"\n        ca-cert:\n          data: |\n            " + strings.ReplaceAll(indented(b), "\n", "\n  ") + "\n"
}

func TestOwnCA(t *testing.T) {
	a, stranger := sigstore.New(t), sigstore.New(t)
	off := "      ctlog: {}\n"
	s := sigstore.Signing{Subject: "release@example.com", Issuer: "-", NoSCT: true, NoLog: true, NoStamp: true}
	direct := s
	direct.Root = true
	for name, c := range map[string]struct {
		authorities, format string
		by                  *sigstore.Authority
		s                   sigstore.Signing
		rule                string
	}{
		"root and intermediate":   {ownCA(off, "subject: release@example.com", a.Intermediate, a.CA), verify.KindBundle, a, s, ""},
		"root alone, chain along": {ownCA(off, "subject: release@example.com", a.CA), verify.KindCosign, a, s, ""},
		"root alone, no chain":    {ownCA(off, "subject: release@example.com", a.CA), verify.KindBundle, a, s, "trust.certificate"},
		"intermediate alone":      {ownCA(off, "subject: release@example.com", a.Intermediate), verify.KindBundle, a, s, ""},
		"issued by the root":      {ownCA(off, "subject: release@example.com", a.CA), verify.KindBundle, a, direct, ""},
		"stranger":                {ownCA(off, "subject: release@example.com", a.Intermediate, a.CA), verify.KindCosign, stranger, s, "trust.certificate"},
		"other name":              {ownCA(off, "subject: build@example.com", a.Intermediate, a.CA), verify.KindCosign, a, s, "trust.identity"},
		"any name of theirs":      {ownCA(off, `subjectRegExp: ".*"`, a.Intermediate, a.CA), verify.KindCosign, a, s, ""},
		"issuer asked for":        {ownCA(off, "subject: release@example.com\n            issuer: https://x.example", a.Intermediate, a.CA), verify.KindCosign, a, s, "trust.identity"},
		"stamp asked for":         {ownCA("      rfc3161timestamp: {}\n", "subject: release@example.com", a.Intermediate, a.CA), verify.KindCosign, a, s, "trust.time"},
		"log by default":          {ownCA("", "subject: release@example.com", a.Intermediate, a.CA), verify.KindCosign, a, s, "trust.log"},
		"SCT unless waived": {strings.Replace(ownCA(off, "subject: release@example.com", a.Intermediate, a.CA), "insecureIgnoreSCT: true", "insecureIgnoreSCT: false", 1),
			verify.KindCosign, a, s, "trust.sct"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := open(t, keyless(t, a.Root(), c.authorities)).Verify(t.Context(), subject(), []verify.Material{witnessed(c.by, c.format, imageDigest, c.s)})
			if c.rule != "" {
				refused(t, e, err, fault.Unverified, c.rule)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := e.Signers()[0]; s.Kind != verify.KindCertificate || s.Subject != "release@example.com" || s.SignedAt != nil {
				t.Fatalf("%+v", s)
			}
		})
	}
	// With neither log nor SCT no trust root is needed.
	e, err := open(t, keyless(t, nil, ownCA(off, "subject: release@example.com", a.Intermediate, a.CA))).Verify(t.Context(), subject(),
		[]verify.Material{witnessed(a, verify.KindBundle, imageDigest, s)})
	if err != nil || !e.Verified() {
		t.Fatal(err)
	}
}

// What a policy may not say about certificates, with its line.
func TestKeylessPolicyErrors(t *testing.T) {
	a := sigstore.New(t)
	who := "          - issuer: https://i.example\n            subject: x@example.com\n"
	begin := "  authorities:\n    - keyless:\n"
	for name, c := range map[string]struct{ authorities, where, what string }{
		"no identities":          {begin + "        url: https://x\n", ":9:", "identities is missing"},
		"empty identities":       {begin + "        identities: []\n", ":10:", "empty"},
		"no subject":             {begin + "        identities:\n          - issuer: https://i.example\n", ":11:", "subject"},
		"no issuer":              {begin + "        identities:\n          - subject: x@example.com\n", ":9:", "issuer"},
		"both forms":             {begin + "        identities:\n" + who + "            subjectRegExp: x\n", ":11:", "one of them"},
		"every name":             {begin + "        identities:\n          - issuer: https://i.example\n            subjectRegExp: .*\n", ":9:", "matches every name"},
		"every name, written on": {begin + "        identities:\n          - issuer: https://i.example\n            subjectRegExp: \"x|.+\"\n", ":9:", "matches every name"},
		"bad expression":         {begin + "        identities:\n          - issuer: https://i.example\n            subjectRegExp: \"a)|(b\"\n", ":11:", "unexpected )"},
		"look-alike":             {begin + "        identities:\n          - issuer: https://i.example\n            subject: ехample@example.com\n", ":11:", "printable ASCII"},
		"url and ca":             {strings.Replace(ownCA("", "subject: x", a.CA), "        identities", "        url: https://x\n        identities", 1), ":10:", "url and ca-cert"},
		"leaf for a ca":          {begin + "        identities:\n" + who + "        ca-cert: {data: x}\n", ":13:", "PEM"},
		"two roots":              {ownCA("", "subject: x", a.CA, sigstore.New(t).CA), ":15:", "two root"},
		"ca by secret":           {begin + "        identities:\n" + who + "        ca-cert: {secretRef: {name: x}}\n", ":13:", "secretRef"},
		"root's path":            {begin + "        identities:\n" + who + "        trustRootRef: ../../x\n", ":13:", "not a name"},
		"sct maybe":              {begin + "        identities:\n" + who + "        insecureIgnoreSCT: maybe\n", ":13:", "true or false"},
		"unknown field":          {begin + "        identities:\n" + who + "        insecureIgnoreSct: true\n", ":13:", "unknown field"},
		"keyless and key":        {begin + "        identities:\n" + who + "      key: {data: x}\n", ":", ""},
		"static with a log":      {"  authorities:\n    - static: {action: fail}\n      ctlog: {}\n", ":9:", "mean nothing"},
		"threshold for names":    {begin + "        identities:\n" + who, ":", "has no key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			content := cip("a", "**", c.authorities)
			if strings.HasPrefix(name, "threshold") {
				content = noted("threshold", "authority-0=2", c.authorities)
			}
			write(t, dir, "bad.yaml", content)
			_, err := verify.Open(dir)
			f := refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
			if rest := strings.TrimPrefix(f.Cause, dir+"/bad.yaml"); !strings.HasPrefix(rest, c.where) || !strings.Contains(rest, c.what) {
				t.Errorf("want %s … %s, got %s", c.where, c.what, f.Cause)
			}
		})
	}
}
