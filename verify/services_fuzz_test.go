package verify

import (
	"strings"
	"testing"

	"github.com/sigstore/rekor/pkg/tle"
)

// Whatever a log answers, reading it ends, and what is read is whole.
func FuzzLogAnswer(f *testing.F) {
	f.Add([]byte(`{"a":{"body":"e30=","integratedTime":1,"logID":"00","logIndex":0,"verification":{"inclusionProof":{"checkpoint":"x","hashes":[],"logIndex":0,"rootHash":"00","treeSize":1},"signedEntryTimestamp":"AA=="}}}`))
	f.Add([]byte(`{"a":{"body":{},"verification":{"inclusionProof":null}}}`))
	f.Add([]byte(`{"a":{},"b":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := createdEntry(b)
		if err != nil {
			return
		}
		if len(c.Payload) != 1 {
			t.Fatal("not one entry")
		}
		_, _ = tle.GenerateTransparencyLogEntry(c.Payload[c.ETag]) // what signing does with it
	})
}

func FuzzSigningConfig(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","caUrls":[{"url":"https://x.test","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],"tsaConfig":{"selector":"ANY"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ServicesOf(b); err == nil && (s.Token != "" || s.TrustedRoot != nil) {
			t.Fatal("a configuration gives more than addresses")
		}
	})
}

// A statement that is signed as it is names the image, and has a type that is
// no signature's.
func FuzzForeignStatement(f *testing.F) {
	f.Add([]byte(`{"_type":"` + StatementV1 + `","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(testDigest, "sha256:") + `"}}],"predicateType":"https://x.test/v1","predicate":{}}`))
	f.Add([]byte(`{"_type":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, err := foreignStatement(b, testDigest, KindBundle)
		if err == nil && (!strings.Contains(string(b), strings.TrimPrefix(testDigest, "sha256:")) && !strings.Contains(string(b), `\u`) || kind == "" || strings.Contains(kind, "cosign/sign/v1")) {
			t.Fatalf("%q: %s", b, kind)
		}
	})
}
