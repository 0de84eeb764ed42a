package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"strings"

	"filippo.io/edwards25519"
	"golang.org/x/mod/sumdb/note"
)

// signer signs notes with Ed25519, byte for byte as note.NewSigner's does.
//
// crypto/ed25519 first computes a table that makes many signatures cheap:
// 1.6 ms, in each process, and the processes of a run sign two to four times
// each. This one multiplies without the table (0.06 ms a signature) in the
// library that crypto/ed25519 is made from, likewise in constant time.
// Signatures are verified by crypto/ed25519 alone. RFC 8032 leaves a signer no
// choice, so a test can compare every byte.
type signer struct {
	name   string
	hash   uint32
	scalar *edwards25519.Scalar
	prefix []byte
	public []byte
}

// errSigner says no more: a text with details could quote the key.
var errSigner = errors.New("not a signing key")

// newSigner reads a private key in signed-note form. The public half is always
// computed from the private one: signing with another's gives the key away.
func newSigner(text string) (*signer, error) {
	f := strings.SplitN(text, "+", 5)
	if len(f) != 5 || f[0] != "PRIVATE" || f[1] != "KEY" {
		return nil, errSigner
	}
	key, err := base64.StdEncoding.DecodeString(f[4])
	const ed25519Key = 1 // signed-note's name for the algorithm
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != ed25519Key {
		return nil, errSigner
	}
	// RFC 8032, section 5.1.5.
	h := sha512.Sum512(key[1:])
	s := &signer{name: f[2], prefix: bytes.Clone(h[32:])}
	if s.scalar, err = edwards25519.NewScalar().SetBytesWithClamping(h[:32]); err != nil {
		return nil, errSigner
	}
	s.public = timesBase(s.scalar)
	// The name and the key's hash are checked by the library they come from.
	vkey, err := note.NewEd25519VerifierKey(s.name, s.public)
	if err != nil || !strings.HasPrefix(vkey, f[2]+"+"+f[3]+"+") {
		return nil, errSigner
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, errSigner
	}
	s.hash = v.KeyHash()
	return s, nil
}

// timesBase is the encoded product of the scalar and the curve's base point.
func timesBase(s *edwards25519.Scalar) []byte {
	return new(edwards25519.Point).ScalarMult(s, edwards25519.NewGeneratorPoint()).Bytes()
}

// Name implements note.Signer.
func (s *signer) Name() string { return s.name }

// KeyHash implements note.Signer.
func (s *signer) KeyHash() uint32 { return s.hash }

// Sign implements note.Signer: RFC 8032, section 5.1.6.
func (s *signer) Sign(msg []byte) ([]byte, error) {
	nonce, err := hashed(s.prefix, msg)
	if err != nil {
		return nil, err
	}
	sig := timesBase(nonce)
	challenge, err := hashed(sig, s.public, msg)
	if err != nil {
		return nil, err
	}
	return append(sig, edwards25519.NewScalar().MultiplyAdd(challenge, s.scalar, nonce).Bytes()...), nil
}

// hashed is the scalar that SHA-512 of the parts stands for.
func hashed(parts ...[]byte) (*edwards25519.Scalar, error) {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	return edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
}
