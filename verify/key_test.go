package verify_test

import (
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// Keys that nobody should trust, and a kind that signs nothing. Their private
// halves were never kept.
var unfitKeys = map[string]string{
	"RSA 1024": `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8j7weW4b0g6rH4ZWonSMu5WOG
oDQ4VJMlN12Yh0oidyYPOponaPAKFB91QpD+a7DXuMDS9mcmVEq3pNOHsV2Eqss7
znrL1MgWYQwnw0/08prMaeW9S83O+k4hhk/XV3mwb8Uww1Lu7/yQkt5NzxLYa9At
9WR5s40bFbDYwqI47wIDAQAB
-----END PUBLIC KEY-----
`,
	"P-224": `-----BEGIN PUBLIC KEY-----
ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEWLxvgHv/Y1P1O9FsOSk3ej2vdCMYUybn
iavJnxzrVMt7RUVTxOFWdnZPJ8FUhRJ+Mm7G2lMEsmU=
-----END PUBLIC KEY-----
`,
	"X25519": `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAbhW46OEEdh3lelRPGtz3geAKPm1ub1MDAMk7ObRsHEs=
-----END PUBLIC KEY-----
`,
}

func TestUnfitKeysAreRefused(t *testing.T) {
	for name, pem := range unfitKeys {
		if _, err := verify.TrustAdd(t.TempDir(), verify.TrustRule{Glob: "**", KeyPEM: []byte(pem)}); fault.As(err).Rule != "trust.key" {
			t.Errorf("%s: %v", name, err)
		}
		dir := t.TempDir()
		write(t, dir, "a.yaml", cip("a", "**", byKey([]byte(pem))))
		if _, err := verify.Open(dir); fault.As(err).Rule != "trust.policy" {
			t.Errorf("%s in a file: %v", name, err)
		}
	}
}
