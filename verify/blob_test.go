package verify_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

var artifact = []byte("an artifact\n")

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// aboutArtifact is a statement of any type that has the artifact as subject.
func aboutArtifact() []byte {
	return []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` +
		strings.TrimPrefix(digestOf(artifact), "sha256:") + `"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`)
}

// blob is a request about the artifact that the identity of sigstore.Signing's
// zero value satisfies.
func blob(a *sigstore.Authority, bundle []byte) verify.BlobRequest {
	return verify.BlobRequest{Bundle: bundle, TrustedRoot: a.Root(), Identity: sigstore.Subject, Issuer: sigstore.Issuer, Digest: digestOf(artifact)}
}

// edited changes a bundle by its fields.
func edited(t *testing.T, bundle []byte, edit func(map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(bundle))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	edit(m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// at walks to a field; a number is an index.
func at(m any, path ...any) map[string]any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m = m.(map[string]any)[p]
		case int:
			m = m.([]any)[p]
		}
	}
	return m.(map[string]any)
}

func TestVerifyBlob(t *testing.T) {
	a := sigstore.New(t)
	for name, b := range map[string][]byte{
		"message": a.Blob(artifact, sigstore.Signing{}), "statement": a.Bundle(aboutArtifact(), sigstore.Signing{}),
		"tiled message": a.Blob(artifact, sigstore.Signing{Tiles: true}), "tiled statement": a.Bundle(aboutArtifact(), sigstore.Signing{Tiles: true}),
		"log's time alone": a.Blob(artifact, sigstore.Signing{NoStamp: true}),
	} {
		t.Run(name, func(t *testing.T) {
			r := blob(a, b)
			s, err := verify.VerifyBlob(t.Context(), r)
			if err != nil || s.Kind != verify.KindKeyless || s.Subject != sigstore.Subject || s.SignedAt == nil {
				t.Fatalf("%v %+v", err, s)
			}
			r.Artifact, r.Digest = bytes.NewReader(artifact), ""
			if _, err := verify.VerifyBlob(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			r.Artifact = bytes.NewReader([]byte("another\n"))
			if _, err := verify.VerifyBlob(t.Context(), r); fault.ClassOf(err) != fault.Unverified {
				t.Fatal(err)
			}
		})
	}
	key := sigstore.NewKey(t)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := verify.BlobRequest{Bundle: a.Blob(artifact, sigstore.Signing{Key: key}), KeyPEM: public, TrustedRoot: a.Root(), Digest: digestOf(artifact)}
	if s, err := verify.VerifyBlob(t.Context(), r); err != nil || s.Kind != verify.KindKey || len(s.KeyID) != 71 {
		t.Fatal(err)
	}
	r.TrustedRoot = nil
	_, err = verify.VerifyBlob(t.Context(), r)
	refused(t, verify.Evidence{}, err, fault.Unverified, "trust.no-root")
	r.UnsafeIgnoreLog, r.Bundle = true, a.Blob(artifact, sigstore.Signing{Key: key, NoLog: true, NoStamp: true})
	if _, err := verify.VerifyBlob(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyBlobRefuses is what a conforming client refuses, made with our own
// authority: one thing wrong at a time in bundle, trust root or request.
func TestVerifyBlobRefuses(t *testing.T) {
	a, stranger, key := sigstore.New(t), sigstore.New(t), sigstore.NewKey(t)
	message, statement, tiled := a.Blob(artifact, sigstore.Signing{NoStamp: true}), a.Bundle(aboutArtifact(), sigstore.Signing{NoStamp: true}), a.Blob(artifact, sigstore.Signing{Tiles: true})
	other := a.Blob(artifact, sigstore.Signing{NoStamp: true})
	material := func(m map[string]any) map[string]any { return at(m, "verificationMaterial") }
	entry := func(m map[string]any) map[string]any { return at(m, "verificationMaterial", "tlogEntries", 0) }
	proof := func(m map[string]any) map[string]any { return at(entry(m), "inclusionProof") }
	var foreign map[string]any
	if err := json.Unmarshal(other, &foreign); err != nil {
		t.Fatal(err)
	}
	zeros := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	checkpoint := func(old, new string) func(map[string]any) {
		return func(m map[string]any) {
			c := at(proof(m), "checkpoint")
			c["envelope"] = strings.Replace(c["envelope"].(string), old, new, 1)
		}
	}
	for name, b := range map[string][]byte{
		"not JSON":        []byte("{"),
		"no content":      edited(t, message, func(m map[string]any) { delete(m, "messageSignature") }),
		"no material":     edited(t, message, func(m map[string]any) { delete(m, "verificationMaterial") }),
		"unknown version": edited(t, message, func(m map[string]any) { m["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=99.9" }),
		"unknown field":   edited(t, message, func(m map[string]any) { m["extra"] = 1 }),
		"written twice":   bytes.Replace(message, []byte(`"mediaType":`), []byte(`"mediaType":"x","mediaType":`), 1),
		"empty chain": edited(t, message, func(m map[string]any) {
			delete(material(m), "certificate")
			material(m)["x509CertificateChain"] = map[string]any{}
		}),
		"no certificate":        edited(t, message, func(m map[string]any) { delete(material(m), "certificate") }),
		"another's certificate": edited(t, message, func(m map[string]any) { material(m)["certificate"] = material(foreign)["certificate"] }),
		"another's entry":       edited(t, message, func(m map[string]any) { material(m)["tlogEntries"] = material(foreign)["tlogEntries"] }),
		"another's signature": edited(t, message, func(m map[string]any) {
			at(m, "messageSignature")["signature"] = at(foreign, "messageSignature")["signature"]
		}),
		"another digest":      edited(t, message, func(m map[string]any) { at(m, "messageSignature", "messageDigest")["digest"] = zeros }),
		"no entry":            edited(t, message, func(m map[string]any) { delete(material(m), "tlogEntries") }),
		"negative index":      edited(t, message, func(m map[string]any) { entry(m)["logIndex"] = "-1" }),
		"other index":         edited(t, message, func(m map[string]any) { entry(m)["logIndex"] = "7" }),
		"other time":          edited(t, message, func(m map[string]any) { entry(m)["integratedTime"] = "1" }),
		"no proof":            edited(t, message, func(m map[string]any) { delete(entry(m), "inclusionProof") }),
		"no promise":          a.Blob(artifact, sigstore.Signing{NoPromise: true, NoStamp: true}),
		"other root hash":     edited(t, message, func(m map[string]any) { proof(m)["rootHash"] = zeros }),
		"a hash too many":     edited(t, message, func(m map[string]any) { proof(m)["hashes"] = []any{zeros} }),
		"no checkpoint":       edited(t, message, func(m map[string]any) { delete(proof(m), "checkpoint") }),
		"checkpoint's origin": edited(t, message, checkpoint("rekor.example.test", "rekor.example.tost")),
		"checkpoint's size":   edited(t, message, checkpoint("\n1\n", "\n2\n")),
		"checkpoint unsigned": edited(t, message, checkpoint("\n\n— ", "\n\n")),
		"entry twice":         edited(t, message, func(m map[string]any) { material(m)["tlogEntries"] = []any{entry(m), entry(m)} }),
		"33 entries": edited(t, message, func(m map[string]any) {
			list := make([]any, 33)
			for i := range list {
				list[i] = entry(m)
			}
			material(m)["tlogEntries"] = list
		}),
		"statement by another": edited(t, statement, func(m map[string]any) {
			at(m, "dsseEnvelope")["payload"] = []byte(strings.Replace(string(aboutArtifact()), `"a"`, `"b"`, 1))
		}),
		"two signatures": edited(t, statement, func(m map[string]any) {
			s := at(m, "dsseEnvelope", "signatures", 0)
			at(m, "dsseEnvelope")["signatures"] = []any{s, s}
		}),
		"no signature":              edited(t, statement, func(m map[string]any) { at(m, "dsseEnvelope")["signatures"] = []any{} }),
		"statement of another type": edited(t, statement, func(m map[string]any) { at(m, "dsseEnvelope")["payloadType"] = "text/plain" }),
		"no subject":                a.Bundle([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x","predicate":{}}`), sigstore.Signing{}),
		"subject without digest":    a.Bundle([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a"}],"predicateType":"x","predicate":{}}`), sigstore.Signing{}),
		"another subject":           a.Bundle([]byte(statementOf(otherDigest)), sigstore.Signing{}),
		"tiled without time":        a.Blob(artifact, sigstore.Signing{Tiles: true, NoStamp: true}),
		"tiled, stranger's time":    a.Blob(artifact, sigstore.Signing{Tiles: true, OtherStamp: stranger}),
		"tiled, made-up time":       edited(t, a.Blob(artifact, sigstore.Signing{Tiles: true, NoStamp: true}), func(m map[string]any) { entry(m)["integratedTime"] = "1800000000" }),
		"tiled, other checkpoint":   edited(t, tiled, checkpoint("\n1\n", "\n2\n")),
		"tiled, no proof":           edited(t, tiled, func(m map[string]any) { delete(entry(m), "inclusionProof") }),
		"tiled, another's signature": edited(t, tiled, func(m map[string]any) {
			at(m, "messageSignature")["signature"] = at(foreign, "messageSignature")["signature"]
		}),
		"stranger":       stranger.Blob(artifact, sigstore.Signing{}),
		"stranger's log": a.Blob(artifact, sigstore.Signing{OtherLog: stranger}),
		"stranger's SCT": a.Blob(artifact, sigstore.Signing{OtherSCT: stranger}),
		"no SCT":         a.Blob(artifact, sigstore.Signing{NoSCT: true}),
		"expired":        a.Blob(artifact, sigstore.Signing{NotBefore: a.Now().Add(-2 * time.Hour), NotAfter: a.Now().Add(-time.Hour), NoStamp: true}),
		"by a key":       a.Blob(artifact, sigstore.Signing{Key: key}),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := verify.VerifyBlob(t.Context(), blob(a, b))
			if fault.ClassOf(err) != fault.Unverified || s != (verify.Signer{}) {
				t.Fatalf("%+v %v", s, err)
			}
		})
	}
	for name, edit := range map[string]func(*verify.BlobRequest){
		"another identity":     func(r *verify.BlobRequest) { r.Identity += "x" },
		"part of the identity": func(r *verify.BlobRequest) { r.Identity, r.IdentityRegexp = "", "github.com/team" },
		"another issuer":       func(r *verify.BlobRequest) { r.Issuer = "https://x.example" },
		"another file":         func(r *verify.BlobRequest) { r.Digest = digestOf([]byte("x")) },
		"digest in capitals":   func(r *verify.BlobRequest) { r.Digest = "sha256:" + strings.ToUpper(r.Digest[7:]) },
		"another root":         func(r *verify.BlobRequest) { r.TrustedRoot = stranger.Root() },
		"no log in the root":   func(r *verify.BlobRequest) { r.TrustedRoot = a.RootOf(sigstore.Vouch{NoLog: true}) },
		"no root":              func(r *verify.BlobRequest) { r.TrustedRoot = nil },
		"a timestamp asked":    func(r *verify.BlobRequest) { r.Timestamp = true },
	} {
		t.Run(name, func(t *testing.T) {
			r := blob(a, message)
			edit(&r)
			if s, err := verify.VerifyBlob(t.Context(), r); fault.ClassOf(err) != fault.Unverified || s != (verify.Signer{}) {
				t.Fatalf("%+v %v", s, err)
			}
		})
	}
	for name, edit := range map[string]func(*verify.BlobRequest){
		"nobody named":      func(r *verify.BlobRequest) { r.Identity, r.Issuer = "", "" },
		"no issuer":         func(r *verify.BlobRequest) { r.Issuer = "" },
		"any identity":      func(r *verify.BlobRequest) { r.Identity, r.IdentityRegexp = "", ".*" },
		"both forms":        func(r *verify.BlobRequest) { r.IdentityRegexp = "x" },
		"key and identity":  func(r *verify.BlobRequest) { r.KeyPEM = newKey(t).pem },
		"broken key":        func(r *verify.BlobRequest) { r.Identity, r.Issuer, r.KeyPEM = "", "", []byte("x") },
		"broken root":       func(r *verify.BlobRequest) { r.TrustedRoot = []byte("x") },
		"broken expression": func(r *verify.BlobRequest) { r.Identity, r.IdentityRegexp = "", "(" },
	} {
		t.Run(name, func(t *testing.T) {
			r := blob(a, message)
			edit(&r)
			if s, err := verify.VerifyBlob(t.Context(), r); fault.ClassOf(err) != fault.Invalid || s != (verify.Signer{}) {
				t.Fatalf("%+v %v", s, err)
			}
		})
	}
}
