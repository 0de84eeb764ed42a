//go:build seccomp

package launcher_test

import (
	"slices"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"

	"github.com/ward-project/ward/sandbox/profile"
)

// newer are system calls that came after the oldest libseccomp we build with
// (2.5.4, Debian 12). It passes them over, so there they are answered as every
// call is that no rule allows: a program sees a kernel without them.
var newer = []string{"getxattrat", "setxattrat", "listxattrat", "removexattrat", "mseal", "statmount", "listmount"}

// TestProfileNamesAreKnown: libcontainer passes over names that libseccomp
// does not know, so a misspelt one would never be noticed.
func TestProfileNamesAreKnown(t *testing.T) {
	for _, r := range profile.Default().Rules {
		for _, name := range r.Names {
			if _, err := libseccomp.GetSyscallFromName(name); err != nil && !slices.Contains(newer, name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
