package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// predicates are one of each kind that cosign has a name for, and two by URI.
var predicates = map[string]string{
	"slsaprovenance":   `{"builder":{"id":"https://builder.example.test"},"buildType":"https://example.test/make"}`,
	"slsaprovenance02": `{"builder":{"id":"https://builder.example.test"},"buildType":"https://example.test/make","metadata":{"reproducible":true,"completeness":{"parameters":true,"environment":true,"materials":true}}}`,
	"slsaprovenance1":  `{"buildDefinition":{"buildType":"https://example.test/make","externalParameters":{"target":"all"}},"runDetails":{"builder":{"id":"https://builder.example.test"}}}`,
	"link":             `{"_type":"link","name":"build","materials":{},"products":{},"byproducts":{},"command":["make"],"environment":{}}`,
	"spdx":             "SPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\n",
	"spdxjson":         `{"spdxVersion":"SPDX-2.3","packages":[]}`,
	"cyclonedx":        `{"bomFormat":"CycloneDX","specVersion":"1.5","components":[]}`,
	"vuln":             `{"invocation":{"parameters":null,"uri":"","event_id":"","builder.id":""},"scanner":{"uri":"pkg:scan","version":"1","db":{"uri":"","version":""},"result":{"found":0}},"metadata":{"scanStartedOn":"2026-01-02T03:04:05Z","scanFinishedOn":"2026-01-02T03:05:05Z"}}`,
	"openvex":          `{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}`,
	"custom":           "any text at all <>&\n",
	"https://slsa.dev/verification_summary/v1": `{"verifier":{"id":"https://ward.example.test"},"verificationResult":"PASSED"}`,
	"https://example.test/mine/v1":             `{"big":12345678901234567890,"text":"<>&"}`,
}

func pushAtt(t *testing.T, img name.Digest, m verify.Material) {
	t.Helper()
	if m.Kind == verify.KindBundle {
		push(t, img, m)
		return
	}
	att, err := mutate.Append(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1),
		mutate.Addendum{Layer: static.NewLayer(m.Payload, types.MediaType(m.MediaType)), Annotations: m.Annotations})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(img.Context().Tag(strings.TrimSuffix(sigTag(img), ".sig")+".att"), att); err != nil {
		t.Fatal(err)
	}
}

// attested says whether cosign accepts an attestation of that type by key.
func (c cosignCLI) attested(t *testing.T, key, format, kind string, img name.Digest, more ...string) (string, bool) {
	t.Helper()
	args := append([]string{"verify-attestation", "--key", key, "--type", kind, "--insecure-ignore-tlog", "--trusted-root", "root.json"}, more...)
	if format == verify.KindBundle {
		args = append(args, "--new-bundle-format")
	}
	out, err := c.try(t, append(args, img.String())...)
	return out, err == nil
}

// statementIn is what cosign prints of an attestation: the envelope is the
// last line.
func statementIn(t *testing.T, out string) (statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate json.RawMessage `json:"predicate"`
}) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var e struct {
		Payload string `json:"payload"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	b, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &statement); err != nil {
		t.Fatal(err)
	}
	return statement
}

func attestRequest(t *testing.T, key, format, kind string, img name.Digest) verify.AttestRequest {
	t.Helper()
	uri, predicate, err := verify.NewPredicate(kind, []byte(predicates[kind]), time.Unix(1, 0))
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return verify.AttestRequest{KeyPath: key, Password: []byte("secret"), Reference: img.String(), Digest: img.DigestStr(),
		PredicateType: uri, Predicate: predicate, Format: format}
}

func TestWardAttestsCosignVerifies(t *testing.T) {
	c := newCosignCLI(t)
	key, pub, err := verify.GenerateKey(t.TempDir(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	c.run(t, "generate-key-pair")
	for kind := range predicates {
		for _, format := range []string{verify.KindEnvelope, verify.KindBundle} {
			t.Run(kind+" "+format, func(t *testing.T) {
				img := pushImage(t)
				r := attestRequest(t, key, format, kind, img)
				if kind == "spdx" && format == verify.KindBundle {
					// cosign writes this one and then cannot read it.
					if _, err := verify.Attest(t.Context(), r); ruleOf(err) != "attest.predicate" {
						t.Errorf("text in a bundle: %v", err)
					}
					return
				}
				if kind == "https://slsa.dev/verification_summary/v1" {
					r.Statement = verify.StatementV1
				}
				m, err := verify.Attest(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				pushAtt(t, img, m)
				out, ok := c.attested(t, pub, format, kind, img)
				if !ok {
					t.Fatalf("cosign refuses what ward signed: %s", out)
				}
				st := statementIn(t, out)
				if st.Subject[0].Name != img.Context().Name() || "sha256:"+st.Subject[0].Digest["sha256"] != img.DigestStr() {
					t.Errorf("subject %+v", st.Subject)
				}
				if st.PredicateType != r.PredicateType || !bytes.Equal(compact(t, st.Predicate), compact(t, r.Predicate)) {
					t.Errorf("type %s, predicate %s", st.PredicateType, st.Predicate)
				}
				// The controls: another key, another type.
				if out, ok := c.attested(t, "cosign.pub", format, kind, img); ok {
					t.Errorf("cosign accepts any key: %s", out)
				}
				if out, ok := c.attested(t, pub, format, "https://example.test/other", img); ok {
					t.Errorf("cosign accepts any type: %s", out)
				}
			})
		}
	}
}

func compact(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What ward states of a predicate file is what cosign states of it, but that
// cosign drops fields it does not know and rounds numbers.
func TestPredicatesAsCosignWritesThem(t *testing.T) {
	c := newCosignCLI(t)
	c.run(t, "generate-key-pair")
	for kind, content := range predicates {
		img := pushImage(t)
		file := filepath.Join(c.dir, "predicate")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c.run(t, "attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--type", kind, "--predicate", file, img.String())
		out, ok := c.attested(t, "cosign.pub", verify.KindEnvelope, kind, img)
		if !ok {
			t.Fatalf("%s: cosign refuses its own: %s", kind, out)
		}
		theirs := statementIn(t, out)
		m, err := verify.Attest(t.Context(), attestRequest(t, filepath.Join(c.dir, "cosign.key"), verify.KindEnvelope, kind, img))
		if err != nil {
			t.Fatal(err)
		}
		ours := statementIn(t, string(m.Payload))
		if ours.Type != theirs.Type || ours.PredicateType != theirs.PredicateType || ours.Subject[0].Name != theirs.Subject[0].Name {
			t.Errorf("%s: ward writes %+v, cosign %+v", kind, ours, theirs)
		}
		if shapeOf(t, ours.Predicate) != shapeOf(t, theirs.Predicate) && !strings.Contains(kind, "slsa") {
			t.Errorf("%s: ward writes %s, cosign %s", kind, ours.Predicate, theirs.Predicate)
		}
		if a, b := m.Annotations, layerAnnotations(t, img); a["predicateType"] != b["predicateType"] || len(a) != len(b) {
			t.Errorf("%s: ward annotates %v, cosign %v", kind, a, b)
		}
	}
}

// shapeOf is the value without what changes from one signing to the next.
func shapeOf(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if m, ok := v.(map[string]any); ok && m["Timestamp"] != nil {
		m["Timestamp"] = ""
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func layerAnnotations(t *testing.T, img name.Digest) map[string]string {
	t.Helper()
	i, err := remote.Image(img.Context().Tag(strings.TrimSuffix(sigTag(img), ".sig") + ".att"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := i.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[0].Annotations
}

func TestAttestRefuses(t *testing.T) {
	key, _, err := verify.GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	good := verify.AttestRequest{KeyPath: key, Reference: "ghcr.io/team/app:1", Digest: "sha256:" + strings.Repeat("1", 64),
		PredicateType: "https://example.test/mine/v1", Predicate: []byte(`{}`), Format: verify.KindEnvelope}
	if _, err := verify.Attest(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for rule, bend := range map[string]func(*verify.AttestRequest){
		"attest.reference": func(r *verify.AttestRequest) { r.Reference = "" },
		"attest.digest":    func(r *verify.AttestRequest) { r.Digest = "sha256:1" },
		"attest.format":    func(r *verify.AttestRequest) { r.Format = verify.KindCosign },
		"attest.type":      func(r *verify.AttestRequest) { r.PredicateType = "https://sigstore.dev/cosign/sign/v1" },
		"attest.predicate": func(r *verify.AttestRequest) { r.Predicate = []byte(`{"a":1,"a":2}`) },
		"attest.statement": func(r *verify.AttestRequest) { r.Statement = "https://in-toto.io/Statement/v2" },
		"key.read":         func(r *verify.AttestRequest) { r.KeyPath = "/nowhere" },
	} {
		r := good
		bend(&r)
		_, err := verify.Attest(t.Context(), r)
		if fault.ClassOf(err) != fault.Invalid || ruleOf(err) != rule {
			t.Errorf("%s: %v", rule, err)
		}
	}
	for kind, content := range map[string]string{
		"slsaprovenance":   `{"builder":{}}`,
		"slsaprovenance1":  `{"buildDefinition":{}}`,
		"link":             `{"_type":"link"}`,
		"vuln":             `[]`,
		"cyclonedx":        `text`,
		"custom":           "\xff",
		"spdx":             strings.Repeat("x", 8<<20+1),
		"https://x.test/a": `{"a":{"b":1,"b":2}}`,
	} {
		if _, _, err := verify.NewPredicate(kind, []byte(content), time.Now()); ruleOf(err) != "attest.predicate" {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, kind := range []string{"", "slsa", "not a uri", "https://x.test/\x1b[31m", "https://x.test/" + strings.Repeat("x", 1024)} {
		if _, err := verify.PredicateType(kind); ruleOf(err) != "attest.type" {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func ruleOf(err error) string {
	if f := fault.As(err); f != nil {
		return f.Rule
	}
	return ""
}
