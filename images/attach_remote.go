package images

import (
	"bytes"
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

const (
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	bundleV03     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	emptyConfig   = "application/vnd.oci.empty.v1+json"
	// signPredicate is what cosign writes beside a bundle that signs an image.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// fetchAttachments brings the signatures of digest, in both formats, beside
// the image, and returns how many the registry has. "None" is believed only
// when the registry says so (404, an empty list): any other trouble is an
// error, or taking the registry down would make a signed image an unsigned one.
func (s *Store) fetchAttachments(ctx context.Context, r *repository, digest string) (int, error) {
	h, err := parseDigest(digest)
	if err != nil {
		return 0, err
	}
	list, err := r.cosignSignatures(ctx, h)
	if err != nil {
		return 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	bundles, err := r.bundles(ctx, h)
	if err != nil {
		return 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	list = append(list, bundles...)
	if len(list) > maxAttachments {
		return 0, tooMany(digest)
	}
	for _, a := range list {
		if err := s.attach(a); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

func sigTag(h v1.Hash) string { return "sha256-" + h.Hex + ".sig" }

// signatureManifest fetches the manifest under the .sig tag, or nil.
func (r *repository) signatureManifest(ctx context.Context, h v1.Hash) (*v1.Manifest, []byte, types.MediaType, error) {
	b, mt, _, err := r.manifest(ctx, sigTag(h), v1.Hash{}, -1)
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
		return nil, nil, "", badDocument("image.attachment", "%s of %s is not a manifest (%v)", sigTag(h), r.repo.Name(), err)
	}
	if len(m.Layers) > maxAttachments {
		return nil, nil, "", tooMany(h.String())
	}
	return m, b, mt, nil
}

func (r *repository) cosignSignatures(ctx context.Context, h v1.Hash) ([]Attachment, error) {
	m, _, _, err := r.signatureManifest(ctx, h)
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

// bundles fetches the sigstore bundles among the referrers of h.
func (r *repository) bundles(ctx context.Context, h v1.Hash) ([]Attachment, error) {
	ds, err := r.referrers(ctx, h)
	if err != nil {
		return nil, err
	}
	var list []Attachment
	for _, d := range ds {
		// Some registries list a manifest's config type instead of its
		// artifact type: those must be looked into.
		if !isBundle(d.ArtifactType) && d.ArtifactType != "" && d.ArtifactType != emptyConfig {
			continue
		}
		if len(list) >= maxAttachments {
			return nil, tooMany(h.String())
		}
		a, ok, err := r.bundle(ctx, h, d)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, a)
		}
	}
	return list, nil
}

func (r *repository) bundle(ctx context.Context, h v1.Hash, d v1.Descriptor) (a Attachment, ok bool, err error) {
	if err := checkDescriptor(d, maxManifest); err != nil {
		return a, false, err
	}
	b, mt, _, err := r.manifest(ctx, d.Digest.String(), d.Digest, d.Size)
	if err != nil {
		return a, false, err
	}
	kind, err := checkDocument(b, mt)
	if err != nil {
		return a, false, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return a, false, badDocument("image.attachment", "referrer %s: %v", d.Digest, err)
	}
	if kind != "manifest" || m.Subject == nil || m.Subject.Digest != h || len(m.Layers) != 1 || !isBundle(string(m.Layers[0].MediaType)) {
		return a, false, nil // something else refers to the image: an SBOM, say
	}
	payload, err := r.smallBlob(ctx, m.Layers[0], maxAttachment)
	if err != nil {
		return a, false, err
	}
	a = Attachment{h.String(), KindBundle, string(m.Layers[0].MediaType), payload, m.Annotations}
	return a, true, a.check()
}

// pushAttachments sends the signatures of digest that the registry lacks.
func (s *Store) pushAttachments(ctx context.Context, p *pusher, digest string) (int, error) {
	list, err := s.Attachments(ctx, digest)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	h, err := parseDigest(digest)
	if err != nil {
		return 0, err
	}
	var cosign, bundles []Attachment
	for _, a := range list {
		if a.Kind == KindCosign {
			cosign = append(cosign, a)
		} else {
			bundles = append(bundles, a)
		}
	}
	if err := p.pushCosign(ctx, h, cosign); err != nil {
		return 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	if err := p.pushBundles(ctx, h, bundles); err != nil {
		return 0, fmt.Errorf("signatures of %s: %w", digest, err)
	}
	return len(list), nil
}

// pushCosign appends to the .sig image. A registry has no compare-and-swap for
// tags, so two signers at once can lose one's signature: look again and repeat.
func (p *pusher) pushCosign(ctx context.Context, h v1.Hash, list []Attachment) error {
	for try := 0; ; try++ {
		m, raw, mt, err := p.signatureManifest(ctx, h)
		if err != nil {
			return err
		}
		missing := lacking(m, list)
		if len(missing) == 0 {
			return nil
		}
		if try == 4 {
			return fault.New(fault.Unavailable, "registry.unavailable", fmt.Sprintf("tag %s keeps losing signatures to another writer", sigTag(h)), "try again")
		}
		img, err := p.signatureImage(ctx, m, raw, mt)
		if err != nil {
			return err
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
		if err := p.Push(ctx, p.repo.Tag(sigTag(h)), img); err != nil {
			return remoteFault("push "+sigTag(h), err)
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
	b, err := l.i.r.smallBlob(l.i.ctx, l.d, maxAttachment)
	return io.NopCloser(bytes.NewReader(b)), err
}

// pushBundles sends each bundle as an OCI 1.1 referrer of h, as cosign does;
// go-containerregistry keeps the fallback tag where there is no referrers API.
func (p *pusher) pushBundles(ctx context.Context, h v1.Hash, list []Attachment) error {
	if len(list) == 0 {
		return nil
	}
	there, err := p.bundles(ctx, h)
	if err != nil {
		return err
	}
	have := map[v1.Hash]bool{}
	for _, a := range there {
		have[digestOf(a.Payload)] = true
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

// bundleAnnotations are those cosign writes, where a has none of its own.
func bundleAnnotations(a Attachment) map[string]string {
	out := map[string]string{"org.opencontainers.image.created": time.Now().UTC().Format(time.RFC3339)}
	if bytes.Contains(a.Payload, []byte(`"dsseEnvelope"`)) {
		out["dev.sigstore.bundle.content"] = "dsse-envelope"
		out["dev.sigstore.bundle.predicateType"] = signPredicate
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
