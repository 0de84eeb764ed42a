package volume

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/ward-project/ward/internal/fault"
)

// AnonymousLabel marks a volume nobody named, as Docker marks it.
const AnonymousLabel = "com.docker.volume.anonymous"

// maxName is what a file name can be.
const maxName = 255

// NewName returns a name for a volume nobody names: 64 hex digits.
func NewName() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

// CheckName holds Docker's rule for names of volumes. A name is a file name,
// and none that passes is ".", "..", hidden, or the lock's.
func CheckName(name string) error {
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return fault.New(fault.Invalid, "volume.name",
				fmt.Sprintf(`%.64q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`, name),
				"if you mean a directory of the host, give its absolute path")
		}
	}
	if len(name) < 2 || len(name) > maxName {
		return fault.New(fault.Invalid, "volume.name", fmt.Sprintf("%.64q is not 2 to %d characters long", name, maxName),
			"choose a name of at least two letters or digits")
	}
	return nil
}

// CheckDriver refuses every driver but the one there is.
func CheckDriver(driver string) error {
	if driver == "" || driver == Local {
		return nil
	}
	return fault.New(fault.Invalid, "volume.driver", fmt.Sprintf("volume driver %.64q is not there", driver),
		"ward keeps volumes itself: use the driver local, or leave it out")
}
