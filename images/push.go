package images

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
)

// PushOptions are the true options of Push.
type PushOptions struct {
	// Progress, if not nil, gets one line a step.
	Progress io.Writer
	// Replace removes from the registry's .att tag the attestations of this
	// predicate type that are not kept here.
	Replace string
}

// Push sends the local image named ref, and the signatures kept beside it, to
// the registry in its name, and returns the manifest's digest there, which is
// always the local one. What is there already is not sent again, and
// signatures made by others are added to, never replaced. (A registry has no
// compare-and-swap: two who push signatures of one image at the same moment can
// overwrite each other's list. Each looks again and repeats, which closes most
// of the window; pushing again restores the rest from the local store.) Errors
// are classed as Pull's are.
func (s *Store) Push(ctx context.Context, ref string, opt PushOptions) (digest string, err error) {
	r, err := parseReference(ref)
	if err != nil {
		return "", err
	}
	idx, err := s.readIndex()
	if err != nil {
		return "", err
	}
	e, ok := findName(idx, r)
	if !ok {
		return "", fault.New(fault.NotFound, "image.missing", fmt.Sprintf("image %s is not in the local store", r.Name()), "ward tag IMAGE "+r.Name()+" gives a local image this name")
	}
	if d, ok := r.(name.Digest); ok && d.DigestStr() != e.Digest.String() {
		return "", fault.New(fault.Invalid, "image.push-index", fmt.Sprintf("%s is an index of several platforms and only one of them is here", r.Name()), "push it by tag, or by its own digest "+e.Digest.String())
	}
	w, err := s.begin(ctx) // so that nobody removes what is being sent
	if err != nil {
		return "", err
	}
	defer w.end()
	img, _, err := s.load(e)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", r.Name(), err)
	}
	say := progress(opt.Progress)
	say("pushing %s", r.Name())
	p, err := s.openPusher(ctx, r.Context())
	if err != nil {
		return "", err
	}
	local, err := partial.CompressedToImage(&localImage{s, e})
	if err != nil {
		return "", err
	}
	if err := p.Push(ctx, r, local); err != nil {
		return "", remoteFault("push "+r.Name(), err)
	}
	n, stated, err := s.pushAttachments(ctx, p, img.Digest, opt.Replace)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", r.Name(), err)
	}
	say("signatures: %d", n)
	if stated > 0 {
		say("attestations: %d", stated)
	}
	say("digest: %s", img.Digest)
	return img.Digest, nil
}

// pusher writes to one repository and reads what it needs for that.
type pusher struct {
	*remote.Pusher
	*repository
}

func (s *Store) openPusher(ctx context.Context, repo name.Repository) (*pusher, error) {
	r, err := s.openRepository(ctx, repo, transport.PushScope)
	if err != nil {
		return nil, err
	}
	p, err := remote.NewPusher(remote.WithTransport(r.base), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithContext(ctx), remote.WithJobs(2))
	return &pusher{p, r}, err
}

// localImage shows an image of the store to go-containerregistry's writer.
type localImage struct {
	s *Store
	e v1.Descriptor
}

func (l *localImage) RawManifest() ([]byte, error) { return l.s.readBlob(l.e.Digest, maxManifest) }

func (l *localImage) MediaType() (types.MediaType, error) { return l.e.MediaType, nil }

func (l *localImage) RawConfigFile() ([]byte, error) {
	m, err := l.manifest()
	if err != nil {
		return nil, err
	}
	return l.s.readBlob(m.Config.Digest, maxConfig)
}

func (l *localImage) manifest() (*v1.Manifest, error) {
	b, err := l.RawManifest()
	if err != nil {
		return nil, err
	}
	return l.s.parseManifest(b, l.e.MediaType)
}

func (l *localImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := l.manifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Layers {
		if d.Digest == h {
			return &localLayer{l.s, d}, nil
		}
	}
	return nil, fmt.Errorf("layer %s is not in the manifest", h)
}

type localLayer struct {
	s *Store
	d v1.Descriptor
}

func (l *localLayer) Digest() (v1.Hash, error) { return l.d.Digest, nil }

func (l *localLayer) Size() (int64, error) { return l.d.Size, nil }

func (l *localLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }

// Compressed opens the blob. It is hashed before the first byte is sent: a
// changed blob is our damage and must not be reported as the registry's no.
func (l *localLayer) Compressed() (io.ReadCloser, error) {
	ok, err := l.s.blobIntact(l.d.Digest, l.d.Size)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, tampered("stored layer %s is missing or changed", l.d.Digest)
	}
	return os.Open(l.s.blobPath(l.d.Digest))
}
