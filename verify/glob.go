package verify

import (
	"errors"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// maxGlob bounds a pattern; a reference is at most about 400 bytes.
const maxGlob = 512

// glob is one images[].glob of a policy, compiled.
type glob struct {
	text string
	re   *regexp.Regexp
}

// compileGlob follows sigstore policy-controller: "*" is any run without "/",
// "**" any run at all, the whole name must match, and the two patterns people
// write for Docker Hub get its prefix.
func compileGlob(text string) (glob, error) {
	if text == "" || len(text) > maxGlob {
		return glob{}, errors.New("glob is empty or too long")
	}
	for _, r := range text {
		if !strings.ContainsRune("-_:/*.@", r) && (r > 'z' || !isAlnum(byte(r))) {
			return glob{}, errors.New("glob may hold letters, digits and - _ : / * . @ only")
		}
	}
	full := text
	switch text {
	case "*":
		full = "index.docker.io/library/*"
	case "*/*":
		full = "index.docker.io/*/*"
	}
	var b strings.Builder
	b.WriteString("^")
	for len(full) > 0 {
		switch {
		case strings.HasPrefix(full, "**"):
			b.WriteString(".*")
			full = full[1:]
		case full[0] == '*':
			b.WriteString("[^/]*")
		default:
			b.WriteString(regexp.QuoteMeta(full[:1]))
		}
		full = full[1:]
	}
	b.WriteString("$")
	re, err := regexp.Compile(b.String())
	if err != nil {
		return glob{}, err
	}
	return glob{text: text, re: re}, nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// match tries every spelling of one image, see spellings.
func (g glob) match(names []string) bool {
	for _, n := range names {
		if g.re.MatchString(n) {
			return true
		}
	}
	return false
}

// spellings lists the names a glob may mean the image by: the full name, and
// what policy-controller's fallback would have seen had the user typed less
// (no ":latest", no Docker Hub prefix). Computing them here instead of looking
// at what was typed makes `busybox` and `docker.io/library/busybox:latest` the
// same question with the same answer.
func spellings(ref name.Reference, typed string) []string {
	names := []string{ref.Name()}
	if tag, ok := ref.(name.Tag); ok && tag.TagStr() == name.DefaultTag {
		names = append(names, ref.Context().Name())
	}
	const hub = name.DefaultRegistry + "/"
	for _, n := range names {
		if short, ok := strings.CutPrefix(n, hub); ok {
			names = append(names, "docker.io/"+short, short)
			if official, ok := strings.CutPrefix(short, "library/"); ok {
				names = append(names, official)
			}
		}
	}
	return append(names, typed)
}

// parseReference reads an image name as the policies will see it.
func parseReference(s string) (name.Reference, error) {
	if len(s) > 1024 {
		return nil, errors.New("image name is too long")
	}
	return name.ParseReference(s, name.WeakValidation)
}
