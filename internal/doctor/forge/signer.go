package forge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Signer signs images in cosign's format: with a key, or with one that a
// certificate says is somebody's.
type Signer struct {
	key *ecdsa.PrivateKey
	// cert and chain are PEM, empty for a key.
	cert, chain []byte
}

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Signer{key: k}, err
}

// PublicPEM is its public key.
func (s *Signer) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// Authority issues certificates.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewAuthority makes one.
func NewAuthority() (*Authority, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forged authority"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{k, cert}, err
}

// PEM is its certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Issue makes a signer with a certificate for signing code in that mail
// address's name, valid from and to.
func (a *Authority) Issue(name string, from, to time.Time) (*Signer, error) {
	s, err := NewSigner()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: from, NotAfter: to, EmailAddresses: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &s.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	s.cert, s.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.PEM()
	return s, nil
}

// Signature is a signature as it hangs on an image: the layer of a .sig tag.
type Signature struct {
	MediaType   string
	Payload     []byte
	Annotations map[string]string
}

// Sign signs the digest under a repository's name.
func (s *Signer) Sign(repository, digest string) (Signature, error) {
	payload, err := json.Marshal(map[string]any{"critical": map[string]any{
		"identity": map[string]string{"docker-reference": repository},
		"image":    map[string]string{"docker-manifest-digest": digest},
		"type":     "cosign container image signature",
	}, "optional": nil})
	if err != nil {
		return Signature{}, err
	}
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		return Signature{}, fmt.Errorf("forge: %w", err)
	}
	out := Signature{"application/vnd.dev.cosign.simplesigning.v1+json", payload, map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}}
	if s.cert != nil {
		out.Annotations["dev.sigstore.cosign/certificate"] = string(s.cert)
		out.Annotations["dev.sigstore.cosign/chain"] = string(s.chain)
	}
	return out, nil
}

// Attach hangs a signature on an image, wherever it was made for.
func (r *Registry) Attach(repo, digest string, s Signature) error {
	config := []byte("{}")
	m := manifest{Schema: 2, MediaType: manifestType, Config: descriptor{MediaType: configType, Size: int64(len(config))}}
	var err error
	if m.Config.Digest, err = r.blob(repo, config); err != nil {
		return err
	}
	d, err := r.blob(repo, s.Payload)
	if err != nil {
		return err
	}
	m.Layers = []descriptor{{MediaType: s.MediaType, Digest: d, Size: int64(len(s.Payload)), Annotations: s.Annotations}}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = r.manifest(repo, strings.Replace(digest, ":", "-", 1)+".sig", manifestType, b)
	return err
}

// Indented is a PEM text as the block of a YAML document wants it.
func Indented(text []byte, by string) string {
	return strings.ReplaceAll(string(bytes.TrimSpace(text)), "\n", "\n"+by)
}
