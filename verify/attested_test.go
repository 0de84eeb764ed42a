package verify_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

const (
	slsaType = "https://slsa.dev/provenance/v1"
	vulnType = "https://cosign.sigstore.dev/attestation/vuln/v1"
	sbomType = "https://spdx.dev/Document"
)

var statedFormats = []string{verify.KindEnvelope, verify.KindBundle}

// stating is a statement of the newer version about one image.
func stating(digest, predicateType, predicate string) string {
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"registry.example.com/team/app","digest":{"sha256":"` +
		strings.TrimPrefix(digest, "sha256:") + `"}}],"predicateType":"` + predicateType + `","predicate":` + predicate + `}`
}

// attest signs a statement with a key, in one of the formats.
func (k keyPair) attest(t testing.TB, format, statement string) verify.Material {
	t.Helper()
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(inToto), inToto, len(statement), statement)
	return asEnvelope(k.bundleOf(t, inToto, statement), format, statement, k.signRaw(t, []byte(pae)))
}

func asEnvelope(bundle verify.Material, format, statement string, sig []byte) verify.Material {
	if format == verify.KindBundle {
		bundle.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": slsaType}
		return bundle
	}
	layer := fmt.Sprintf(`{"payloadType":%q,"payload":%q,"signatures":[{"keyid":"","sig":%q}]}`, inToto,
		base64.StdEncoding.EncodeToString([]byte(statement)), base64.StdEncoding.EncodeToString(sig))
	return verify.Material{Kind: format, MediaType: "application/vnd.dsse.envelope.v1+json", Payload: []byte(layer),
		Annotations: map[string]string{sigAnnotation: "", "predicateType": slsaType}}
}

// witnessedStatement signs a statement with a certificate.
func witnessedStatement(a *sigstore.Authority, format, statement string, s sigstore.Signing) verify.Material {
	if format == verify.KindBundle {
		return verify.Material{Kind: format, MediaType: verify.BundleMediaType, Payload: a.Bundle([]byte(statement), s),
			Annotations: map[string]string{"dev.sigstore.bundle.predicateType": slsaType}}
	}
	layer, annotations := a.Envelope([]byte(statement), s)
	return verify.Material{Kind: format, MediaType: "application/vnd.dsse.envelope.v1+json", Payload: layer, Annotations: annotations}
}

func TestAttestationsReachEvidence(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	predicate := `{"buildDefinition": {"buildType":"https://example.com/<b>"}, "n": 1.50}`
	for _, format := range statedFormats {
		for _, digest := range []string{imageDigest, indexDigest} {
			m := k.attest(t, format, stating(digest, slsaType, predicate))
			not := stranger.attest(t, format, stating(digest, vulnType, `{}`))
			e, err := v.Verify(t.Context(), subject(), []verify.Material{m, not, k.sign(t, verify.KindCosign, imageDigest)})
			if err != nil {
				t.Fatal(err)
			}
			as := e.Attestations()
			if len(as) != 1 || as[0].PredicateType != slsaType || as[0].Digest != digest || as[0].Envelope != digestOf(m.Payload) ||
				as[0].PredicateDigest != digestOf([]byte(predicate)) || as[0].PredicateSize != len(predicate) || string(as[0].Predicate()) != predicate {
				t.Fatalf("%s: %+v", format, as)
			}
			if s := as[0].Signers; len(s) != 1 || s[0].Kind != verify.KindKey || s[0].Format != format || s[0].Digest != digest || s[0].Authority != "authority-0" || s[0].Policy == "" {
				t.Fatalf("%+v", s)
			}
			if p := e.Predicates(); len(p) != 1 || string(p[as[0].PredicateDigest]) != predicate {
				t.Fatalf("%s", p)
			}
			b, err := json.Marshal(e)
			if err != nil || strings.Contains(string(b), "buildDefinition") {
				t.Fatalf("%s %v", b, err)
			}
			var form struct {
				Refused []verify.RefusedAttestation
				Count   int `json:"attestations_refused"`
			}
			if err := json.Unmarshal(b, &form); err != nil || form.Count != 1 || len(form.Refused) != 1 || form.Refused[0] != (verify.RefusedAttestation{PredicateType: vulnType, Envelope: digestOf(not.Payload), Rule: "trust.wrong-key"}) {
				t.Fatalf("%+v %v", form, err)
			}
		}
	}
}

// The form in which a policy sees them is fixed: others build on it.
func TestEvidenceForm(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "policy", "testdata", "attestations", "evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	k := newKey(t)
	e, err := trusting(t, k, "registry.example.com/team/*").Verify(t.Context(), subject(), []verify.Material{
		k.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{}`)), k.sign(t, verify.KindBundle, imageDigest)})
	if err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(e); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	first := want["attestations"].([]any)[0].(map[string]any)
	delete(first, "predicate") // which policy puts in place
	for _, pair := range [][2]map[string]any{{want, got}, {first, got["attestations"].([]any)[0].(map[string]any)}} {
		for key, value := range pair[0] {
			if reflect.TypeOf(pair[1][key]) != reflect.TypeOf(value) {
				t.Errorf("%s is %T, not %T", key, pair[1][key], value)
			}
		}
		for key := range pair[1] {
			if _, ok := pair[0][key]; !ok && key != "omitted" && key != "refused" && key != "warnings" {
				t.Errorf("%s is new", key)
			}
		}
	}
}

func TestVerifyAttestations(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	one := k.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{"a":1}`))
	two := k.attest(t, verify.KindBundle, stating(imageDigest, vulnType, `{"b":2}`))
	as, err := v.VerifyAttestations(t.Context(), subject(), []verify.Material{one, two}, slsaType)
	if err != nil || len(as) != 1 || string(as[0].Predicate()) != `{"a":1}` || string(as[0].Statement()) != stating(imageDigest, slsaType, `{"a":1}`) {
		t.Fatalf("%+v %v", as, err)
	}
	if b, err := as[0].DSSE(); err != nil || !strings.Contains(string(b), base64.StdEncoding.EncodeToString(as[0].Statement())) {
		t.Fatalf("%s %v", b, err)
	}
	if as, err = v.VerifyAttestations(t.Context(), subject(), []verify.Material{one, two}, ""); err != nil || len(as) != 2 {
		t.Fatalf("%+v %v", as, err)
	}
	// One that was filed among the signatures.
	two.Annotations = nil
	if as, err = v.VerifyAttestations(t.Context(), subject(), []verify.Material{two}, vulnType); err != nil || len(as) != 1 {
		t.Fatalf("%+v %v", as, err)
	}
	omitted := subject()
	omitted.Omitted = []verify.OmittedAttestation{{PredicateType: sbomType, Digest: imageDigest, Size: 100 << 20, Reason: "104857600 bytes, at most 12582912 are kept"}}
	for name, c := range map[string]struct {
		s    verify.Subject
		m    []verify.Material
		want string
		rule string
	}{
		"none":                {subject(), nil, "", "trust.no-attestation"},
		"another type":        {subject(), []verify.Material{one}, sbomType, "trust.no-attestation"},
		"a stranger's":        {subject(), []verify.Material{stranger.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{}`))}, slsaType, "trust.wrong-key"},
		"about another image": {subject(), []verify.Material{k.attest(t, verify.KindEnvelope, stating(otherDigest, slsaType, `{}`))}, slsaType, "trust.wrong-digest"},
		"omitted":             {omitted, nil, sbomType, "trust.omitted"},
		"no policy":           {verify.Subject{Reference: "elsewhere.example.com/x", Digests: []string{imageDigest}}, []verify.Material{one}, "", "trust.no-policy"},
	} {
		t.Run(name, func(t *testing.T) {
			as, err := v.VerifyAttestations(t.Context(), c.s, c.m, c.want)
			if len(as) != 0 {
				t.Errorf("%+v", as)
			}
			refused(t, verify.Evidence{}, err, fault.Unverified, c.rule)
		})
	}
}

// What is too large to keep is said to be there, and never taken for absent.
func TestOmittedIsSeen(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	s := subject()
	s.Omitted = []verify.OmittedAttestation{{PredicateType: "bad\x1b[31m", Digest: imageDigest, Size: 100 << 20, Reason: "too large\x1b"}}
	e, err := v.Verify(t.Context(), s, []verify.Material{k.sign(t, verify.KindCosign, imageDigest)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(b), `"omitted":[{"predicate_type":"","digest":"`+imageDigest+`","size":104857600,"reason":"too large?"}]`) {
		t.Fatalf("%s %v", b, err)
	}
}

// The same said twice is said once, by all who said it; contradictions are all
// there, in an order that does not depend on where they lay.
func TestDuplicateAndConflictingAttestations(t *testing.T) {
	a, b := newKey(t), newKey(t)
	dir := t.TempDir()
	write(t, dir, "p.yaml", cip("team", "registry.example.com/**", byKey(slices.Concat(a.pem, b.pem))))
	v := open(t, dir)
	same := stating(imageDigest, slsaType, `{"level":3}`)
	ms := []verify.Material{
		a.sign(t, verify.KindCosign, imageDigest),
		a.attest(t, verify.KindEnvelope, same), a.attest(t, verify.KindEnvelope, same), a.attest(t, verify.KindBundle, same), b.attest(t, verify.KindEnvelope, same),
		a.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{"level":1}`)),
		b.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{}`)),
	}
	e, err := v.Verify(t.Context(), subject(), ms)
	if err != nil {
		t.Fatal(err)
	}
	as := e.Attestations()
	if len(as) != 3 || as[0].PredicateType != vulnType || as[1].PredicateType != slsaType || as[2].PredicateType != slsaType {
		t.Fatalf("%+v", as)
	}
	for _, x := range as[1:] {
		if want := map[string]int{`{"level":3}`: 2, `{"level":1}`: 1}[string(x.Predicate())]; len(x.Signers) != want {
			t.Errorf("%s: %+v", x.Predicate(), x.Signers)
		}
	}
	slices.Reverse(ms)
	other, err := v.Verify(t.Context(), subject(), ms)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := json.Marshal(e)
	two, _ := json.Marshal(other)
	var x, y map[string]any
	_, _ = json.Unmarshal(one, &x), json.Unmarshal(two, &y)
	for i := range x["attestations"].([]any) {
		l, r := x["attestations"].([]any)[i].(map[string]any), y["attestations"].([]any)[i].(map[string]any)
		if l["envelope"] != r["envelope"] || l["predicate_digest"] != r["predicate_digest"] {
			t.Errorf("another order: %v %v", l, r)
		}
	}
}

// An authority that asks for two keys believes what both have said.
func TestAttestationThreshold(t *testing.T) {
	a, b, dir := newKey(t), newKey(t), t.TempDir()
	write(t, dir, "p.yaml", strings.Replace(cip("team", "registry.example.com/**", strings.Replace(byKey(slices.Concat(a.pem, b.pem)), "- key", "- name: both\n      key", 1)),
		"  name: team\n", "  name: team\n  annotations:\n    ward.dev/threshold: both=2\n", 1))
	v := open(t, dir)
	s := stating(imageDigest, slsaType, `{}`)
	for _, ms := range [][]verify.Material{
		{a.attest(t, verify.KindEnvelope, s)},
		{a.attest(t, verify.KindEnvelope, s), a.attest(t, verify.KindBundle, s)},
		{a.attest(t, verify.KindEnvelope, s), b.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{"x":1}`))},
	} {
		_, err := v.VerifyAttestations(t.Context(), subject(), ms, "")
		refused(t, verify.Evidence{}, err, fault.Unverified, "trust.threshold")
	}
	as, err := v.VerifyAttestations(t.Context(), subject(), []verify.Material{a.attest(t, verify.KindEnvelope, s), b.attest(t, verify.KindBundle, s)}, "")
	if err != nil || len(as) != 1 || len(as[0].Signers) != 2 {
		t.Fatalf("%+v %v", as, err)
	}
}

func TestKeylessAttestations(t *testing.T) {
	a, other := sigstore.New(t), sigstore.New(t)
	log := open(t, keyless(t, a.Root(), identityYAML))
	stamp := open(t, keyless(t, a.Root(), identityYAML+"      rfc3161timestamp: {}\n"))
	s := stating(indexDigest, slsaType, `{}`)
	for _, format := range statedFormats {
		for name, c := range map[string]struct {
			v       *verify.Verifier
			signing sigstore.Signing
			source  string // "" is refused
			rule    string
		}{
			"log":                {log, sigstore.Signing{Extensions: ci, NoStamp: true}, "log", ""},
			"timestamp":          {stamp, sigstore.Signing{NoLog: true}, "timestamp", ""},
			"no log":             {log, sigstore.Signing{NoLog: true}, "", "trust.log"},
			"another's log":      {log, sigstore.Signing{OtherLog: other}, "", "trust.log"},
			"no timestamp":       {stamp, sigstore.Signing{NoStamp: true}, "", "trust.time"},
			"another's stamp":    {stamp, sigstore.Signing{NoLog: true, OtherStamp: other}, "", "trust.time"},
			"another's name":     {log, sigstore.Signing{Subject: "https://github.com/evil/app"}, "", "trust.identity"},
			"too late for it":    {log, sigstore.Signing{NoStamp: true, LoggedAt: a.Now().Add(8 * time.Minute)}, "", "trust.log"},
			"no certificate log": {log, sigstore.Signing{NoSCT: true}, "", "trust.sct"},
		} {
			t.Run(format+" "+name, func(t *testing.T) {
				as, err := c.v.VerifyAttestations(t.Context(), subject(), []verify.Material{witnessedStatement(a, format, s, c.signing)}, slsaType)
				if c.source == "" {
					refused(t, verify.Evidence{}, err, fault.Unverified, c.rule)
					return
				}
				if err != nil || len(as) != 1 || len(as[0].Signers) != 1 {
					t.Fatalf("%+v %v", as, err)
				}
				x := as[0].Signers[0]
				if x.Kind != verify.KindKeyless || x.Subject != sigstore.Subject || x.Digest != indexDigest || x.SignedAt == nil || x.SignedAt.Source != c.source {
					t.Fatalf("%+v", x)
				}
				if name == "log" && (x.Claims == nil || x.Claims.Repository != "https://github.com/team/app") {
					t.Fatalf("%+v", x.Claims)
				}
			})
		}
	}
}

// A timestamp in a layer is about the whole layer: one about the signature
// alone, or about another layer, says nothing.
func TestStampOfAnotherLayer(t *testing.T) {
	a := sigstore.New(t)
	v := open(t, keyless(t, a.Root(), identityYAML+"      rfc3161timestamp: {}\n"))
	one := witnessedStatement(a, verify.KindEnvelope, stating(imageDigest, slsaType, `{}`), sigstore.Signing{NoLog: true})
	two := witnessedStatement(a, verify.KindEnvelope, stating(imageDigest, vulnType, `{}`), sigstore.Signing{NoLog: true})
	two.Annotations["dev.sigstore.cosign/rfc3161timestamp"] = one.Annotations["dev.sigstore.cosign/rfc3161timestamp"]
	_, err := v.VerifyAttestations(t.Context(), subject(), []verify.Material{two}, "")
	refused(t, verify.Evidence{}, err, fault.Unverified, "trust.time")
}

func TestHostileAttestations(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	good := stating(imageDigest, slsaType, `{}`)
	hex := strings.TrimPrefix(imageDigest, "sha256:")
	statements := map[string]string{
		"not JSON": "x", "a list": "[]", "empty": "{}", "nothing else": good + "{}",
		"two predicates":          strings.Replace(good, `"predicate":{}`, `"predicate":{},"predicate":{"a":1}`, 1),
		"equal keys inside":       stating(imageDigest, slsaType, `{"a":{"b":1,"b":2}}`),
		"equal keys by escape":    stating(imageDigest, slsaType, `{"a":1,"\u0061":2}`),
		"unknown key":             strings.Replace(good, `"predicate":{}`, `"predicate":{},"Predicate":{}`, 1),
		"another version":         strings.Replace(good, "Statement/v1", "Statement/v2", 1),
		"no subject":              strings.Replace(good, `[{"name":"registry.example.com/team/app","digest":{"sha256":"`+hex+`"}}]`, `[]`, 1),
		"no digest":               strings.Replace(good, `"sha256":"`+hex+`"`, ``, 1),
		"upper-case digest":       strings.Replace(good, hex, strings.ToUpper(strings.Repeat("a1", 32)), 1),
		"too many subjects":       strings.Replace(good, `"subject":[`, `"subject":[`+strings.Repeat(`{"digest":{"sha256":"`+hex+`"}},`, 1024), 1),
		"no type":                 strings.Replace(good, slsaType, "", 1),
		"a type to be mistaken":   strings.Replace(good, slsaType, "https://slsa.dev/\u200bprovenance", 1),
		"deep":                    stating(imageDigest, slsaType, strings.Repeat("[", 65)+strings.Repeat("]", 65)),
		"a number that explodes":  stating(imageDigest, slsaType, `1e999999999`),
		"a number that goes on":   stating(imageDigest, slsaType, strings.Repeat("7", 65)),
		"a control character":     stating(imageDigest, slsaType, "\"\x01\""),
		"not UTF-8":               stating(imageDigest, slsaType, "\"\xff\""),
		"values without end":      stating(imageDigest, slsaType, "["+strings.Repeat("1,", 2_000_000)+"1]"),
		"a leading zero":          stating(imageDigest, slsaType, "01"),
		"an escape that is none":  stating(imageDigest, slsaType, `"\x"`),
		"half a surrogate's keys": stating(imageDigest, slsaType, `{"\ud800":1,"\ud801":2}`),
	}
	layer := k.attest(t, verify.KindEnvelope, good)
	cases := map[string]verify.Material{
		"a second signature": replaced(layer, `"signatures":[`, `"signatures":[{"keyid":"","sig":"AAAA"},`),
		"unknown member":     replaced(layer, `"signatures":[`, `"x":1,"signatures":[`),
		"another type":       replaced(layer, `application/vnd.in-toto+json`, `application/json`),
		"line breaks":        replaced(layer, `"payload":"`, `"payload":"\n`),
		"payload twice":      replaced(layer, `"payloadType"`, `"payload":"","payloadType"`),
	}
	media, second, huge := layer, layer, layer
	media.MediaType = "application/json"
	second.Annotations = map[string]string{sigAnnotation: "AAAA"}
	huge.Payload = append(slices.Clone(huge.Payload), make([]byte, 12<<20)...)
	cases["media type"], cases["a signature beside it"], cases["too large"] = media, second, huge
	for name, s := range statements {
		for _, format := range statedFormats {
			cases[name+" "+format] = k.attest(t, format, s)
		}
	}
	for name, m := range cases {
		t.Run(name, func(t *testing.T) {
			as, err := v.VerifyAttestations(t.Context(), subject(), []verify.Material{m}, "")
			if len(as) > 0 {
				t.Errorf("%+v", as)
			}
			refused(t, verify.Evidence{}, err, fault.Unverified, "trust.malformed")
			// It neither helps nor harms: the image and what else is stated stand.
			e, err := v.Verify(t.Context(), subject(), []verify.Material{m, layer, k.sign(t, verify.KindCosign, imageDigest)})
			if err != nil || len(e.Attestations()) != 1 {
				t.Errorf("%+v %v", e.Attestations(), err)
			}
		})
	}
}

// Ten thousand attestations cost no more than the bound allows, and what was
// not looked at is said.
func TestTooManyAttestations(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "registry.example.com/team/*")
	ms := []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}
	m := k.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{}`))
	for range 10_000 {
		ms = append(ms, m)
	}
	e, err := v.Verify(t.Context(), subject(), ms)
	if err != nil || len(e.Attestations()) != 1 {
		t.Fatalf("%+v %v", e.Attestations(), err)
	}
	if b, _ := json.Marshal(e); !strings.Contains(string(b), `more than 130 attestations`) || len(b) > 64<<10 {
		t.Fatalf("%d bytes: %s", len(b), b)
	}
}
