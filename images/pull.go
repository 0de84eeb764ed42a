package images

import (
	"context"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PullOptions are the true options of Pull.
type PullOptions struct {
	// Platform is "os/arch[/variant]"; empty means linux on this machine.
	Platform string
	// Progress, if not nil, gets one line a step.
	Progress io.Writer
}

// Pull fetches an image and its signatures from its registry into the store
// and gives it its name there. Blobs already here are hashed again and fetched
// anew if they changed, so Pull mends a damaged store. Layers are stored, not
// unpacked: nothing has vouched for them yet.
//
// A registry that does not answer is fault.Unavailable, an image that is not
// there fault.NotFound, missing rights fault.Denied; bytes that do not hash as
// they should are fault.Invalid with rule "image.digest". On any error the
// name keeps what it had.
func (s *Store) Pull(ctx context.Context, ref string, opt PullOptions) (Image, error) {
	img, err := s.pull(ctx, ref, opt)
	return img, diskFault(err)
}

func (s *Store) pull(ctx context.Context, ref string, opt PullOptions) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if _, err := wantPlatform(opt.Platform); err != nil {
		return Image{}, err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	defer w.end()
	say := progress(opt.Progress)
	say("pulling %s", r.Name())
	repo, err := s.openRepository(ctx, r.Context(), transport.PullScope)
	if err != nil {
		return Image{}, err
	}
	entry, img, err := s.fetchImage(ctx, repo, r, opt.Platform, say)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", r.Name(), err)
	}
	for _, subject := range []string{img.Digest, img.Index} {
		if subject == "" {
			continue
		}
		n, stated, err := s.fetchAttachments(ctx, repo, subject)
		if err != nil {
			return Image{}, fmt.Errorf("pull %s: %w", r.Name(), err)
		}
		say("signatures of %s: %d", subject, n)
		if stated > 0 {
			say("attestations of %s: %d", subject, stated)
		}
	}
	if err := s.mendLayers(img); err != nil {
		return Image{}, err
	}
	err = s.changeIndex(ctx, func(idx *v1.IndexManifest) error { return setRef(idx, r.Name(), entry) })
	if err != nil {
		return Image{}, err
	}
	say("digest: %s", img.Digest)
	return img, nil
}

// progress returns a printer of lines; a writer that fails is the caller's.
func progress(w io.Writer) func(format string, a ...any) {
	return func(format string, a ...any) {
		if w != nil {
			fmt.Fprintf(w, format+"\n", a...)
		}
	}
}

// located is an image's manifest as a registry serves it, every byte of it
// checked against its digest; index is nil if no index led there.
type located struct {
	index, manifest []byte
	mt              types.MediaType
	digest          v1.Hash
	indexDigest     string
}

// locate reads the manifest that r names, through an index by platform.
func (r *repository) locate(ctx context.Context, ref name.Reference, platform string) (located, error) {
	var l located
	var want v1.Hash
	if d, ok := ref.(name.Digest); ok {
		h, err := parseDigest(d.DigestStr())
		if err != nil {
			return l, err
		}
		want = h
	}
	var err error
	if l.manifest, l.mt, l.digest, err = r.manifest(ctx, ref.Identifier(), want, -1); err != nil {
		return l, err
	}
	kind, err := checkDocument(l.manifest, l.mt)
	if err != nil || kind != "index" {
		return l, err
	}
	d, err := choose(l.manifest, platform)
	if err != nil {
		return l, err
	}
	l.index, l.indexDigest = l.manifest, l.digest.String()
	if l.manifest, l.mt, l.digest, err = r.manifest(ctx, d.Digest.String(), d.Digest, d.Size); err != nil {
		return l, err
	}
	if l.mt != d.MediaType {
		return l, badDocument("image.media-type", "index says manifest %s is %.100q, the registry serves it as %.100q", l.digest, d.MediaType, l.mt)
	}
	return l, nil
}

// fetchImage brings manifest, config and layers into the store and returns the
// index entry for them.
func (s *Store) fetchImage(ctx context.Context, repo *repository, r name.Reference, platform string, say func(string, ...any)) (v1.Descriptor, Image, error) {
	fail := func(err error) (v1.Descriptor, Image, error) { return v1.Descriptor{}, Image{}, err }
	l, err := repo.locate(ctx, r, platform)
	if err != nil {
		return fail(err)
	}
	if l.index != nil {
		if _, err := s.writeBlob(l.index); err != nil {
			return fail(err)
		}
	}
	img, err := s.fetchContent(ctx, repo, l.manifest, l.mt, say)
	if err != nil {
		return fail(err)
	}
	if _, err := s.writeBlob(l.manifest); err != nil {
		return fail(err)
	}
	img.Reference, img.Digest, img.Index = r.Name(), l.digest.String(), l.indexDigest
	return newEntry(img, l.mt, int64(len(l.manifest)), l.digest), img, nil
}

func newEntry(img Image, mt types.MediaType, size int64, digest v1.Hash) v1.Descriptor {
	e := v1.Descriptor{MediaType: mt, Size: size, Digest: digest, Annotations: map[string]string{keyRef: img.Reference, keyID: img.ID}}
	if img.Index != "" {
		e.Annotations[keyIndex] = img.Index
	}
	return e
}

func (s *Store) fetchContent(ctx context.Context, repo *repository, manifest []byte, mt types.MediaType, say func(string, ...any)) (Image, error) {
	m, err := s.parseManifest(manifest, mt)
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
	for i, l := range m.Layers {
		how, err := s.fetchLayer(ctx, repo, l)
		if err != nil {
			return Image{}, fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
		}
		say("layer %s: %s, %d bytes", l.Digest, how, l.Size)
	}
	_, err = s.writeBlob(config)
	return img, err
}

// fetchLayer brings one layer's blob into the store. Processes that pull the
// same layer take turns, and all but the first find it there.
func (s *Store) fetchLayer(ctx context.Context, repo *repository, l v1.Descriptor) (how string, err error) {
	lock, err := s.stripe(ctx, "blob", l.Digest.Hex)
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	if ok, err := s.blobIntact(l.Digest, l.Size); ok || err != nil {
		return "already here", err
	}
	rc, err := repo.blob(ctx, l.Digest)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	return "fetched", s.storeBlob(classed{rc, "blob " + l.Digest.String()}, l.Digest, l.Size)
}
