package verify_test

import (
	"strings"
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

// BenchmarkAttestations is what an image costs with a provenance of usual
// size, and with the largest bill of materials that is kept.
func BenchmarkAttestations(b *testing.B) {
	k := newKey(b)
	v := trusting(b, k, "registry.example.com/**")
	row := `{"SPDXID":"SPDXRef-Package-deb-libxml2","name":"libxml2","versionInfo":"2.9.14+dfsg-1.3","licenseDeclared":"MIT"},`
	for name, n := range map[string]int{"small": 40, "large": (8 << 20) / len(row)} {
		for _, format := range statedFormats {
			m := []verify.Material{k.sign(b, verify.KindCosign, imageDigest),
				k.attest(b, format, stating(imageDigest, sbomType, `{"packages":[`+strings.Repeat(row, n)+`{}]}`))}
			b.Run(name+" "+format, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e, err := v.Verify(b.Context(), subject(), m)
					if err != nil || len(e.Attestations()) != 1 {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
