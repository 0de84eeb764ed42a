package verify

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/types"
)

// What scanJSON lets through, encoding/json reads too, and sees the same keys.
func FuzzScanJSON(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"a":{"b":[1,2.5e3,-0,"\u00e9"]}}`, `{"a":1,"a":2}`, `"\ud800"`, `1e401`, `{"a":1}x`, "\"\xff\"", ` true `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		members := map[string]string{}
		err := scanJSON(b, func(key string, value []byte) error {
			members[key] = string(value)
			return nil
		})
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatal("encoding/json does not read it")
		}
		if _, err := strictJSON(b); err != nil && err.Error() != "JSON is nested too deeply" {
			t.Fatalf("the other reader refuses it: %v", err)
		}
		var m map[string]json.RawMessage
		if json.Unmarshal(b, &m) != nil || m == nil {
			if len(members) > 0 {
				t.Fatalf("members of what is no object: %v", members)
			}
			return
		}
		if len(m) != len(members) {
			t.Fatalf("%d members, not %d", len(members), len(m))
		}
		for key, value := range m {
			if members[key] != string(value) {
				t.Fatalf("%q: %q, not %q", key, members[key], value)
			}
		}
	})
}

func FuzzStatement(f *testing.F) {
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"x","digest":{"sha256":"` + testDigest[7:] + `"}}],"predicateType":"https://x.example/y","predicate":{"a":1}}`))
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha512":"00"}}],"predicateType":"https://x.example/y"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStatement(b)
		if err != nil {
			return
		}
		if len(s.digests) == 0 || s.predicateType == "" || !json.Valid(s.predicate) || !bytes.Equal(s.text, b) {
			t.Fatalf("%+v", s)
		}
		for _, d := range s.digests {
			if !validDigest(d) {
				t.Fatalf("digest %q", d)
			}
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"","sig":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, sig, err := readEnvelope(b); err == nil && (len(text) == 0 || len(sig) == 0) {
			t.Fatal("read nothing")
		}
		// Whatever it is, no key and no certificate stands behind it.
		for _, m := range []Material{{Kind: KindEnvelope, MediaType: types.DssePayloadType, Payload: b}, {Kind: KindBundle, MediaType: BundleMediaType, Payload: b}} {
			c, err := parseStated(m)
			if err == nil && (c.said == nil || len(c.digests) == 0) {
				t.Fatalf("%+v", c)
			}
		}
	})
}
