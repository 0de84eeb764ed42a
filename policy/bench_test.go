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
