package manifest

import (
	"strings"
	"testing"
)

// FuzzDotEnv holds that a file of variables is read whole or not at all, and
// that no name comes out that a shell could not have.
func FuzzDotEnv(f *testing.F) {
	for _, s := range []string{
		"A=b\n", "export A=b", "A='b c' # d", "A=\"b\\n${C}\"", "A", "=", "A=\"", "A='b\nc'", "\x00=x", "A=b\x00", "A=${A:-${B:-c}}", "\xef\xbb\xbfA=b", "a b=c", "# x\n\nA=1\nA=2",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		vars, err := DotEnv(".env", b)
		if err != nil {
			if len(vars) > 0 {
				t.Fatalf("half of it: %q", vars)
			}
			return
		}
		for name := range vars {
			if name == "" || strings.ContainsAny(name, "=\n\x00 ") {
				t.Fatalf("name %q", name)
			}
		}
	})
}
