package witness

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the key type of Ed25519 cosignatures
// (https://c2sp.org/tlog-cosignature).
const algCosignature = 4

// verifier checks cosignatures of one witness. It implements note.Verifier.
type verifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newVerifier(vkey string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash16, key64, _ := strings.Cut(rest, "+")
	hash, herr := strconv.ParseUint(hash16, 16, 32)
	key, kerr := base64.StdEncoding.Strict().DecodeString(key64)
	if herr != nil || kerr != nil || len(hash16) != 8 || name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsSpace) {
		return nil, errors.New("not a verifier key")
	}
	if len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, errors.New("not an Ed25519 key for cosignatures (of type 4)")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if uint32(hash) != binary.BigEndian.Uint32(sum[:]) {
		return nil, errors.New("its hash is not that of name and key")
	}
	return &verifier{name, uint32(hash), key[1:]}, nil
}

// Name implements note.Verifier.
func (v *verifier) Name() string { return v.name }

// KeyHash implements note.Verifier.
func (v *verifier) KeyHash() uint32 { return v.hash }

// Verify implements note.Verifier: the witness has signed msg together with
// the time at which it did so.
func (v *verifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(v.key, signed, sig[8:])
}

// signedAt is the time in a cosignature that was verified.
func signedAt(s note.Signature) (time.Time, error) {
	b, err := base64.StdEncoding.DecodeString(s.Base64) // 4 bytes are the key's hash
	if err != nil || len(b) < 12 {
		return time.Time{}, errors.New("no time in the cosignature")
	}
	t := binary.BigEndian.Uint64(b[4:])
	if t > math.MaxInt32*8 {
		return time.Time{}, errors.New("the cosignature's time is none")
	}
	return time.Unix(int64(t), 0).UTC(), nil
}
