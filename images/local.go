package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/ward-project/ward/internal/fault"
)

// Resolve finds an image in the local store; it never asks a registry. ref is
// a name, name:tag, name@digest, an image ID or at least 12 hex digits of one.
// A name wins over an ID prefix. Manifest and config are hashed again each
// time. Nothing found is fault.NotFound, an ambiguous prefix fault.Invalid,
// changed bytes fault.Invalid with rule "image.digest".
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	img, _, err := s.Inspect(ctx, ref)
	return img, err
}

// Inspect is Resolve that also returns the image's config as it was made.
func (s *Store) Inspect(ctx context.Context, ref string) (Image, []byte, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, nil, err
	}
	idx, err := s.readIndex()
	if err != nil {
		return Image{}, nil, diskFault(err)
	}
	e, err := find(idx, ref)
	if err != nil {
		return Image{}, nil, err
	}
	img, config, err := s.load(e)
	if err != nil {
		return Image{}, nil, diskFault(fmt.Errorf("image %s: %w", e.Annotations[keyRef], err))
	}
	return img, config, nil
}

// find returns the entry ref names.
func find(idx *v1.IndexManifest, ref string) (v1.Descriptor, error) {
	hex, isID := asID(ref)
	r, err := parseReference(ref)
	if err == nil && len(hex) != 64 {
		if e, ok := findName(idx, r); ok {
			return e, nil
		}
	}
	if !isID {
		if err != nil {
			return v1.Descriptor{}, err
		}
		return v1.Descriptor{}, fault.New(fault.NotFound, "image.missing", fmt.Sprintf("image %s is not in the local store", r.Name()), "ward pull "+ref)
	}
	var found []v1.Descriptor
	for _, e := range idx.Manifests {
		id := strings.TrimPrefix(e.Annotations[keyID], "sha256:")
		whole := len(hex) == 64 && (e.Digest.Hex == hex || e.Annotations[keyIndex] == "sha256:"+hex)
		if strings.HasPrefix(id, hex) || whole {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return v1.Descriptor{}, fault.New(fault.NotFound, "image.missing", fmt.Sprintf("no local image is named or numbered %s", ref), "ward images")
	}
	// Several names of one image: the first, and a tag before a bare digest.
	sort.Slice(found, func(i, j int) bool { return lessRef(found[i], found[j]) })
	for _, e := range found[1:] {
		if e.Digest != found[0].Digest {
			return v1.Descriptor{}, fault.New(fault.Invalid, "image.ambiguous-id", fmt.Sprintf("%s stands for more than one image", ref), "give more digits, or the name")
		}
	}
	return found[0], nil
}

func lessRef(a, b v1.Descriptor) bool {
	x, y := a.Annotations[keyRef], b.Annotations[keyRef]
	if dx, dy := strings.Contains(x, "@"), strings.Contains(y, "@"); dx != dy {
		return dy
	}
	return x < y
}

// findName finds a full reference. By digest, the repository must be one the
// image was got from: the same bytes under a name they never had would be
// judged by that other name's trust policy.
func findName(idx *v1.IndexManifest, r name.Reference) (v1.Descriptor, bool) {
	for _, e := range idx.Manifests {
		if e.Annotations[keyRef] == r.Name() {
			return e, true
		}
	}
	d, ok := r.(name.Digest)
	if !ok {
		return v1.Descriptor{}, false
	}
	for _, e := range idx.Manifests {
		if e.Digest.String() != d.DigestStr() && e.Annotations[keyIndex] != d.DigestStr() {
			continue
		}
		if er, err := parseReference(e.Annotations[keyRef]); err == nil && er.Context().Name() == d.Context().Name() {
			return e, true
		}
	}
	return v1.Descriptor{}, false
}

// List returns every image in the store, one for each name, sorted by name.
// Images that do not load (changed or missing bytes) come back as the error,
// beside the list of all others: leaving them out would hide them.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	idx, err := s.readIndex()
	if err != nil {
		return nil, diskFault(err)
	}
	slices.SortFunc(idx.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(a.Annotations[keyRef], b.Annotations[keyRef])
	})
	var list []Image
	var bad []error
	for _, e := range idx.Manifests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, _, err := s.load(e)
		if err != nil {
			bad = append(bad, fmt.Errorf("image %s: %w", e.Annotations[keyRef], err))
			continue
		}
		list = append(list, img)
	}
	return list, errors.Join(bad...)
}

// Tag gives the local image src the further name dst, taking it from whatever
// had it before. The image's signatures are about its digest and stay.
func (s *Store) Tag(ctx context.Context, src, dst string) (Image, error) {
	r, err := parseReference(dst)
	if err != nil {
		return Image{}, err
	}
	if _, ok := r.(name.Digest); ok {
		return Image{}, fault.New(fault.Invalid, "image.reference", fmt.Sprintf("%s: a digest cannot be given to an image as a name", dst), "name it with a tag")
	}
	img, err := s.Resolve(ctx, src)
	if err != nil {
		return Image{}, err
	}
	err = s.changeIndex(ctx, func(idx *v1.IndexManifest) error {
		e, err := find(idx, src)
		if err != nil {
			return err
		}
		if e.Digest.String() != img.Digest {
			return fault.New(fault.Unavailable, "image.changed", fmt.Sprintf("%s was given to another image meanwhile", src), "try again")
		}
		return setRef(idx, dst, copyEntry(e))
	})
	img.Reference = r.Name()
	return img, err
}

func copyEntry(e v1.Descriptor) v1.Descriptor {
	a := map[string]string{}
	for k, v := range e.Annotations {
		a[k] = v
	}
	e.Annotations = a
	return e
}
