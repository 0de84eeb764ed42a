package images

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
)

const (
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	bundleV03     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	emptyConfig   = "application/vnd.oci.empty.v1+json"
	// signPredicate is what cosign writes beside a bundle that signs an image.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// fetchAttachments brings the signatures of digest, in both formats, and the
// attestations beside the image, and returns how many of each the registry has.
// "None" is believed only when the registry says so (404, an empty list): any
// other trouble is an error, or taking the registry down would make a signed
// image an unsigned one.
func (s *Store) fetchAttachments(ctx context.Context, r *repository, digest string) (signatures, attestations int, err error) {
	h, err := parseDigest(digest)
	if err != nil {
		return 0, 0, err
	}
	list, err := r.cosignSignatures(ctx, h)
	if err != nil {
		return 0, 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	bundles, stated, err := r.bundles(ctx, h)
	if err != nil {
		return 0, 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	list = append(list, bundles...)
	if len(list) > maxAttachments {
		return 0, 0, tooMany(digest)
	}
	for _, a := range list {
		if err := s.attach(a); err != nil {
			return 0, 0, err
		}
	}
	n, err := s.fetchAttestations(ctx, r, h, stated)
	return len(list), n, err
}

// What hangs on an image under a tag of its own.
const (
	sigSuffix  = ".sig"
	attSuffix  = ".att"
	sbomSuffix = ".sbom"
)

func hangingTag(h v1.Hash, suffix string) string { return "sha256-" + h.Hex + suffix }

// tagManifest fetches the manifest under the .sig or .att tag, or nil.
func (r *repository) tagManifest(ctx context.Context, h v1.Hash, suffix string) (*v1.Manifest, []byte, types.MediaType, error) {
	tag := hangingTag(h, suffix)
	b, mt, _, err := r.manifest(ctx, tag, v1.Hash{}, -1)
	if fault.ClassOf(err) == fault.NotFound {
		return nil, nil, "", nil
	}
	if err != nil {
		return nil, nil, "", err
	}
	kind, err := checkDocument(b, mt)
	if err != nil {
		return nil, nil, "", err
	}
	m := new(v1.Manifest)
	if err := json.Unmarshal(b, m); err != nil || kind != "manifest" {
		return nil, nil, "", badDocument("image.attachment", "%s of %s is not a manifest (%v)", tag, r.repo.Name(), err)
	}
	if suffix == sigSuffix && len(m.Layers) > maxAttachments {
		return nil, nil, "", tooMany(h.String())
	}
	return m, b, mt, nil
}

func (r *repository) cosignSignatures(ctx context.Context, h v1.Hash) ([]Attachment, error) {
	m, _, _, err := r.tagManifest(ctx, h, sigSuffix)
	if m == nil || err != nil {
		return nil, err
	}
	var list []Attachment
	for _, l := range m.Layers {
		if l.Annotations[sigAnnotation] == "" {
			continue // not a signature
		}
		payload, err := r.smallBlob(ctx, l, maxAttachment)
		if err != nil {
			return nil, err
		}
		a := Attachment{h.String(), KindCosign, string(l.MediaType), payload, l.Annotations}
		if err := a.check(); err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// bundles fetches the sigstore bundles among the referrers of h that are
// signatures, and returns those that are attestations unfetched. What a
// registry says about a referrer is a hint only: for a signature the payload
// decides (cosign itself labels some attestations as signatures).
func (r *repository) bundles(ctx context.Context, h v1.Hash) (signatures []Attachment, attestations []v1.Descriptor, err error) {
	ds, err := r.referrers(ctx, h)
	if err != nil {
		return nil, nil, err
	}
	looked := 0
	for _, d := range ds {
		if !maybeBundle(d) {
			continue
		}
		if hint := d.Annotations[bundlePredicateKey]; hint != "" && hint != signPredicate {
			attestations = append(attestations, d)
			continue
		}
		if looked++; looked > maxAttachments+maxAttestations {
			return nil, nil, tooMany(h.String())
		}
		a, kind, err := r.bundle(ctx, h, d)
		switch {
		case err != nil:
			return nil, nil, err
		case kind == aSignature:
			signatures = append(signatures, a)
		case kind == anAttestation:
			attestations = append(attestations, d)
		}
	}
	if len(signatures) > maxAttachments {
		return nil, nil, tooMany(h.String())
	}
	return signatures, attestations, nil
}

// maybeBundle leaves out what is surely none. Some registries list a
// manifest's config type instead of its artifact type: those must be looked
// into.
func maybeBundle(d v1.Descriptor) bool {
	return isBundle(d.ArtifactType) || d.ArtifactType == "" || d.ArtifactType == emptyConfig
}

type referrerKind int

const (
	somethingElse referrerKind = iota
	aSignature
	anAttestation
)

func (r *repository) bundle(ctx context.Context, h v1.Hash, d v1.Descriptor) (a Attachment, kind referrerKind, err error) {
	m, err := r.referrer(ctx, h, d)
	if m == nil || err != nil {
		return a, somethingElse, err
	}
	hint := m.Annotations[bundlePredicateKey]
	if hint != "" && hint != signPredicate || m.Layers[0].Size > maxAttachment {
		return a, anAttestation, nil // no signature is that large
	}
	payload, err := r.smallBlob(ctx, m.Layers[0], maxAttachment)
	if err != nil {
		return a, somethingElse, err
	}
	a = Attachment{h.String(), KindBundle, string(m.Layers[0].MediaType), payload, m.Annotations}
	if stated := statedType(a); stated != "" && stated != signPredicate {
		return a, anAttestation, nil
	}
	return a, aSignature, a.check()
}
