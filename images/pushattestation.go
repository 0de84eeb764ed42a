package images

import (
	"context"
	"fmt"
)

// PushAttestation sends one attestation to the repository of ref, whose
// registry has the image it is about; nothing else that is kept here goes with
// it. Errors are those of Push.
func (s *Store) PushAttestation(ctx context.Context, ref string, a Attachment) error {
	at := newAttestation(a, "")
	if err := at.check(); err != nil {
		return err
	}
	r, err := parseReference(ref)
	if err != nil {
		return err
	}
	h, err := parseDigest(a.Subject)
	if err != nil {
		return err
	}
	p, err := s.openPusher(ctx, r.Context())
	if err != nil {
		return fmt.Errorf("push attestation of %s: %w", ref, err)
	}
	if a.Kind == KindEnvelope {
		err = p.pushTag(ctx, h, attSuffix, []Attachment{a}, "")
	} else {
		err = p.pushBundles(ctx, h, []Attachment{a})
	}
	if err != nil {
		return fmt.Errorf("push attestation of %s: %w", ref, err)
	}
	return nil
}
