package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// signedNameAnnotation is where a policy says it, as clusters know no field
// for it and ignore annotations.
const signedNameAnnotation = ownAnnotations + "signed-identity"

// ownAnnotations is what the names of ward's own annotations begin with. One
// that is not known is an error: it may be misspelt, and ask for more.
const ownAnnotations = "ward.dev/"

// signedName is what a policy asks of the name that a cosign signature was
// made for: the "signedIdentity" of containers-policy.json(5), whose words it
// keeps. The zero value asks for nothing. A sigstore bundle names no image, so
// none satisfies anything else.
type signedName struct {
	kind string
	// args are the names that some kinds compare with.
	args []string
}

// The kinds that need nothing besides, and how many names the others take.
var signedNameArgs = map[string]int{
	"matchExact": 0, "matchRepoDigestOrExact": 0, "matchRepository": 0,
	"exactReference": 1, "exactRepository": 1, "remapIdentity": 2,
}

// parseSignedName reads the value of the annotation: a kind and its names,
// separated by spaces.
func parseSignedName(s string) (signedName, error) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return signedName{}, errors.New("it is empty")
	}
	n := signedName{words[0], words[1:]}
	want, known := signedNameArgs[n.kind]
	switch {
	case !known:
		return n, fmt.Errorf("%.64q is not matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository or remapIdentity", n.kind)
	case len(n.args) != want:
		return n, fmt.Errorf("%s takes %d names, not %d", n.kind, want, len(n.args))
	}
	switch n.kind {
	case "exactReference":
		if ref, err := parseReference(n.args[0]); err != nil || !complete(ref, n.args[0]) {
			return n, fmt.Errorf("%.128q is not an image name with tag or digest", n.args[0])
		}
	case "exactRepository":
		if _, err := name.NewRepository(n.args[0], name.WeakValidation); err != nil {
			return n, fmt.Errorf("%.128q is not a repository", n.args[0])
		}
	case "remapIdentity":
		for _, p := range n.args {
			if strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/") != "" || strings.HasSuffix(p, "/") {
				return n, fmt.Errorf("%.128q is not a registry, or the beginning of a repository", p)
			}
		}
	}
	return n, nil
}

func (n signedName) String() string { return strings.Join(append([]string{n.kind}, n.args...), " ") }

// match says whether a signature made for signed counts for the image ref.
func (n signedName) match(ref name.Reference, signed string) bool {
	if n.kind == "" {
		return true
	}
	said, err := parseReference(signed)
	if err != nil {
		return false
	}
	switch n.kind {
	case "matchRepository":
		return sameRepository(ref, said)
	case "matchExact":
		return complete(said, signed) && ref.Name() == said.Name()
	case "exactReference":
		want, err := parseReference(n.args[0])
		return err == nil && complete(said, signed) && want.Name() == said.Name()
	case "exactRepository":
		want, err := name.NewRepository(n.args[0], name.WeakValidation)
		return err == nil && want.Name() == said.Context().Name()
	case "remapIdentity":
		mapped, err := remap(ref, n.args[0], n.args[1])
		return err == nil && digestOrExact(mapped, said, signed)
	case "matchRepoDigestOrExact":
		return digestOrExact(ref, said, signed)
	}
	return false
}

// digestOrExact asks for the repository where the image was named by digest,
// which says the rest, and for everything where it was named by tag.
func digestOrExact(ref, said name.Reference, signed string) bool {
	if _, byDigest := ref.(name.Digest); byDigest {
		return sameRepository(ref, said)
	}
	return complete(said, signed) && ref.Name() == said.Name()
}

func sameRepository(a, b name.Reference) bool { return a.Context().Name() == b.Context().Name() }

// complete says whether tag or digest were written, and not filled in.
func complete(ref name.Reference, written string) bool {
	return strings.HasSuffix(written, ":"+ref.Identifier()) || strings.HasSuffix(written, "@"+ref.Identifier())
}

// remap replaces the beginning of a name, whole path elements only. Names that
// begin otherwise stay what they are.
func remap(ref name.Reference, from, to string) (name.Reference, error) {
	full := ref.Name()
	if rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/"); ok && !strings.HasPrefix(from, name.DefaultRegistry) {
		full = "docker.io/" + rest
	}
	rest, ok := strings.CutPrefix(full, from)
	if !ok || rest == "" || !slices.Contains([]byte("/:@"), rest[0]) || rest[0] == ':' && !strings.Contains(from, "/") {
		return ref, nil // with ":" after a host alone comes a port: another host
	}
	return parseReference(to + rest)
}
