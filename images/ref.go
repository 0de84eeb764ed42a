package images

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/ward-project/ward/internal/fault"
)

// maxReference is generous: registry 255, repository 255, tag 128, digest 71.
const maxReference = 1024

// parseReference reads a reference as Docker does: no registry means Docker
// Hub, no tag means latest. A tag beside a digest is checked and dropped.
func parseReference(ref string) (name.Reference, error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "image.reference", fmt.Sprintf("image reference %.200q: %s", ref, why), "write it as [REGISTRY[:PORT]/]NAME[:TAG] or NAME@sha256:DIGEST")
	}
	if ref == "" || len(ref) > maxReference {
		return nil, bad("empty or too long")
	}
	if i := strings.IndexFunc(ref, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
		return nil, bad("spaces, control and non-ASCII characters are not allowed")
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, bad(err.Error())
	}
	if err := checkRepository(r.Context().RepositoryStr()); err != nil {
		return nil, bad(err.Error())
	}
	if d, ok := r.(name.Digest); ok {
		if _, err := parseDigest(d.DigestStr()); err != nil {
			return nil, bad("only sha256 digests are supported")
		}
	}
	return r, nil
}

// go-containerregistry checks only the characters, so "a/../b" and "a//b"
// would pass, and be asked of a registry as another path.
var component = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

func checkRepository(repo string) error {
	for c := range strings.SplitSeq(repo, "/") {
		if !component.MatchString(c) {
			return fmt.Errorf("repository component %q is not lower-case letters and digits with single separators", c)
		}
	}
	return nil
}

// ParseReference returns the full form of ref as everything else here uses it,
// with registry, repository and tag or digest; an unreadable one is
// fault.Invalid.
func ParseReference(ref string) (full string, err error) {
	r, err := parseReference(ref)
	if err != nil {
		return "", err
	}
	return r.Name(), nil
}

var hexID = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// asID returns the hex digits if ref can be an image ID or a prefix of one.
func asID(ref string) (hex string, ok bool) {
	hex = strings.TrimPrefix(ref, "sha256:")
	return hex, hexID.MatchString(hex)
}
