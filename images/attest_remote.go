package images

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1"
)

// fetchAttestations brings the attestations of digest beside the image. "None"
// is believed only when the registry says so, as for signatures. More than the
// bounds allow is not fetched, and what is kept says so: an image can be run
// without them where no policy looks at attestations, and only there.
func (s *Store) fetchAttestations(ctx context.Context, r *repository, h v1.Hash, bundles []v1.Descriptor) (int, error) {
	c := &collector{r: r, subject: h, from: r.repo.Name()}
	if err := c.envelopes(ctx); err != nil {
		return 0, fmt.Errorf("attestations of %s: %w", h, err)
	}
	for _, d := range bundles {
		if err := c.bundle(ctx, d); err != nil {
			return 0, fmt.Errorf("attestations of %s: %w", h, err)
		}
	}
	return c.seen, s.replaceAttestations(h.String(), c.from, c.list)
}

// collector gathers the attestations of one digest within the bounds.
type collector struct {
	r       *repository
	subject v1.Hash
	from    string
	list    []Attestation
	seen    int
	bytes   int64
}

// omit keeps that there is something of which the payload is not kept. One
// such entry is enough for the number.
func (c *collector) omit(a Attestation, why string) {
	a.Subject, a.From, a.Omitted = c.subject.String(), c.from, why
	c.list = append(c.list, a)
}

// room counts one more attestation of size bytes and says whether it is to be
// fetched.
func (c *collector) room(kind string, d v1.Descriptor, hint string) bool {
	c.seen++
	a := Attestation{Attachment: Attachment{Kind: kind, MediaType: string(d.MediaType)}, PredicateType: clipped(hint), Size: d.Size, Digest: d.Digest.String()}
	switch {
	case c.seen == maxAttestations+1:
		a.Size, a.Digest, a.PredicateType = 0, "", ""
		c.omit(a, fmt.Sprintf("more than %d attestations", maxAttestations))
		return false
	case c.seen > maxAttestations:
		return false
	case d.Size > maxAttestation:
		c.omit(a, fmt.Sprintf("%d bytes, at most %d are kept", d.Size, maxAttestation))
		return false
	case c.bytes+d.Size > maxAttestationBytes:
		c.omit(a, fmt.Sprintf("together with others more than %d bytes", maxAttestationBytes))
		return false
	}
	c.bytes += max(d.Size, 0)
	return true
}

func clipped(s string) string {
	if len(s) > 1024 {
		return ""
	}
	return s
}

// add keeps what was fetched; what cannot be kept as it is, is said.
func (c *collector) add(a Attachment) {
	at := newAttestation(a, c.from)
	if err := at.check(); err != nil {
		at.Payload, at.Annotations, at.MediaType = nil, nil, ""
		c.omit(at, err.Error())
		return
	}
	c.list = append(c.list, at)
}

// envelopes fetches the layers of the .att tag.
func (c *collector) envelopes(ctx context.Context) error {
	m, _, _, err := c.r.tagManifest(ctx, c.subject, attSuffix)
	if m == nil || err != nil {
		return err
	}
	for _, l := range m.Layers {
		if l.MediaType != dsseEnvelope {
			continue // not an attestation
		}
		if !c.room(KindEnvelope, l, l.Annotations[predicateKey]) {
			continue
		}
		payload, err := c.r.smallBlob(ctx, l, maxAttestation)
		if err != nil {
			return err
		}
		c.add(Attachment{c.subject.String(), KindEnvelope, string(l.MediaType), payload, l.Annotations})
	}
	return nil
}

// bundle fetches one referrer that says it is an attestation.
func (c *collector) bundle(ctx context.Context, d v1.Descriptor) error {
	if c.seen > maxAttestations {
		c.seen++
		return nil
	}
	m, err := c.r.referrer(ctx, c.subject, d)
	if m == nil || err != nil {
		return err
	}
	l := m.Layers[0]
	if !c.room(KindBundle, l, m.Annotations[bundlePredicateKey]) {
		return nil
	}
	payload, err := c.r.smallBlob(ctx, l, maxAttestation)
	if err != nil {
		return err
	}
	c.add(Attachment{c.subject.String(), KindBundle, string(l.MediaType), payload, m.Annotations})
	return nil
}

// referrer fetches the manifest of a bundle that refers to h, or nil if it is
// something else: an SBOM, say.
func (r *repository) referrer(ctx context.Context, h v1.Hash, d v1.Descriptor) (*v1.Manifest, error) {
	if err := checkDescriptor(d, maxManifest); err != nil {
		return nil, err
	}
	b, mt, _, err := r.manifest(ctx, d.Digest.String(), d.Digest, d.Size)
	if err != nil {
		return nil, err
	}
	kind, err := checkDocument(b, mt)
	if err != nil {
		return nil, err
	}
	m := new(v1.Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, badDocument("image.attachment", "referrer %s: %v", d.Digest, err)
	}
	if kind != "manifest" || m.Subject == nil || m.Subject.Digest != h || len(m.Layers) != 1 || !isBundle(string(m.Layers[0].MediaType)) {
		return nil, nil
	}
	return m, nil
}

// pushAttestations sends those attestations of digest that the registry lacks.
func (s *Store) pushAttestations(ctx context.Context, p *pusher, h v1.Hash, replace string) (int, error) {
	list, err := s.Attestations(ctx, h.String())
	if err != nil {
		return 0, err
	}
	var envelopes, bundles []Attachment
	for _, a := range list {
		switch {
		case a.Omitted != "":
			continue // what is not here cannot be sent; Push says what it sent
		case a.Kind == KindEnvelope:
			envelopes = append(envelopes, a.Attachment)
		default:
			bundles = append(bundles, a.Attachment)
		}
	}
	if len(envelopes) > 0 {
		if err := p.pushTag(ctx, h, attSuffix, envelopes, replace); err != nil {
			return 0, fmt.Errorf("attestations of %s: %w", h, err)
		}
	}
	if err := p.pushBundles(ctx, h, bundles); err != nil {
		return 0, fmt.Errorf("attestations of %s: %w", h, err)
	}
	return len(envelopes) + len(bundles), nil
}
