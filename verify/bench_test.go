package verify_test

import (
	"testing"

	"github.com/ward-project/ward/verify"
)

// BenchmarkVerify is what each run, exec and restart pays: one policy, one
// signature, everything at hand.
func BenchmarkVerify(b *testing.B) {
	k := newKey(b)
	v := trusting(b, k, "registry.example.com/**")
	for _, format := range []string{verify.KindCosign, verify.KindBundle} {
		m := []verify.Material{k.sign(b, format, imageDigest)}
		b.Run(format, func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Verify(b.Context(), subject(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen is the reading of a trust directory with one policy.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Glob: "registry.example.com/**", KeyPEM: newKey(b).pem}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := verify.Open(dir); err != nil {
			b.Fatal(err)
		}
	}
}
