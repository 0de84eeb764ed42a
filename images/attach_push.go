package images

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
)

// pushAttachments sends the signatures and attestations of digest that the
// registry lacks.
func (s *Store) pushAttachments(ctx context.Context, p *pusher, digest, replace string) (signatures, attestations int, err error) {
	list, err := s.Attachments(ctx, digest)
	if err != nil {
		return 0, 0, err
	}
	h, err := parseDigest(digest)
	if err != nil {
		return 0, 0, err
	}
	var cosign, bundles []Attachment
	for _, a := range list {
		if a.Kind == KindCosign {
			cosign = append(cosign, a)
		} else {
			bundles = append(bundles, a)
		}
	}
	if len(cosign) > 0 {
		if err := p.pushTag(ctx, h, sigSuffix, cosign, ""); err != nil {
			return 0, 0, fmt.Errorf("signatures of %s: %w", digest, err)
		}
	}
	if err := p.pushBundles(ctx, h, bundles); err != nil {
		return 0, 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	n, err := s.pushAttestations(ctx, p, h, replace)
	return len(list), n, err
}

// pushTag appends to the .sig or .att image. A registry has no compare-and-swap for
// tags, so two signers at once can lose one's signature: look again and repeat.
func (p *pusher) pushTag(ctx context.Context, h v1.Hash, suffix string, list []Attachment, replace string) error {
	tag := hangingTag(h, suffix)
	for try := 0; ; try++ {
		m, raw, mt, err := p.tagManifest(ctx, h, suffix)
		if err != nil {
			return err
		}
		missing, outdated := lacking(m, list), superseded(m, list, replace)
		if len(missing)+len(outdated) == 0 {
			return nil
		}
		if try == 4 {
			return fault.New(fault.Unavailable, "registry.unavailable", fmt.Sprintf("tag %s keeps losing what is added to another writer", tag), "try again")
		}
		img, err := p.signatureImage(ctx, m, raw, mt)
		if err != nil {
			return err
		}
		if len(outdated) > 0 {
			if img, err = p.without(ctx, m, outdated); err != nil {
				return err
			}
		}
		for _, a := range missing {
			img, err = mutate.Append(img, mutate.Addendum{
				Layer:       static.NewLayer(a.Payload, types.MediaType(a.MediaType)),
				Annotations: a.Annotations,
			})
			if err != nil {
				return err
			}
		}
		if err := p.Push(ctx, p.repo.Tag(tag), img); err != nil {
			return remoteFault("push "+tag, err)
		}
	}
}

// lacking returns those of list that m does not hold. The same payload signed
// by two keys is two layers of one digest: the signature tells them apart.
func lacking(m *v1.Manifest, list []Attachment) []Attachment {
	have := map[string]bool{}
	if m != nil {
		for _, l := range m.Layers {
			have[l.Digest.String()+" "+l.Annotations[sigAnnotation]] = true
		}
	}
	var missing []Attachment
	for _, a := range list {
		if !have[digestOf(a.Payload).String()+" "+a.Annotations[sigAnnotation]] {
			missing = append(missing, a)
		}
	}
	return missing
}

// superseded are the places in m of the attestations of type replace that are
// not in list; none where nothing is to be replaced.
func superseded(m *v1.Manifest, list []Attachment, replace string) map[int]bool {
	if m == nil || replace == "" {
		return nil
	}
	keep := map[v1.Hash]bool{}
	for _, a := range list {
		keep[digestOf(a.Payload)] = true
	}
	old := map[int]bool{}
	for i, l := range m.Layers {
		if l.MediaType == dsseEnvelope && l.Annotations[predicateKey] == replace && !keep[l.Digest] {
			old[i] = true
		}
	}
	return old
}

// without is an image of the layers of m that are not outdated.
func (p *pusher) without(ctx context.Context, m *v1.Manifest, outdated map[int]bool) (v1.Image, error) {
	img, err := p.signatureImage(ctx, nil, nil, "")
	if err != nil {
		return nil, err
	}
	for i, l := range m.Layers {
		if outdated[i] {
			continue
		}
		payload, err := p.smallBlob(ctx, l, maxAttestation)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(payload, l.MediaType), Annotations: l.Annotations})
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

// signatureImage is the image to append to: the registry's, or an empty one as
// cosign makes it.
func (p *pusher) signatureImage(ctx context.Context, m *v1.Manifest, raw []byte, mt types.MediaType) (v1.Image, error) {
	if m == nil {
		img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
	}
	config, err := p.smallBlob(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&remoteImage{ctx, p.repository, m, raw, config, mt})
}

// remoteImage shows a small image of the registry to mutate.
type remoteImage struct {
	ctx    context.Context // of the one push it lives for
	r      *repository
	m      *v1.Manifest
	raw    []byte
	config []byte
	mt     types.MediaType
}

func (i *remoteImage) RawManifest() ([]byte, error) { return i.raw, nil }

func (i *remoteImage) RawConfigFile() ([]byte, error) { return i.config, nil }

func (i *remoteImage) MediaType() (types.MediaType, error) { return i.mt, nil }

func (i *remoteImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range i.m.Layers {
		if d.Digest == h {
			return &remoteLayer{i, d}, nil
		}
	}
	return nil, fmt.Errorf("layer %s is not in the manifest", h)
}

type remoteLayer struct {
	i *remoteImage
	d v1.Descriptor
}

func (l *remoteLayer) Digest() (v1.Hash, error) { return l.d.Digest, nil }

func (l *remoteLayer) Size() (int64, error) { return l.d.Size, nil }

func (l *remoteLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }

func (l *remoteLayer) Compressed() (io.ReadCloser, error) {
	b, err := l.i.r.smallBlob(l.i.ctx, l.d, maxAttestation)
	return io.NopCloser(bytes.NewReader(b)), err
}

// pushBundles sends each bundle as an OCI 1.1 referrer of h, as cosign does;
// go-containerregistry keeps the fallback tag where there is no referrers API.
func (p *pusher) pushBundles(ctx context.Context, h v1.Hash, list []Attachment) error {
	if len(list) == 0 {
		return nil
	}
	have, err := p.bundleDigests(ctx, h)
	if err != nil {
		return err
	}
	raw, mt, _, err := p.manifest(ctx, h.String(), h, -1)
	if err != nil {
		return err
	}
	config := static.NewLayer([]byte("{}"), emptyConfig)
	for _, a := range list {
		if have[digestOf(a.Payload)] {
			continue
		}
		layer := static.NewLayer(a.Payload, types.MediaType(a.MediaType))
		for _, l := range []v1.Layer{config, layer} {
			if err := p.Upload(ctx, p.repo, l); err != nil {
				return remoteFault("push bundle", err)
			}
		}
		m := referrer{v1.Manifest{
			SchemaVersion: 2,
			MediaType:     types.OCIManifestSchema1,
			ArtifactType:  a.MediaType,
			Config:        v1.Descriptor{MediaType: emptyConfig, Digest: digestOf([]byte("{}")), Size: 2},
			Layers:        []v1.Descriptor{{MediaType: types.MediaType(a.MediaType), Digest: digestOf(a.Payload), Size: int64(len(a.Payload))}},
			Subject:       &v1.Descriptor{MediaType: mt, Digest: h, Size: int64(len(raw))},
			Annotations:   bundleAnnotations(a),
		}}
		b, err := m.RawManifest()
		if err != nil {
			return err
		}
		if err := p.Push(ctx, p.repo.Digest(digestOf(b).String()), m); err != nil {
			return remoteFault("push bundle", err)
		}
	}
	return nil
}

// bundleDigests are the digests of the bundles that refer to h already. Only so
// many are looked into: sending one a second time does no harm.
func (r *repository) bundleDigests(ctx context.Context, h v1.Hash) (map[v1.Hash]bool, error) {
	ds, err := r.referrers(ctx, h)
	if err != nil {
		return nil, err
	}
	have := map[v1.Hash]bool{}
	looked := 0
	for _, d := range ds {
		if !maybeBundle(d) {
			continue
		}
		if looked++; looked > 2*(maxAttachments+maxAttestations) {
			break
		}
		m, err := r.referrer(ctx, h, d)
		if err != nil {
			return nil, err
		}
		if m != nil {
			have[m.Layers[0].Digest] = true
		}
	}
	return have, nil
}

// bundleAnnotations are those cosign writes, where a has none of its own.
func bundleAnnotations(a Attachment) map[string]string {
	out := map[string]string{"org.opencontainers.image.created": time.Now().UTC().Format(time.RFC3339)}
	if bytes.Contains(a.Payload, []byte(`"dsseEnvelope"`)) {
		out["dev.sigstore.bundle.content"] = "dsse-envelope"
		out[bundlePredicateKey] = cmp.Or(statedType(a), signPredicate)
	} else {
		out["dev.sigstore.bundle.content"] = "message-signature"
	}
	for k, v := range a.Annotations {
		if !strings.HasPrefix(k, "dev.ward.") {
			out[k] = v
		}
	}
	return out
}

type referrer struct{ m v1.Manifest }

func (r referrer) RawManifest() ([]byte, error) { return json.Marshal(r.m) }

func (r referrer) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
