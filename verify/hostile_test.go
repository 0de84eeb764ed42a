package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

const sigAnnotation = "dev.cosignproject.cosign/signature"

// signRaw signs any bytes: what a hostile or careless holder of a trusted key
// could make.
func (k keyPair) signRaw(t testing.TB, b []byte) []byte {
	t.Helper()
	sig, err := k.signer.SignMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// cosignOf wraps a payload as cosign does.
func (k keyPair) cosignOf(t testing.TB, payload string) verify.Material {
	t.Helper()
	return verify.Material{Kind: verify.KindCosign, MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Payload: []byte(payload),
		Annotations: map[string]string{sigAnnotation: base64.StdEncoding.EncodeToString(k.signRaw(t, []byte(payload)))}}
}

// bundleOf wraps a statement in a well-signed bundle.
func (k keyPair) bundleOf(t testing.TB, payloadType, statement string) verify.Material {
	t.Helper()
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement)
	return bundleMaterial(t, map[string]any{"dsseEnvelope": map[string]any{
		"payload": []byte(statement), "payloadType": payloadType,
		"signatures": []any{map[string]any{"sig": k.signRaw(t, []byte(pae))}},
	}})
}

func bundleMaterial(t testing.TB, content map[string]any) verify.Material {
	t.Helper()
	content["mediaType"] = verify.BundleMediaType
	content["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": "x"}}
	b, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return verify.Material{Kind: verify.KindBundle, MediaType: verify.BundleMediaType, Payload: b}
}

const inToto = "application/vnd.in-toto+json"

func payloadOf(digest string) string {
	return `{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":{"docker-manifest-digest":"` +
		digest + `"},"type":"cosign container image signature"},"optional":null}`
}

func statementOf(digest string) string {
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(digest, "sha256:") +
		`"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`
}

type hostileCase struct {
	name, rule string
	m          verify.Material
}

// judgeAll checks that each case is refused by its rule alone, and that a good
// signature beside it is still found: nobody who can add rubbish to a
// registry may make an image unrunnable or verified.
func judgeAll(t *testing.T, k keyPair, good verify.Material, cases []hostileCase) {
	v := trusting(t, k, "registry.example.com/team/*")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e, err := v.Verify(t.Context(), subject(), []verify.Material{c.m})
			refused(t, e, err, fault.Unverified, c.rule)
			if e, err = v.Verify(t.Context(), subject(), []verify.Material{c.m, good}); err != nil || !e.Verified() {
				t.Errorf("a good signature beside it: %v", err)
			}
		})
	}
}

func replaced(m verify.Material, old, new string) verify.Material {
	m.Payload = bytes.Replace(m.Payload, []byte(old), []byte(new), 1)
	return m
}

func annotated(m verify.Material, sig string) verify.Material {
	m.Annotations = map[string]string{sigAnnotation: sig}
	return m
}

func TestHostileCosign(t *testing.T) {
	k := newKey(t)
	good := k.sign(t, verify.KindCosign, imageDigest)
	sig := good.Annotations[sigAnnotation]
	raw, _ := base64.StdEncoding.DecodeString(sig)
	other := k.sign(t, verify.KindCosign, otherDigest)
	bundle := k.sign(t, verify.KindBundle, imageDigest)
	bundle.Kind, bundle.MediaType = good.Kind, good.MediaType
	asBundle := good
	asBundle.Kind, asBundle.MediaType = verify.KindBundle, verify.BundleMediaType
	noKind, image, filed, huge, wide := good, good, good, good, good
	noKind.Kind = ""
	image.MediaType = "application/vnd.oci.image.layer.v1.tar"
	filed.Subject = otherDigest
	huge.Payload = append(bytes.Clone(huge.Payload), bytes.Repeat([]byte(" "), 1<<20)...)
	wide.Annotations = map[string]string{sigAnnotation: sig, "x": strings.Repeat("x", 1<<20)}
	judgeAll(t, k, good, []hostileCase{
		{"no annotation", "trust.malformed", verify.Material{Kind: good.Kind, MediaType: good.MediaType, Payload: good.Payload}},
		{"empty annotation", "trust.malformed", annotated(good, "")},
		{"truncated base64", "trust.malformed", annotated(good, sig[:len(sig)-3])},
		{"base64 in lines", "trust.malformed", annotated(good, sig[:10]+"\n"+sig[10:])},
		{"base64 with stray bits", "trust.malformed", strayBits(t, k)},
		{"base64 and more", "trust.malformed", annotated(good, sig+"!")},
		{"short signature", "trust.wrong-key", annotated(good, base64.StdEncoding.EncodeToString(raw[:len(raw)-3]))},
		{"flipped bit", "trust.wrong-key", annotated(good, base64.StdEncoding.EncodeToString(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]^1)))},
		{"swapped signature", "trust.wrong-key", annotated(good, other.Annotations[sigAnnotation])},
		{"swapped payload", "trust.wrong-key", replaced(other, otherDigest, imageDigest)},
		{"altered annotation", "trust.wrong-key", replaced(good, `"optional":null`, `"optional":{"approved":"yes"}`)},
		{"altered reference", "trust.wrong-key", replaced(good, "team/app", "team/lib")},
		{"empty payload", "trust.malformed", annotated(verify.Material{Kind: good.Kind, MediaType: good.MediaType}, sig)},
		{"null payload", "trust.malformed", k.cosignOf(t, "null")},
		{"not UTF-8", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), "null", "\"\xff\"", 1))},
		{"duplicate image", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(otherDigest), `"type"`, `"image":{"docker-manifest-digest":"`+imageDigest+`"},"type"`, 1))},
		{"duplicate critical", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(otherDigest), `"optional":null`, strings.Trim(payloadOf(imageDigest), "{}")+"}", 1))},
		{"escaped duplicate", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), `"type"`, `"im\u0061ge":{},"type"`, 1))},
		{"other case", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), "critical", "Critical", 1))},
		{"unknown critical", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), `"type"`, `"expires":"2001","type"`, 1))},
		{"other type", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), "cosign container", "atomic container", 1))},
		{"no type", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), `,"type":"cosign container image signature"`, "", 1))},
		{"trailing data", "trust.malformed", k.cosignOf(t, payloadOf(imageDigest)+payloadOf(otherDigest))},
		{"upper-case digest", "trust.malformed", k.cosignOf(t, payloadOf("sha256:"+strings.Repeat("AB", 32)))},
		{"sha512 digest", "trust.malformed", k.cosignOf(t, payloadOf("sha512:"+strings.Repeat("ab", 64)))},
		{"digest not a string", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), `"`+imageDigest+`"`, `["`+imageDigest+`"]`, 1))},
		{"deep nesting", "trust.malformed", k.cosignOf(t, strings.Replace(payloadOf(imageDigest), "null", strings.Repeat("[", 1000)+strings.Repeat("]", 1000), 1))},
		{"bundle as cosign", "trust.malformed", bundle},
		{"cosign as bundle", "trust.malformed", asBundle},
		{"no kind", "trust.malformed", noKind},
		{"media type", "trust.malformed", image},
		{"filed elsewhere", "trust.wrong-digest", filed},
		{"too large", "trust.malformed", huge},
		{"too many annotation bytes", "trust.malformed", wide},
	})
}

func TestHostileBundle(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	good := k.bundleOf(t, inToto, statementOf(imageDigest))
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	altered := k.bundleOf(t, inToto, statementOf(otherDigest))
	sig := func(m verify.Material) string {
		var v struct {
			DSSEEnvelope struct {
				Signatures []struct{ Sig string }
			}
		}
		if err := json.Unmarshal(m.Payload, &v); err != nil {
			t.Fatal(err)
		}
		return v.DSSEEnvelope.Signatures[0].Sig
	}
	untyped := good
	untyped.MediaType = "application/json"
	strangers := stranger.bundleOf(t, inToto, statementOf(imageDigest))
	judgeAll(t, k, good, []hostileCase{
		{"altered statement", "trust.wrong-key", replaced(altered, b64(statementOf(otherDigest)), b64(statementOf(imageDigest)))},
		{"swapped signature", "trust.wrong-key", replaced(good, sig(good), sig(altered))},
		{"truncated base64", "trust.malformed", replaced(good, sig(good), sig(good)[:len(sig(good))-3])},
		{"no signature", "trust.malformed", replaced(good, `[{"sig":"`+sig(good)+`"}]`, `[]`)},
		{"empty signature", "trust.wrong-key", replaced(good, sig(good), "")},
		{"second signature", "trust.malformed", replaced(good, `[{"sig":"`+sig(good)+`"}]`, `[{"sig":"`+sig(strangers)+`"},{"sig":"`+sig(good)+`"}]`)},
		{"null signature", "trust.malformed", replaced(good, `[{"sig":"`+sig(good)+`"}]`, `[null]`)},
		{"payload type changed", "trust.malformed", replaced(good, inToto, "text/plain")},
		{"payload type signed", "trust.malformed", k.bundleOf(t, "text/plain", statementOf(imageDigest))},
		{"older bundle", "trust.malformed", replaced(good, "bundle.v0.3+json", "bundle+json;version=0.2")},
		{"newer bundle", "trust.malformed", replaced(good, "bundle.v0.3+json", "bundle.v0.4+json")},
		{"unknown field", "trust.malformed", replaced(good, `{"dsse`, `{"expires":1,"dsse`)},
		{"duplicate field", "trust.malformed", replaced(good, `{"dsseEnvelope"`, `{"mediaType":"x","dsseEnvelope"`)},
		{"second spelling", "trust.malformed", replaced(good, `{"dsseEnvelope"`, `{"media_type":"x","dsseEnvelope"`)},
		{"media type", "trust.malformed", untyped},
		{"no key", "trust.malformed", replaced(good, `{"publicKey":{"hint":"x"}}`, `{}`)},
		{"certificate", "trust.wrong-key", replaced(good, `"publicKey":{"hint":"x"}`, `"certificate":{"rawBytes":"`+selfSigned(t)+`"}`)},
		{"certificate chain", "trust.malformed", replaced(good, `"publicKey":{"hint":"x"}`, `"x509CertificateChain":{"certificates":[{"rawBytes":"`+selfSigned(t)+`"}]}`)},
		{"log entry of rubbish", "trust.malformed", replaced(good, `"publicKey"`, `"tlogEntries":[{"logIndex":"1"}],"publicKey"`)},
		{"message signature", "trust.malformed", messageSignature(t, k)},
		{"trailing data", "trust.malformed", replaced(good, string(good.Payload), string(good.Payload)+"{}")},
		{"not JSON", "trust.malformed", replaced(good, "{", "[")},
		{"attestation", "trust.unsigned", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "sigstore.dev/cosign/sign/v1", "slsa.dev/provenance/v1", 1))},
		{"statement version", "trust.malformed", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "Statement/v1", "Statement/v2", 1))},
		{"statement unknown field", "trust.malformed", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "{", `{"not":"this",`, 1))},
		{"statement duplicate subject", "trust.malformed", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "{", `{"subject":[],`, 1))},
		{"statement other case", "trust.malformed", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "subject", "Subject", 1))},
		{"no subject", "trust.malformed", k.bundleOf(t, inToto, `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`)},
		{"sha512 subject", "trust.malformed", k.bundleOf(t, inToto, strings.Replace(statementOf(imageDigest), "sha256", "sha512", 1))},
		{"empty statement", "trust.malformed", k.bundleOf(t, inToto, "")},
		{"other digest", "trust.wrong-digest", altered},
		{"stranger", "trust.wrong-key", strangers},
	})
}

func TestRefusalStaysShort(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "**")
	for _, m := range []verify.Material{
		k.cosignOf(t, `{"`+strings.Repeat(`\u001b[31mé`, 50_000)+`":1,"`+strings.Repeat(`\u001b[31mé`, 50_000)+`":1}`),
		k.bundleOf(t, inToto, `{"`+strings.Repeat("x", 500_000)+`":1}`),
		{Kind: strings.Repeat("k", 1<<20)},
	} {
		e, err := v.Verify(t.Context(), subject(), []verify.Material{m})
		if f := refused(t, e, err, fault.Unverified, "trust.malformed"); len(f.Cause) > 1000 || strings.ContainsRune(f.Cause, 0x1b) {
			t.Errorf("%d bytes: %.100q", len(f.Cause), f.Cause)
		}
	}
}

func TestKeylessSaysSo(t *testing.T) {
	k := newKey(t)
	m := replaced(k.bundleOf(t, inToto, statementOf(imageDigest)), `"publicKey":{"hint":"x"}`, `"certificate":{"rawBytes":"`+selfSigned(t)+`"}`)
	e, err := trusting(t, k, "**").Verify(t.Context(), subject(), []verify.Material{m})
	if f := refused(t, e, err, fault.Unverified, "trust.wrong-key"); !strings.Contains(f.Cause, "keyless") {
		t.Fatal(f.Cause)
	}
}

// The hint in a bundle is not signed; it must neither help nor harm.
func TestBundleHintMeansNothing(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "**")
	m := replaced(k.bundleOf(t, inToto, statementOf(imageDigest)), `"hint":"x"`, `"hint":"somebody else"`)
	if e, err := v.Verify(t.Context(), subject(), []verify.Material{m}); err != nil || !e.Verified() {
		t.Fatal(err)
	}
}

func TestNumberOfSignatures(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	v := trusting(t, k, "**")
	bad := stranger.sign(t, verify.KindCosign, imageDigest)
	var m []verify.Material
	for range 63 {
		m = append(m, bad)
	}
	m = append(m, k.sign(t, verify.KindCosign, imageDigest))
	if e, err := v.Verify(t.Context(), subject(), m); err != nil || !e.Verified() {
		t.Fatalf("the 64th of 64 signatures: %v", err)
	}
	e, err := v.Verify(t.Context(), subject(), append(m, bad))
	refused(t, e, err, fault.Unverified, "trust.too-many")
}

func TestSubjectMustMakeSense(t *testing.T) {
	k := newKey(t)
	v := trusting(t, k, "**")
	m := []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}
	for name, s := range map[string]verify.Subject{
		"zero":        {},
		"no digest":   {Reference: imageRef},
		"no name":     {Digests: []string{imageDigest}},
		"bad name":    {Reference: "a b", Digests: []string{imageDigest}},
		"short":       {Reference: imageRef, Digests: []string{"sha256:11"}},
		"upper case":  {Reference: imageRef, Digests: []string{"sha256:" + strings.Repeat("AB", 32)}},
		"other hash":  {Reference: imageRef, Digests: []string{"sha512:" + strings.Repeat("ab", 64)}},
		"many":        {Reference: imageRef, Digests: []string{imageDigest, imageDigest, imageDigest, imageDigest, imageDigest}},
		"second bad":  {Reference: imageRef, Digests: []string{imageDigest, ""}},
		"long name":   {Reference: "registry.example.com/" + strings.Repeat("a/", 600) + "a", Digests: []string{imageDigest}},
		"empty entry": {Reference: imageRef, Digests: []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := v.Verify(t.Context(), s, m)
			if e.Verified() || fault.ClassOf(err) != fault.Invalid {
				t.Fatalf("%+v %v", e, err)
			}
		})
	}
}

func selfSigned(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// strayBits spells a good signature differently: the bits that the last
// character has to spare are set.
func strayBits(t *testing.T, k keyPair) verify.Material {
	t.Helper()
	for {
		m := k.sign(t, verify.KindCosign, imageDigest)
		sig := m.Annotations[sigAnnotation]
		body := strings.TrimRight(sig, "=")
		if len(body) == len(sig) {
			continue // nothing to spare: an ECDSA signature's length varies
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		last := alphabet[strings.IndexByte(alphabet, body[len(body)-1])|1]
		return annotated(m, body[:len(body)-1]+string(last)+sig[len(body):])
	}
}

// messageSignature is what cosign sign-blob makes of the manifest.
func messageSignature(t *testing.T, k keyPair) verify.Material {
	t.Helper()
	blob := []byte("the manifest")
	sum := sha256.Sum256(blob)
	return bundleMaterial(t, map[string]any{"messageSignature": map[string]any{
		"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
		"signature":     k.signRaw(t, blob),
	}})
}
