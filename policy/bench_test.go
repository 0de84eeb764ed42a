package policy_test

import (
	"testing"

	"github.com/ward-project/ward/policy"
)

func BenchmarkOpen(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Open(policy.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	e, err := policy.Open(policy.Config{})
	if err != nil {
		b.Fatal(err)
	}
	in := good()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := e.Decide(b.Context(), in); err != nil || !d.Allowed() {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenLibrary is Open with rules of one's own that use none of the
// library, one package of it, and most of it.
func BenchmarkOpenLibrary(b *testing.B) {
	none := "package ward.run\n\ndeny contains \"no\" if input.run.user.uid == 7\n"
	one := "package ward.run\n\nimport data.ward.lib.identity\n\ndeny contains \"no\" if not identity.signed_by({})\n"
	for name, files := range map[string][]string{"none": {"a.rego", none}, "identity": {"a.rego", one}, "scan,vex": {"a.rego", sample(b, "rego file=scanned.rego")}} {
		b.Run(name, func(b *testing.B) {
			d := dir(b, files...)
			for b.Loop() {
				if _, err := policy.Open(policy.Config{Dir: d}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
