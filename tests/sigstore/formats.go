package sigstore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"
)

// BundleType is the media type of the bundles.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Bundle signs an in-toto statement.
func (a *Authority) Bundle(statement []byte, s Signing) []byte {
	a.t.Helper()
	const kind = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement)
	sum := sha256.Sum256(pae)
	out := a.sign(s, pae, func(verifier string, sig []byte) map[string]any {
		return map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": hashOf(statement), "payloadHash": hashOf(statement),
			"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(sig), "verifier": []byte(verifier)}},
		}}
	}, sum[:])
	return a.bundle(out, map[string]any{"dsseEnvelope": map[string]any{
		"payload": statement, "payloadType": kind, "signatures": []any{map[string]any{"sig": out.signature}},
	}})
}

// Blob signs an artifact as it is.
func (a *Authority) Blob(artifact []byte, s Signing) []byte {
	a.t.Helper()
	sum := sha256.Sum256(artifact)
	out := a.sign(s, artifact, hashedRekord(artifact), sum[:])
	return a.bundle(out, map[string]any{"messageSignature": map[string]any{
		"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": out.signature,
	}})
}

func (a *Authority) bundle(out signed, content map[string]any) []byte {
	a.t.Helper()
	material := map[string]any{}
	if out.cert != nil {
		material["certificate"] = map[string]any{"rawBytes": out.cert.Raw}
	} else {
		material["publicKey"] = map[string]any{"hint": "x"}
	}
	if out.entry != nil {
		material["tlogEntries"] = []any{out.entry}
	}
	if out.stamp != nil {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": out.stamp}}}
	}
	content["mediaType"], content["verificationMaterial"] = BundleType, material
	b, err := json.Marshal(content)
	check(a.t, err)
	return b
}

// Annotations signs cosign's payload and returns what cosign keeps beside it.
func (a *Authority) Annotations(payload []byte, s Signing) map[string]string {
	a.t.Helper()
	sum := sha256.Sum256(payload)
	out := a.sign(s, payload, hashedRekord(payload), sum[:])
	m := a.beside(out)
	m["dev.cosignproject.cosign/signature"] = base64.StdEncoding.EncodeToString(out.signature)
	return m
}

// beside is what cosign keeps beside a signature.
func (a *Authority) beside(out signed) map[string]string {
	a.t.Helper()
	m := map[string]string{}
	if out.cert != nil {
		m["dev.sigstore.cosign/certificate"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: out.cert.Raw}))
		m["dev.sigstore.cosign/chain"] = a.Chain()
	}
	if out.promise != nil {
		m["dev.sigstore.cosign/bundle"] = a.json(map[string]any{"SignedEntryTimestamp": out.promise, "Payload": map[string]any{
			"body": out.body, "integratedTime": out.at.Unix(), "logIndex": 0, "logID": out.log,
		}})
	}
	if out.stamp != nil {
		m["dev.sigstore.cosign/rfc3161timestamp"] = a.json(map[string]any{"SignedRFC3161Timestamp": out.stamp})
	}
	return m
}

// Envelope signs an in-toto statement as cosign keeps it in a layer, and
// returns what cosign keeps beside it.
func (a *Authority) Envelope(statement []byte, s Signing) (layer []byte, annotations map[string]string) {
	a.t.Helper()
	const kind = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement)
	sum := sha256.Sum256(pae)
	stamped, by := !s.NoStamp, a
	if s.OtherStamp != nil {
		by = s.OtherStamp
	}
	s.NoStamp = true // the whole layer is stamped, below
	out := a.sign(s, pae, func(verifier string, sig []byte) map[string]any {
		return map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": hashOf(statement), "payloadHash": hashOf(statement),
			"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(sig), "verifier": []byte(verifier)}},
		}}
	}, sum[:])
	layer = []byte(a.json(map[string]any{"payloadType": kind, "payload": statement, "signatures": []any{map[string]any{"keyid": "", "sig": out.signature}}}))
	if stamped {
		var err error
		out.stamp, err = by.stamps.TimestampResponse(layer)
		check(a.t, err)
	}
	m := a.beside(out)
	m["dev.cosignproject.cosign/signature"] = ""
	return layer, m
}

// Chain is intermediate and root in PEM.
func (a *Authority) Chain() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Intermediate.Raw})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.CA.Raw}))
}

// Now is the time everything is valid at.
func (a *Authority) Now() time.Time { return a.now }

func (a *Authority) json(v any) string {
	a.t.Helper()
	b, err := json.Marshal(v)
	check(a.t, err)
	return string(b)
}

func hashOf(b []byte) map[string]any {
	sum := sha256.Sum256(b)
	return map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
}

func hashedRekord(message []byte) func(string, []byte) map[string]any {
	return func(verifier string, sig []byte) map[string]any {
		return map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
			"data": map[string]any{"hash": hashOf(message)}, "signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": []byte(verifier)}},
		}}
	}
}
