package oci

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// The annotations that name the image a bundle was made from. Ours is a
// digest, with the reference under which it is trusted; the others' count
// where they carry a digest.
const (
	// AnnotationDigest is "sha256:…" of the image's manifest or index.
	AnnotationDigest = "org.ward.image.digest"
	// AnnotationRef is the image's reference, with or without tag and digest.
	AnnotationRef = "org.ward.image.ref"

	annotationCRI  = "io.kubernetes.cri.image-name"  // containerd
	annotationCRIO = "io.kubernetes.cri-o.ImageName" // CRI-O
)

// named returns the reference, with digest, of the image that annotations
// name; "" if they name none.
func named(annotations map[string]string) (string, error) {
	digest, ref := annotations[AnnotationDigest], annotations[AnnotationRef]
	if digest == "" && ref == "" {
		for _, other := range []string{annotationCRI, annotationCRIO} {
			if v := annotations[other]; strings.Contains(v, "@sha256:") {
				return v, nil
			}
		}
		return "", nil
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "oci.annotation", fmt.Sprintf(format, args...),
			fmt.Sprintf("set %s to sha256:… and %s to the image's name", AnnotationDigest, AnnotationRef))
	}
	name, inRef, _ := strings.Cut(ref, "@")
	if digest == "" {
		digest = inRef
	}
	switch {
	case digest == "":
		return "", bad("annotation %s is there and no digest: a tag names another image tomorrow", AnnotationRef)
	case inRef != "" && inRef != digest:
		return "", bad("annotations %s and %s name two digests", AnnotationRef, AnnotationDigest)
	case name == "":
		return "", bad("annotation %s is there without %s: an image is trusted by its name", AnnotationDigest, AnnotationRef)
	}
	// Of name and tag the name: with a digest the tag means nothing.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name + "@" + digest, nil
}

// resolve finds the named image in ward's own store; no registry is asked.
func (g *Gate) resolve(ctx context.Context, ref string) (images.Image, error) {
	img, err := g.c.Resolver.Resolve(ctx, ref)
	if errors.Is(err, fault.NotFound) {
		return images.Image{}, fault.New(fault.Unverified, "oci.image",
			fmt.Sprintf("the bundle is said to be made from %s, which is not in ward's store and so cannot be verified", ref), "ward pull "+ref)
	}
	return img, err
}

// verify has the signatures of the image judged.
func (g *Gate) verify(ctx context.Context, img images.Image) (verify.Evidence, error) {
	subject, material, err := engine.Gather(ctx, g.c.Resolver, img)
	if err != nil {
		return verify.Evidence{}, err
	}
	ev, err := g.c.Verifier.Verify(ctx, subject, material)
	if err != nil {
		return verify.Evidence{}, err
	}
	if !ev.Verified() {
		return verify.Evidence{}, fault.New(fault.Unverified, "trust.unverified", "image "+img.Digest+" is not verified", "")
	}
	return ev, nil
}
