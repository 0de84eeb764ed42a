package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// signingKey is the signed-note form of the private key made from seed.
func signingKey(t testing.TB, name string, seed []byte) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Split(vkey, "+")[1]
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", name, hash, base64.StdEncoding.EncodeToString(append([]byte{1}, seed...)))
}

// Signatures are those of the standard library, bit for bit: for the vectors
// of RFC 8032, for edge cases, and for as many random ones as there is time.
func TestSignerIsEd25519(t *testing.T) {
	seeds := [][]byte{bytes.Repeat([]byte{0}, 32), bytes.Repeat([]byte{0xff}, 32)}
	for _, s := range []string{ // RFC 8032, section 7.1
		"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		"f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
		"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	for range 500 {
		b := make([]byte, 32)
		rand.Read(b)
		seeds = append(seeds, b)
	}
	for i, seed := range seeds {
		key := signingKey(t, "ward/host/00", seed)
		ours, err := newSigner(key)
		if err != nil {
			t.Fatalf("seed %x: %v", seed, err)
		}
		theirs, err := note.NewSigner(key)
		if err != nil {
			t.Fatal(err)
		}
		if ours.Name() != theirs.Name() || ours.KeyHash() != theirs.KeyHash() {
			t.Fatalf("seed %x: %s %08x, want %s %08x", seed, ours.Name(), ours.KeyHash(), theirs.Name(), theirs.KeyHash())
		}
		for _, n := range []int{0, 1, i} {
			msg := make([]byte, n)
			rand.Read(msg)
			got, err := ours.Sign(msg)
			if err != nil {
				t.Fatal(err)
			}
			if want := ed25519.Sign(ed25519.NewKeyFromSeed(seed), msg); !bytes.Equal(got, want) {
				t.Fatalf("seed %x, message %x:\n got %x\nwant %x", seed, msg, got, want)
			}
		}
	}
}

// What note.NewSigner refuses is refused, without a word of the key.
func TestSignerRefuses(t *testing.T) {
	good := signingKey(t, "ward/host/00", make([]byte, 32))
	f := strings.Split(good, "+")
	secret := f[4]
	with := func(i int, s string) string {
		g := append([]string(nil), f...)
		g[i] = s
		return strings.Join(g, "+")
	}
	raw := append([]byte{1}, make([]byte, 32)...)
	b64 := base64.StdEncoding.EncodeToString
	for name, bad := range map[string]string{
		"empty":           "",
		"public key":      strings.Join(f[2:], "+"),
		"not private":     with(0, "PUBLIC"),
		"another name":    with(2, "ward/other/00"),
		"no name":         with(2, ""),
		"another hash":    with(3, "00000000"),
		"short hash":      with(3, f[3][:7]),
		"upper-case hash": with(3, strings.ToUpper(f[3])+"X"),
		"not base64":      with(4, secret[:len(secret)-2]+"!!"),
		"no algorithm":    with(4, b64(nil)),
		"other algorithm": with(4, b64(append([]byte{2}, raw[1:]...))),
		"short seed":      with(4, b64(raw[:32])),
		"long seed":       with(4, b64(append(raw, 0))),
	} {
		_, err := newSigner(bad)
		if _, std := note.NewSigner(bad); err == nil || std == nil {
			t.Errorf("%s: ours says %v, note.NewSigner %v", name, err, std)
			continue
		}
		if strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
	if _, err := newSigner(good); err != nil {
		t.Errorf("the key itself: %v", err)
	}
}

func BenchmarkFirstSignature(b *testing.B) {
	key := signingKey(b, "ward/host/00", make([]byte, 32))
	for b.Loop() {
		s, err := newSigner(key)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Sign([]byte("checkpoint")); err != nil {
			b.Fatal(err)
		}
	}
}
