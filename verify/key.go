package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// maxKeyFile bounds key files; an RSA 4096 key is about 4 KiB encrypted.
const maxKeyFile = 64 << 10

// publicKey is a trusted key, ready to verify with.
type publicKey struct {
	id       string
	hash     string // the usual one for this kind of key
	verifier signature.Verifier
}

// keyID is "sha256:" and the hash of the key's SubjectPublicKeyInfo, the same
// bytes whatever file format the key came in.
func keyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// parsePublicKeys reads one or more PEM public keys and nothing else. A
// private key in a trust policy is an accident worth stopping at.
func parsePublicKeys(b []byte, hash crypto.Hash) ([]publicKey, error) {
	var keys []publicKey
	for len(bytes.TrimSpace(b)) > 0 {
		block, rest := pem.Decode(b)
		if block == nil {
			return nil, errors.New("not a PEM public key")
		}
		// pem.Decode skips what it cannot read; text between keys may be a
		// key somebody believes to be in force.
		if start := bytes.Index(b, []byte("-----BEGIN")); len(bytes.TrimSpace(b[:start])) > 0 {
			return nil, errors.New("text outside the PEM block")
		}
		pub, err := cryptoutils.UnmarshalPEMToPublicKey(pem.EncodeToMemory(block))
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		k, err := newPublicKey(pub, hash)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
		b = rest
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key")
	}
	return keys, nil
}

// acceptable refuses kinds and sizes of keys that nobody should sign with.
func acceptable(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("ECDSA curve %s is not accepted", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("RSA key of %d bits is not accepted, 2048 to 8192 are", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("key type %T is not accepted", pub)
	}
	return nil
}

func newPublicKey(pub crypto.PublicKey, hash crypto.Hash) (publicKey, error) {
	if err := acceptable(pub); err != nil {
		return publicKey{}, err
	}
	id, err := keyID(pub)
	if err != nil {
		return publicKey{}, err
	}
	var v signature.Verifier
	if k, ok := pub.(ed25519.PublicKey); ok {
		v, err = newEd25519(k)
	} else {
		v, err = signature.LoadVerifier(pub, hash)
	}
	if err != nil {
		return publicKey{}, err
	}
	return publicKey{id: id, hash: usualHash(pub), verifier: v}, nil
}

// usualHash is the hash cosign signs with for a key of this kind.
func usualHash(pub crypto.PublicKey) string {
	if k, ok := pub.(*ecdsa.PublicKey); ok {
		switch k.Curve {
		case elliptic.P384():
			return "sha384"
		case elliptic.P521():
			return "sha512"
		}
	}
	return "sha256"
}

// ed25519Verifier takes Ed25519 and Ed25519ph. cosign 2 signs images with the
// second and policy-controller verifies with the first; RFC 8032 keeps the two
// apart in the signed bytes, so neither can be passed off as the other.
type ed25519Verifier struct {
	signature.Verifier
	prehashed signature.Verifier
}

func newEd25519(k ed25519.PublicKey) (signature.Verifier, error) {
	pure, err := signature.LoadED25519Verifier(k)
	if err != nil {
		return nil, err
	}
	ph, err := signature.LoadED25519phVerifier(k)
	if err != nil {
		return nil, err
	}
	return ed25519Verifier{pure, ph}, nil
}

// VerifySignature implements signature.Verifier.
func (v ed25519Verifier) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	s, err := io.ReadAll(sig)
	if err != nil {
		return err
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	err = v.Verifier.VerifySignature(bytes.NewReader(s), bytes.NewReader(m), opts...)
	if err != nil {
		err = v.prehashed.VerifySignature(bytes.NewReader(s), bytes.NewReader(m), opts...)
	}
	return err
}

// GenerateKey makes an ECDSA P-256 key pair in dir, as cosign.key (encrypted
// with password, which may be empty, in cosign's own format) and cosign.pub,
// and returns their paths. It never overwrites: if either file exists it fails
// and leaves both as they were.
func GenerateKey(dir string, password []byte) (key, pub string, err error) {
	key, pub = filepath.Join(dir, "cosign.key"), filepath.Join(dir, "cosign.pub")
	for _, p := range []string{key, pub} {
		if _, err := os.Lstat(p); err == nil {
			return "", "", keyExists(p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
	}
	pair, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return "", "", fmt.Errorf("generate key: %w", err)
	}
	if err := fsx.CreateFile(key, pair.PrivateBytes, 0o600); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", "", keyExists(key)
		}
		return "", "", fault.Wrap(fault.Invalid, "key.write", err, "name an existing directory that can be written")
	}
	if err := fsx.CreateFile(pub, pair.PublicBytes, 0o644); err != nil {
		// The private key is ours and nobody has used it yet.
		err = errors.Join(err, os.Remove(key))
		if errors.Is(err, fs.ErrExist) {
			return "", "", keyExists(pub)
		}
		return "", "", fault.Wrap(fault.Invalid, "key.write", err, "name an existing directory that can be written")
	}
	return key, pub, nil
}

func keyExists(path string) error {
	return fault.New(fault.Invalid, "key.exists", path+" exists and is not overwritten",
		"name another directory with --out, or move the old key away")
}
