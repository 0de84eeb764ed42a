package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
)

// The identity that Signing means by its zero value.
const (
	Subject = "https://github.com/team/app/.github/workflows/release.yml@refs/heads/main"
	Issuer  = "https://token.actions.githubusercontent.com"
)

// Signing says what a signature is to be like; the zero value is in order in
// every respect.
type Signing struct {
	// Subject goes into the certificate: an address with "://", else a mail's.
	Subject, Issuer string
	// Extensions are Fulcio's, besides the issuer.
	Extensions map[int]string
	// Bend changes the certificate before it is issued.
	Bend func(*x509.Certificate)
	// NotBefore and NotAfter bound the certificate; around now unless given.
	NotBefore, NotAfter time.Time
	// LoggedAt is the time the log gives; now unless given.
	LoggedAt time.Time
	// NoSCT, NoLog and NoStamp leave that out; Tiles makes the log entry one of
	// the second kind.
	NoSCT, NoLog, NoStamp, Tiles bool
	// NoPromise leaves out the log's own signature over entry and time.
	NoPromise bool
	// OtherSCT, OtherLog and OtherStamp have a stranger make that.
	OtherSCT, OtherLog, OtherStamp *Authority
	// Root issues the certificate from the root, without the intermediate.
	Root bool
	// Key signs without any certificate.
	Key *ecdsa.PrivateKey
}

// signed is one signature and its witnesses.
type signed struct {
	cert      *x509.Certificate
	signature []byte
	entry     map[string]any // as in a bundle
	promise   []byte
	log       string // its name
	body      []byte
	at        time.Time
	stamp     []byte
}

func (a *Authority) sign(s Signing, message []byte, body func(verifier string, sig []byte) map[string]any, digest []byte) signed {
	a.t.Helper()
	key, out := s.Key, signed{at: s.LoggedAt}
	if out.at.IsZero() {
		out.at = a.now
	}
	verifier := ""
	if key == nil {
		key = NewKey(a.t)
		out.cert = a.certificate(s, key)
		verifier = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: out.cert.Raw}))
	} else {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		check(a.t, err)
		verifier = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	sum := sha256.Sum256(message)
	var err error
	out.signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:])
	check(a.t, err)
	if !s.NoStamp {
		by := a
		if s.OtherStamp != nil {
			by = s.OtherStamp
		}
		out.stamp, err = by.stamps.TimestampResponse(out.signature)
		check(a.t, err)
	}
	if s.NoLog {
		return out
	}
	by := a
	if s.OtherLog != nil {
		by = s.OtherLog
	}
	if s.Tiles {
		by.tile(&out, key.Public(), digest)
		return out
	}
	out.log = LogID(a.t, by.rekor.Public())
	by.log(&out, body(verifier, out.signature), !s.NoPromise)
	return out
}

// certificate issues a certificate for key, with a promise by the certificate
// log: it is issued once without, for the log to sign, and once with it.
func (a *Authority) certificate(s Signing, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(a.t), NotBefore: a.now.Add(-5 * time.Minute), NotAfter: a.now.Add(5 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if !s.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = s.NotBefore, s.NotAfter
	}
	subject, issuer := s.Subject, s.Issuer
	if subject == "" {
		subject = Subject
	}
	if issuer == "" {
		issuer = Issuer
	}
	if strings.Contains(subject, "://") {
		template.URIs = append(template.URIs, address(a.t, subject))
	} else {
		template.EmailAddresses = []string{subject}
	}
	if issuer != "-" {
		template.ExtraExtensions = []pkix.Extension{extension(a.t, ExtIssuer, issuer)}
	}
	for _, n := range slices.Sorted(maps.Keys(s.Extensions)) {
		template.ExtraExtensions = append(template.ExtraExtensions, extension(a.t, n, s.Extensions[n]))
	}
	if s.Bend != nil {
		s.Bend(template)
	}
	parent, by := a.Intermediate, a.between
	if s.Root {
		parent, by = a.CA, a.caKey
	}
	bare := issue(a.t, template, parent, key.Public(), by)
	if s.NoSCT {
		return bare
	}
	log := a.ctlog
	if s.OtherSCT != nil {
		log = s.OtherSCT.ctlog
	}
	template.ExtraExtensions = append(template.ExtraExtensions, promise(a, log, bare, parent))
	return issue(a.t, template, parent, key.Public(), by)
}

// promise is a certificate log's word that it will hold the certificate.
func promise(a *Authority, log *ecdsa.PrivateKey, bare, parent *x509.Certificate) pkix.Extension {
	a.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(log.Public())
	check(a.t, err)
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: sha256.Sum256(spki)}, Timestamp: uint64(a.now.UnixMilli())}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(parent.RawSubjectPublicKeyInfo), TBSCertificate: bare.RawTBSCertificate},
		},
	}})
	check(a.t, err)
	signature, err := tls.CreateSignature(*log, tls.SHA256, input)
	check(a.t, err)
	sct.Signature = ct.DigitallySigned(signature)
	one, err := tls.Marshal(sct)
	check(a.t, err)
	list := binary16(append(binary16(nil, len(one)), one...), -1)
	der, err := asn1.Marshal(list)
	check(a.t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: der}
}

// binary16 puts a length of two bytes before b; n is it, or -1 for len(b).
func binary16(b []byte, n int) []byte {
	if n < 0 {
		n = len(b)
	}
	return append([]byte{byte(n >> 8), byte(n)}, b...)
}

// log makes an entry of the first kind: the promise bears the time, the proof
// says that the log of one entry holds this one.
func (a *Authority) log(out *signed, body map[string]any, promised bool) {
	a.t.Helper()
	var err error
	out.body, err = json.Marshal(body)
	check(a.t, err)
	entry := a.entry(out, body["kind"].(string), body["apiVersion"].(string), "rekor.example.test - 123")
	entry["integratedTime"] = fmt.Sprint(out.at.Unix())
	if promised {
		payload, err := json.Marshal(map[string]any{"body": out.body, "integratedTime": out.at.Unix(), "logID": LogID(a.t, a.rekor.Public()), "logIndex": 0})
		check(a.t, err)
		out.promise = signASN1(a, payload)
		entry["inclusionPromise"] = map[string]any{"signedEntryTimestamp": out.promise}
	}
	out.entry = entry
}

// tile makes an entry of the second kind, which gives no time.
func (a *Authority) tile(out *signed, pub crypto.PublicKey, digest []byte) {
	a.t.Helper()
	verifier := map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if out.cert != nil {
		verifier["x509Certificate"] = map[string]any{"rawBytes": out.cert.Raw}
	} else {
		der, err := x509.MarshalPKIXPublicKey(pub)
		check(a.t, err)
		verifier["publicKey"] = map[string]any{"rawBytes": der}
	}
	var err error
	out.body, err = json.Marshal(map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{
		"hashedRekordV002": map[string]any{
			"data":      map[string]any{"algorithm": "SHA2_256", "digest": digest},
			"signature": map[string]any{"content": out.signature, "verifier": verifier},
		}}})
	check(a.t, err)
	out.entry = a.entry(out, "hashedrekord", "0.0.2", "rekor.example.test")
}

func (a *Authority) entry(out *signed, kind, version, origin string) map[string]any {
	a.t.Helper()
	leaf := sha256.Sum256(append([]byte{0}, out.body...))
	der, err := x509.MarshalPKIXPublicKey(a.rekor.Public())
	check(a.t, err)
	id := sha256.Sum256(der)
	text := fmt.Sprintf("%s\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(leaf[:]))
	name, _, _ := strings.Cut(origin, " ")
	checkpoint := fmt.Sprintf("%s\n— %s %s\n", text, name, base64.StdEncoding.EncodeToString(append(bytes.Clone(id[:4]), signASN1(a, []byte(text))...)))
	return map[string]any{
		"logIndex": "0", "logId": map[string]any{"keyId": id[:]}, "kindVersion": map[string]any{"kind": kind, "version": version},
		"inclusionProof": map[string]any{
			"logIndex": "0", "rootHash": leaf[:], "treeSize": "1", "hashes": []string{}, "checkpoint": map[string]any{"envelope": checkpoint},
		},
		"canonicalizedBody": out.body,
	}
}

func signASN1(a *Authority, message []byte) []byte {
	a.t.Helper()
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, a.rekor, sum[:])
	check(a.t, err)
	return sig
}
