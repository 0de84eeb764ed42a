package images

import (
	"fmt"
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
	if t, ok := r.(name.Tag); ok && (t.TagStr()[0] == '.' || t.TagStr()[0] == '-') {
		// go-containerregistry takes "..", which an URL would make a parent.
		return nil, bad("a tag begins with a letter, a digit or _")
	}
	if d, ok := r.(name.Digest); ok {
		if _, err := parseDigest(d.DigestStr()); err != nil {
			return nil, bad("only sha256 digests are supported")
		}
	}
	return r, nil
}

// checkRepository wants lower-case letters and digits with single separators
// between them. go-containerregistry checks only the characters, so "a/../b"
// and "a//b" would pass, and be asked of a registry as another path. (Written
// out: a regular expression would be compiled by every start of the program.)
func checkRepository(repo string) error {
	for c := range strings.SplitSeq(repo, "/") {
		if !isComponent(c) {
			return fmt.Errorf("repository component %q is not lower-case letters and digits with single separators", c)
		}
	}
	return nil
}

func isComponent(c string) bool {
	alnum := func(b byte) bool { return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' }
	if c == "" || !alnum(c[0]) || !alnum(c[len(c)-1]) {
		return false
	}
	for i := 0; i < len(c); {
		if alnum(c[i]) {
			i++
			continue
		}
		sep := i
		for !alnum(c[i]) { // ends: the last byte is one
			i++
		}
		switch s := c[sep:i]; {
		case s == "." || s == "_" || s == "__":
		case strings.Trim(s, "-") == "":
		default:
			return false
		}
	}
	return true
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

// asID returns the hex digits if ref can be an image ID or a prefix of one.
func asID(ref string) (hex string, ok bool) {
	hex = strings.TrimPrefix(ref, "sha256:")
	return hex, len(hex) >= 12 && len(hex) <= 64 && strings.Trim(hex, "0123456789abcdef") == ""
}
