package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestCapabilitiesFile: the published list is the one in force. To write it
// anew, run this test with WARD_UPDATE=1 and read the difference.
func TestCapabilitiesFile(t *testing.T) {
	const file = "../docs/schema/policy-capabilities-v1.json"
	want, err := json.MarshalIndent(capabilities(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if os.Getenv("WARD_UPDATE") != "" {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s is not what is in force: run with WARD_UPDATE=1", file)
	}
}

func TestCapabilitiesArePure(t *testing.T) {
	if !slices.IsSorted(allowedBuiltins) {
		t.Fatal("the list is not sorted: look-ups in it would miss")
	}
	if n := len(capabilities().Builtins); n != len(allowedBuiltins) {
		t.Errorf("%d of %d listed built-ins exist", n, len(allowedBuiltins))
	}
	if n := capabilities().AllowNet; n == nil || len(n) != 0 {
		t.Errorf("network allowed: %v", n)
	}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		on := slices.ContainsFunc(capabilities().Builtins, func(a *ast.Builtin) bool { return a.Name == b.Name })
		if on && b.IsNondeterministic() {
			t.Errorf("%s depends on more than its arguments", b.Name)
		}
	}
	for _, name := range []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "time.now_ns", "rand.intn", "uuid.rfc4122", "trace",
		"json.match_schema", "json.verify_schema", "io.jwt.decode_verify", "crypto.x509.parse_and_verify_certificates", "providers.aws.sign_req"} {
		if slices.Contains(allowedBuiltins, name) {
			t.Errorf("%s is allowed", name)
		}
	}
}
