package images

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Examine asks the registry of ref what Pull would bring and stores only what
// hangs on the image: the signatures and attestations on its manifest and on the
// index it was chosen from, which Attachments finds by digest as after a pull.
// It fetches no layer, gives the image no name here, and knows nothing of its
// files. Errors are those of Pull.
func (s *Store) Examine(ctx context.Context, ref, platform string) (Image, error) {
	img, err := s.examine(ctx, ref, platform)
	if err != nil {
		return Image{}, diskFault(fmt.Errorf("examine %s: %w", ref, err))
	}
	return img, nil
}

func (s *Store) examine(ctx context.Context, ref, platform string) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if _, err := wantPlatform(platform); err != nil {
		return Image{}, err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	defer w.end()
	repo, err := s.openRepository(ctx, r.Context(), transport.PullScope)
	if err != nil {
		return Image{}, err
	}
	l, err := repo.locate(ctx, r, platform)
	if err != nil {
		return Image{}, err
	}
	m, err := s.parseManifest(l.manifest, l.mt)
	if err != nil {
		return Image{}, err
	}
	config, err := repo.smallBlob(ctx, m.Config, maxConfig)
	if err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	img, err := toImage(m, config)
	if err != nil {
		return Image{}, err
	}
	img.Reference, img.Digest, img.Index = r.Name(), l.digest.String(), l.indexDigest
	for _, subject := range []string{img.Digest, img.Index} {
		if subject == "" {
			continue
		}
		if _, _, err := s.fetchAttachments(ctx, repo, subject); err != nil {
			return Image{}, err
		}
	}
	return img, nil
}
