package images

import (
	"context"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxReferrers bounds what is listed of what else refers to an image.
const maxReferrers = 256

// Referrer is something in a registry that refers to an image and is neither
// signature nor attestation: an SBOM, a scanner's report. All of it is the
// registry's word; nothing of it is fetched.
type Referrer struct {
	// Subject is the digest it refers to, Digest its own.
	Subject string `json:"subject"`
	Digest  string `json:"digest"`
	// Tag is where it lies if that is no referrer but cosign's own place.
	Tag string `json:"tag,omitempty"`
	// Type is its artifact type, or the media type where it has none.
	Type string `json:"type"`
	Size int64  `json:"size"`
}

// Referrers asks the registry of ref what refers to digest besides signatures
// and attestations, in the registry's order; more says that there is more than
// is listed. Errors are those of Pull.
func (s *Store) Referrers(ctx context.Context, ref, digest string) (list []Referrer, more bool, err error) {
	name, err := parseReference(ref)
	if err != nil {
		return nil, false, err
	}
	h, err := parseDigest(digest)
	if err != nil {
		return nil, false, err
	}
	r, err := s.openRepository(ctx, name.Context(), transport.PullScope)
	if err != nil {
		return nil, false, err
	}
	m, _, _, err := r.tagManifest(ctx, h, sbomSuffix)
	if err != nil {
		return nil, false, err
	}
	if m != nil {
		for _, l := range m.Layers {
			list = append(list, Referrer{digest, clipped(l.Digest.String()), hangingTag(h, sbomSuffix), clipped(string(l.MediaType)), l.Size})
		}
	}
	ds, err := r.referrers(ctx, h)
	if err != nil {
		return nil, false, err
	}
	for _, d := range ds {
		if strings.HasPrefix(d.ArtifactType, "application/vnd.dev.sigstore.bundle") {
			continue
		}
		kind := d.ArtifactType
		if kind == "" {
			kind = string(d.MediaType)
		}
		list = append(list, Referrer{digest, clipped(d.Digest.String()), "", clipped(kind), d.Size})
	}
	if len(list) > maxReferrers {
		return list[:maxReferrers], true, nil
	}
	return list, false, nil
}
