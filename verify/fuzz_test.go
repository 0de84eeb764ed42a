package verify

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ward-project/ward/internal/fault"
)

const testDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// testKey is nobody's key: its private half was never kept.
const testKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGpEc18n9+KdOpN8Q0p1KEggnxHFV
ATqbctzkkb8yiJIKL+K9MJUmkjcbUM7aU9BphS/MTBVirUp91dNAxi0GHg==
-----END PUBLIC KEY-----
`

func fuzzKey(t testing.TB) publicKey {
	t.Helper()
	keys, err := parsePublicKeys([]byte(testKey), hashes[""])
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

// A trust file is understood whole or refused with its place; what is
// understood can always be asked, and asks for something.
func FuzzTrustFile(f *testing.F) {
	good := string(ruleYAML("a", "ghcr.io/**", "sha256", []byte(testKey)))
	f.Add(good)
	f.Add(good + "---\n" + strings.Replace(good, `"a"`, "b", 1))
	f.Add("apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(good, "\n", "\n  "))
	f.Add(strings.Replace(good, "- key:", "- static: {action: fail}\n    - ctlog: {}\n      key:", 1))
	f.Add(strings.Replace(good, "- key:", "- static: {action: pass}\n    - key:", 1) + "  mode: warn\n  match: [{resource: pods, version: v1, selector: {matchLabels: {a: b}}}]\n")
	f.Add(good + "      attestations:\n        - {name: a, predicateType: vuln, policy: {type: rego, data: \"package sigstore\"}}\n  policy: {type: rego, data: x}\n")
	f.Add("a: &a [*a, *a]\nb: {<<: *a}\n")
	f.Add("{\"apiVersion\":\"policy.sigstore.dev/v1beta1\"}\n...\n")
	f.Add("? [a]\n: !!binary aGk=\n- |\n\t\n")
	f.Fuzz(func(t *testing.T, s string) {
		policies, err := parsePolicies("f.yaml", []byte(s))
		if err != nil {
			e := fault.As(err)
			if policies != nil || e.Class != fault.Invalid || e.Rule != ruleTrustPolicy || !strings.HasPrefix(e.Cause, "f.yaml:") {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(policies) == 0 {
			t.Fatal("nothing and no error")
		}
		for _, p := range policies {
			if !validPolicyName(p.name) || len(p.globs) == 0 || len(p.authorities) == 0 || p.line < 1 {
				t.Fatalf("%+v", p)
			}
			signers, missed, err := p.judge(t.Context(), Subject{Reference: "a", Digests: []string{testDigest}}, setting{clock: newClock(time.Now())}, nil)
			// Who asks for nobody gets nobody, and that is all there may be.
			for _, s := range signers {
				if s.Kind != KindStatic || !slices.ContainsFunc(p.authorities, func(a authority) bool { return a.static != nil && a.static.pass }) {
					t.Fatalf("satisfied by nothing: %+v", s)
				}
			}
			if err != nil || p.refusal(Subject{Reference: "a", Digests: []string{testDigest}}, nil, missed, 0) == nil {
				t.Fatal("no reason for a refusal")
			}
		}
	})
}

// What our strict parser says a payload claims, cosign's must say too, and
// nothing passes without the key.
func FuzzPayload(f *testing.F) {
	good, err := newSimpleSigning("ghcr.io/a", testDigest, map[string]string{"a": "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "MEUCIQ==")
	f.Add([]byte(strings.Replace(string(good), "image", "Image", 1)), "")
	f.Add([]byte(`{"critical":{},"critical":[]}`), "!")
	f.Add([]byte(strings.Repeat("[", 100)), "AA==")
	k := fuzzKey(f)
	f.Fuzz(func(t *testing.T, body []byte, sig string) {
		c := parse(Material{Kind: KindCosign, MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Payload: body,
			Annotations: map[string]string{static.SignatureAnnotationKey: sig}}, Subject{Digests: []string{testDigest}})
		if _, digest, err := simpleSigningClaim(body); err == nil {
			h, herr := v1.NewHash(digest)
			layer, serr := static.NewSignature(body, sig)
			if herr != nil || serr != nil {
				t.Fatal(herr, serr)
			}
			if err := cosign.SimpleClaimVerifier(layer, h, nil); err != nil {
				t.Fatalf("we read %s, cosign does not: %v", digest, err)
			}
		}
		if c.bad == nil && c.byKey(t.Context(), k, c.digests[0]) == nil {
			t.Fatal("a signature out of nothing")
		}
	})
}

// The same for bundles, against sigstore's reading of the statement.
func FuzzBundle(f *testing.F) {
	statement, err := newStatement(testDigest)
	if err != nil {
		f.Fatal(err)
	}
	bundle := func(payload string) []byte {
		return []byte(`{"mediaType":"` + BundleMediaType + `","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"` +
			base64.StdEncoding.EncodeToString([]byte(payload)) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEUCIQ=="}]}}`)
	}
	f.Add(bundle(string(statement)))
	f.Add(bundle(`{"_type":1,"subject":[{}],"predicateType":""}`))
	f.Add([]byte(`{"verificationMaterial":{"tlogEntries":[{}],"certificate":{}}}`))
	f.Add([]byte(`{"dsseEnvelope":{"signatures":[null]}}`))
	k := fuzzKey(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := parse(Material{Kind: KindBundle, MediaType: BundleMediaType, Payload: b}, Subject{Digests: []string{testDigest}})
		if c.bad != nil {
			return
		}
		var outer struct{ DSSEEnvelope struct{ Payload []byte } }
		var st intoto.Statement
		if json.Unmarshal(b, &outer) == nil && protojson.Unmarshal(outer.DSSEEnvelope.Payload, &st) == nil {
			var theirs []string
			for _, s := range st.GetSubject() {
				theirs = append(theirs, "sha256:"+s.GetDigest()["sha256"])
			}
			if !slices.Equal(theirs, c.digests) {
				t.Fatalf("we read %v, sigstore %v", c.digests, theirs)
			}
		}
		if c.byKey != nil && c.byKey(t.Context(), k, c.digests[0]) == nil {
			t.Fatal("a signature out of nothing")
		}
	})
}

// TestMain runs the checks of network_test.go, and the key plugin of
// signer_test.go, in a process of their own.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == pluginName {
		os.Exit(plugin())
	}
	if mode := os.Getenv("WARD_TEST_SEALED"); mode != "" {
		os.Exit(sealedMain(mode))
	}
	os.Exit(m.Run())
}
