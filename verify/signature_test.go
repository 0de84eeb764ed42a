package verify_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// printed is what scripts written for cosign read of the signatures.
func printed(t *testing.T, v *verify.Verifier, annotations map[string]string, materials ...verify.Material) []map[string]any {
	t.Helper()
	e, list, err := v.VerifySignatures(t.Context(), subject(), materials, annotations)
	if err != nil || !e.Verified() {
		t.Fatal(err)
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Critical struct {
			Image map[string]string
		}
		Optional map[string]any
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var optional []map[string]any
	for _, s := range all {
		if d := s.Critical.Image["docker-manifest-digest"]; d != imageDigest && d != indexDigest {
			t.Errorf("about %q: %s", d, b)
		}
		optional = append(optional, s.Optional)
	}
	return optional
}

// noting is the payload with what is signed along.
func noting(digest, optional string) string {
	return strings.Replace(payloadOf(digest), `"optional":null`, `"optional":`+optional, 1)
}

// All signatures are printed that the verdict could rest on, and no other.
func TestSignaturesPrinted(t *testing.T) {
	a, b, c, stranger := newKey(t), newKey(t), newKey(t), newKey(t)
	dir := t.TempDir()
	write(t, dir, "p.yaml", noted("threshold", "authority-0=2", several(a, b)+"    - key:\n        data: |\n          "+indented(c.pem)+"\n"))
	v := open(t, dir)
	one := a.sign(t, verify.KindCosign, imageDigest)
	with := []verify.Material{
		one, c.cosignOf(t, noting(imageDigest, `{"n":"1"}`)), c.cosignOf(t, noting(indexDigest, `{"n":"2"}`)),
		c.sign(t, verify.KindCosign, otherDigest), stranger.sign(t, verify.KindCosign, imageDigest), {Kind: verify.KindCosign},
	}
	// The first authority wants two and has one: nothing rests on that.
	if got := printed(t, v, nil, with...); len(got) != 2 || got[0]["n"] != "1" || got[1]["n"] != "2" {
		t.Errorf("%v", got)
	}
	if got := printed(t, v, nil, append(with, b.sign(t, verify.KindBundle, imageDigest))...); len(got) != 4 {
		t.Errorf("%v", got)
	}
	e, list, err := v.VerifySignatures(t.Context(), subject(), []verify.Material{one}, nil)
	if refused(t, e, err, fault.Unverified, "trust.threshold"); len(list) != 0 {
		t.Errorf("%d are printed", len(list))
	}
}

// Only what has been verified is printed of what lies beside a signature.
func TestPrintedIsVerified(t *testing.T) {
	a, k := sigstore.New(t), newKey(t)
	m := k.sign(t, verify.KindCosign, imageDigest)
	beside := witnessed(a, verify.KindCosign, imageDigest, sigstore.Signing{})
	for key, value := range beside.Annotations {
		if key != sigAnnotation {
			m.Annotations[key] = value
		}
	}
	if got := printed(t, trusting(t, k, "**"), nil, m); len(got) != 1 || got[0] != nil {
		t.Errorf("beside a key's signature: %v", got)
	}
	v := open(t, keyless(t, a.Root(), identityYAML))
	got := printed(t, v, nil, beside)
	if len(got) != 1 || got[0]["Subject"] != sigstore.Subject || got[0]["Bundle"] == nil || got[0]["RFC3161Timestamp"] != nil {
		t.Errorf("no timestamp was asked for: %v", got)
	}
	for _, bad := range []string{`"text"`, `[1]`, `{"n":1e400}`} {
		said := []byte(noting(imageDigest, bad))
		m := verify.Material{Kind: verify.KindCosign, MediaType: beside.MediaType, Payload: said, Annotations: a.Annotations(said, sigstore.Signing{})}
		e, err := v.Verify(t.Context(), subject(), []verify.Material{m})
		refused(t, e, err, fault.Unverified, "trust.malformed")
	}
	v = open(t, keyless(t, a.Root(), identityYAML+"      rfc3161timestamp: {}\n"))
	if got = printed(t, v, nil, beside); len(got) != 1 || got[0]["RFC3161Timestamp"] == nil {
		t.Errorf("a timestamp was asked for: %v", got)
	}
}

// Signatures without the annotations that are asked for do not count, nor do
// bundles, which have none.
func TestAnnotations(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	v := trusting(t, k, "**")
	env := func(e string) map[string]string { return map[string]string{"env": e} }
	good := k.cosignOf(t, noting(imageDigest, `{"env":"prod","n":1}`))
	if got := printed(t, v, env("prod"), k.sign(t, verify.KindCosign, imageDigest), good); len(got) != 1 || got[0]["env"] != "prod" {
		t.Errorf("%v", got)
	}
	altered := good
	altered.Payload = []byte(noting(imageDigest, `{"env":"dev"}`))
	two := maps.Clone(env("prod"))
	two["team"] = "x"
	attested := k.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{"env":"prod"}`))
	for what, c := range map[string]struct {
		ask  map[string]string
		m    []verify.Material
		rule string
	}{
		"another value":  {env("dev"), []verify.Material{good}, "trust.annotation"},
		"one of two":     {two, []verify.Material{good}, "trust.annotation"},
		"a number":       {map[string]string{"n": "1"}, []verify.Material{good}, "trust.annotation"},
		"an empty value": {map[string]string{"other": ""}, []verify.Material{good}, "trust.annotation"},
		"a bundle":       {env("prod"), []verify.Material{k.sign(t, verify.KindBundle, imageDigest)}, "trust.annotation"},
		"altered":        {env("dev"), []verify.Material{altered}, "trust.wrong-key"},
		"a stranger's":   {env("prod"), []verify.Material{stranger.cosignOf(t, string(good.Payload)), k.sign(t, verify.KindCosign, imageDigest)}, "trust.annotation"},
		"attestations":   {env("prod"), []verify.Material{attested}, "trust.unsigned"},
		"nothing":        {env("prod"), nil, "trust.unsigned"},
	} {
		t.Run(what, func(t *testing.T) {
			e, list, err := v.VerifySignatures(t.Context(), subject(), c.m, c.ask)
			if refused(t, e, err, fault.Unverified, c.rule); len(list) != 0 {
				t.Errorf("%d are printed", len(list))
			}
		})
	}
	// Where a policy asks for attestations alone there is nothing to carry them.
	dir := t.TempDir()
	write(t, dir, "p.yaml", cip("a", "**", byKey(k.pem)+"      attestations: [{name: a, predicateType: \""+slsaType+"\"}]\n"))
	v = open(t, dir)
	if got := printed(t, v, nil, attested); len(got) != 1 {
		t.Errorf("%v", got)
	}
	e, _, err := v.VerifySignatures(t.Context(), subject(), []verify.Material{attested}, env("prod"))
	refused(t, e, err, fault.Unverified, "trust.annotation")
}
