package verify

import (
	"os"
	"testing"
)

// The check of a claim looks at the digest it is given, whatever the parser
// found in the payload: each of the two alone keeps a signature on its image.
func TestCheckComparesTheDigest(t *testing.T) {
	const other = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	key, pub, err := GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := parsePublicKeys(pem, hashes[""])
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{KindCosign, KindBundle} {
		m, err := Sign(t.Context(), SignRequest{KeyPath: key, Reference: "ghcr.io/a", Digest: testDigest, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		c := parse(m, Subject{Digests: []string{testDigest}})
		if c.bad != nil || c.byKey(t.Context(), keys[0], testDigest) != nil {
			t.Fatalf("%s: %v", format, c.bad)
		}
		if c.byKey(t.Context(), keys[0], other) == nil {
			t.Errorf("%s: a signature over %s passes for %s", format, testDigest, other)
		}
		if c.byKey(t.Context(), fuzzKey(t), testDigest) == nil {
			t.Errorf("%s: another key passes", format)
		}
	}
}
