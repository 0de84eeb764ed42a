package verify

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

// imported writes a policy.json, imports it and returns which policies then
// apply to an image, by their authorities' keys ("fail" for none).
func imported(t *testing.T, doc string) (dir string, im ImportedTrust) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "trust.d")
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	im, err := TrustImport(dir, file, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return dir, im
}

func TestImportContainersPolicy(t *testing.T) {
	pemA, pemB := newPublicPEM(t), newPublicPEM(t)
	path := filepath.Join(t.TempDir(), "b.pub")
	if err := os.WriteFile(path, pemB, 0o600); err != nil {
		t.Fatal(err)
	}
	a64 := base64.StdEncoding.EncodeToString(pemA)
	dir, im := imported(t, `{"default": [{"type": "reject"}], "transports": {
		"docker-daemon": {"": [{"type": "insecureAcceptAnything"}]},
		"docker": {
			"registry.example.com": [{"type": "sigstoreSigned", "keyData": "`+a64+`", "signedIdentity": {"type": "matchRepository"}}],
			"registry.example.com/team/app": [{"type": "sigstoreSigned", "keyPaths": ["`+path+`"]}],
			"registry.example.com/bad": [{"type": "reject"}],
			"*.trusted.example": [{"type": "sigstoreSigned", "keyDatas": ["`+a64+`", "`+a64+`"]}, {"type": "sigstoreSigned", "keyPath": "`+path+`"}],
			"gpg.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}],
			"both.example": [{"type": "sigstoreSigned", "keyPath": "`+path+`"}, {"type": "insecureAcceptAnything"}],
			"log.example": [{"type": "sigstoreSigned", "keyPath": "`+path+`", "rekorPublicKeyPath": "/x"}]
		}}}`)
	for image, want := range map[string]int{
		"registry.example.com/x":                      1,
		"registry.example.com/x@" + someDigest:        1,
		"registry.example.com/team/app:1":             2, // the wide scope's and the narrow one's
		"registry.example.com/team/app@" + someDigest: 2,
		"registry.example.com/team/app/sub:1":         2,
		"registry.example.com/team/app2:1":            1,
		"registry.example.com/bad:1":                  2,
		"registry.example.com:5000/x":                 0,
		"a.trusted.example/x:1":                       2,
		"trusted.example/x:1":                         0,
		"gpg.example/x":                               0,
		"both.example/x":                              0,
		"log.example/x":                               0,
		"elsewhere.example/x":                         0,
	} {
		got, err := TrustTest(dir, image)
		if err != nil || len(got) != want {
			t.Errorf("%s: %d policies apply, want %d (%v)", image, len(got), want, err)
		}
	}
	for _, want := range []string{"transport docker-daemon", "gpg.example: signedBy", "both.example: it accepts", "log.example: a transparency log",
		"registry.example.com/team/app lies within registry.example.com"} {
		if !slices.ContainsFunc(im.Left, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%q is not said: %q", want, im.Left)
		}
	}
	if len(im.Left) != 5 {
		t.Errorf("said %q", im.Left)
	}
	if s := string(im.YAML); !strings.Contains(s, signedNameAnnotation+`: "matchRepository"`) || !strings.Contains(s, signedNameAnnotation+`: "matchRepoDigestOrExact"`) {
		t.Errorf("the signed identity is lost:\n%s", s)
	}
}

func TestImportRefuses(t *testing.T) {
	for _, doc := range []string{
		``, `[]`, `{}`, `{"default": []}`, `{"default": [{"type": "reject"}]}`, `{"default": [{"type": "insecureAcceptAnything"}]}`,
		`{"default": [{"type": "other"}]}`, `{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}`,
		`{"default": [{"type": "reject"}], "more": {}}`, `{"default": [{"type": "reject", "keyPath": "/x"}]}`,
		`{"default": [{"type": "sigstoreSigned"}]}`, `{"default": [{"type": "sigstoreSigned", "keyData": "%"}]}`,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/none"}]}`, `{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "keyPath": "/x"}]}`,
		`{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "signedIdentity": {"type": "matchAny"}}]}`,
		`{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "newField": 1}]}`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"r.example/[a]": [{"type": "reject"}]}}}`,
		"apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\n",
	} {
		dir, file := t.TempDir(), filepath.Join(t.TempDir(), "policy.json")
		if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := TrustImport(dir, file, "", false)
		if fault.ClassOf(err) != fault.Invalid || fault.As(err).Remedy == "" {
			t.Errorf("%s: %v", doc, err)
		}
		if l, _ := os.ReadDir(dir); len(l) > 0 {
			t.Errorf("%s: wrote %v", doc, l)
		}
	}
}

// A file of ClusterImagePolicies is taken as it is, and comes out as it was.
func TestImportExport(t *testing.T) {
	doc := string(ruleYAML("one", "a.example/*", "sha256", newPublicPEM(t))) + "---\n# the second\n" + string(ruleYAML("two", "b.example/*", "sha256", newPublicPEM(t)))
	dir, im := imported(t, doc)
	if im.Path != filepath.Join(dir, "policy.yaml") || string(im.YAML) != doc {
		t.Fatalf("%s\n%s", im.Path, im.YAML)
	}
	for _, names := range [][]string{nil, {"two"}} {
		if b, err := TrustExport(dir, names); err != nil || string(b) != "---\n"+doc {
			t.Errorf("%v: %v\n%s", names, err, b)
		}
	}
	if _, err := TrustExport(dir, []string{"three"}); fault.ClassOf(err) != fault.NotFound {
		t.Error(err)
	}
	for name, rule := range map[string]string{"": "trust.exists", "other": "trust.exists", "../x": "trust.name"} {
		if _, err := TrustImport(dir, im.Path, name, false); fault.As(err).Rule != rule {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzImportContainersPolicy(f *testing.F) {
	f.Add([]byte(`{"default": [{"type": "reject"}], "transports": {"docker": {"a.example/b": [{"type": "reject"}]}}}`))
	f.Add([]byte(`{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "signedIdentity": {"type": "remapIdentity", "prefix": "a", "signedPrefix": "b"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := fromContainersPolicy("policy.json", b)
		if err != nil || len(out) == 0 {
			return
		}
		// What is written either reads back or is refused before it is in force.
		_, _ = parsePolicies("x.yaml", out)
	})
}

func newPublicPEM(t *testing.T) []byte {
	t.Helper()
	_, pub, err := GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
