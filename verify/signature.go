package verify

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/ward-project/ward/internal/fault"
)

// Signature is one signature of an image by somebody whose word a trust policy
// was satisfied with. Only this package can make one that says anything.
type Signature struct {
	said payload.SimpleContainerImage
}

// MarshalJSON writes the payload as cosign verify prints it. Of what lies
// beside the signature only what has been verified is in it.
func (s Signature) MarshalJSON() ([]byte, error) { return json.Marshal(s.said) }

// VerifySignatures is Verify that counts no signature without these
// annotations, and also returns every signature, in the order of materials, by
// the authorities that are satisfied: Verify stops at as many as it needs.
// Where those asked for attestations alone, it returns these in the same form.
func (v *Verifier) VerifySignatures(ctx context.Context, s Subject, materials []Material, annotations map[string]string) (Evidence, []Signature, error) {
	var with, without int
	materials = slices.DeleteFunc(slices.Clone(materials), func(m Material) bool {
		switch {
		case m.states():
			return false
		case carries(m, annotations):
			with++
			return false
		}
		without++
		return true
	})
	e, err := v.Verify(ctx, s, materials)
	if err != nil {
		if without > 0 && fault.ClassOf(err) == fault.Unverified {
			more := fmt.Sprintf(" (%d without them do not count)", without)
			if with > 0 {
				more += "; of those that do: " + fault.As(err).Cause
			}
			err = unannotated(s, annotations, more)
		}
		return Evidence{}, nil, err
	}
	list, err := v.signatures(ctx, s, materials, e)
	if err != nil {
		return Evidence{}, nil, err
	}
	if len(list) == 0 && len(annotations) > 0 && e.Signed() {
		return Evidence{}, nil, unannotated(s, annotations, "")
	}
	if len(list) == 0 {
		list, err = stating(s, e)
	}
	return e, list, err
}

// carries says whether the signed payload has all annotations. A bundle has
// none: cosign 2.6 takes them there as given.
func carries(m Material, annotations map[string]string) bool {
	if len(annotations) == 0 {
		return true
	}
	var p payload.SimpleContainerImage
	if m.Kind != KindCosign || len(m.Payload) > maxMaterialBytes || json.Unmarshal(m.Payload, &p) != nil {
		return false
	}
	for k, want := range annotations {
		if have, ok := p.Optional[k].(string); !ok || have != want {
			return false
		}
	}
	return true
}

func unannotated(s Subject, annotations map[string]string, more string) error {
	var want []string
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		want = append(want, k+"="+annotations[k])
	}
	return fault.New(fault.Unverified, "trust.annotation",
		fmt.Sprintf("%s: no signature that is accepted carries the annotations %q%s", label(s), clip(strings.Join(want, ",")), more),
		"sign it with them: ward sign --key KEY -a KEY=VALUE "+s.Reference)
}

// by says whether the evidence rests on this authority.
func (e Evidence) by(policy, authority string) bool {
	return slices.ContainsFunc(e.signers, func(s Signer) bool {
		return s.Kind != KindStatic && s.Policy == policy && s.Authority == authority
	})
}

// signatures are those by the authorities that e rests on.
func (v *Verifier) signatures(ctx context.Context, s Subject, materials []Material, e Evidence) ([]Signature, error) {
	ref, err := checkSubject(s)
	if err != nil {
		return nil, err
	}
	policies, err := v.applying(ref, s)
	if err != nil {
		return nil, err
	}
	materials, st := sortOut(s, materials)
	set := v.setting(newClock(time.Now()), st)
	var list []Signature
	for _, m := range materials {
		seen, err := v.witnessed(ctx, s, set, policies, parse(m, s), e)
		if err != nil {
			return nil, err
		}
		if seen == nil {
			continue
		}
		said, err := seen.print(ref, m)
		if err != nil {
			return nil, fault.Wrap(fault.Unverified, "trust.malformed", err, "sign it again")
		}
		list = append(list, Signature{said})
	}
	return list, nil
}

// witness is what has been verified of one signature.
type witness struct {
	signer        Signer
	logged, timed bool
}

// witnessed asks every authority that e rests on; nil if none accepts c.
func (v *Verifier) witnessed(ctx context.Context, s Subject, set setting, policies []policy, c claim, e Evidence) (*witness, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.New(fault.Unavailable, "trust.interrupted", fmt.Sprintf("verify %s: %v", label(s), err), "try again")
	}
	var w *witness
	for _, p := range policies {
		named, err := p.named(s, []claim{c})
		if err != nil {
			return nil, err
		}
		for _, a := range p.authorities {
			if a.static != nil || len(a.wanted) > 0 || !e.by(p.name, a.name) {
				continue
			}
			signer, ok, err := a.accepts(ctx, s, set, named[0], new(misses))
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if w == nil {
				w = &witness{}
			}
			if w.signer.Subject == "" {
				w.signer = signer // who is named in a certificate says more than a key
			}
			w.logged, w.timed = w.logged || a.log != nil, w.timed || a.timestamp != nil
		}
	}
	return w, nil
}

// print is what cosign prints of the signature: the signed payload and, in
// "optional", what lay beside it. A bundle has neither name nor place for that.
func (w *witness) print(ref name.Reference, m Material) (p payload.SimpleContainerImage, err error) {
	if w.signer.Format == KindBundle {
		return plainSigning(ref, w.signer.Digest, signPredicate), nil
	}
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		return p, err
	}
	put := func(key string, value any) {
		if p.Optional == nil {
			p.Optional = map[string]any{}
		}
		p.Optional[key] = value
	}
	if w.signer.Kind != KindKey {
		certs, err := parseCertificates([]byte(m.Annotations[static.CertificateAnnotationKey]), 1)
		if err != nil {
			return p, err
		}
		put("Subject", w.signer.Subject)
		putExtensions(certs[0], put)
	}
	if s := m.Annotations[static.BundleAnnotationKey]; w.logged && s != "" {
		entry := new(bundle.RekorBundle)
		if err := json.Unmarshal([]byte(s), entry); err != nil {
			return p, err
		}
		put("Bundle", entry)
	}
	if s := m.Annotations[static.RFC3161TimestampAnnotationKey]; w.timed && s != "" {
		stamp := new(bundle.RFC3161Timestamp)
		if err := json.Unmarshal([]byte(s), stamp); err != nil {
			return p, err
		}
		put("RFC3161Timestamp", stamp)
	}
	return p, nil
}

// putExtensions puts what the certificate says in its older extensions, under
// number and name, as cosign does: those are all that it prints.
func putExtensions(cert *x509.Certificate, put func(string, any)) {
	for _, ext := range cert.Extensions {
		number := ext.Id.String()
		title, ok := cosign.CertExtensionMap[number]
		if !ok || len(ext.Value) == 0 {
			continue
		}
		if number == cosign.CertExtensionOIDCIssuer {
			title = "Issuer"
		}
		put(title, string(ext.Value))
		put(number, string(ext.Value))
	}
}

// plainSigning is a statement in the form of a payload.
func plainSigning(ref name.Reference, digest, kind string) payload.SimpleContainerImage {
	return payload.SimpleContainerImage{Critical: payload.Critical{
		Identity: payload.Identity{DockerReference: ref.Name()}, Image: payload.Image{DockerManifestDigest: digest}, Type: kind,
	}}
}

// stating are the attestations that e rests on.
func stating(s Subject, e Evidence) ([]Signature, error) {
	ref, err := checkSubject(s)
	if err != nil {
		return nil, err
	}
	var list []Signature
	for _, a := range e.attestations {
		if slices.ContainsFunc(a.Signers, func(g Signer) bool { return e.by(g.Policy, g.Authority) }) {
			list = append(list, Signature{plainSigning(ref, a.Digest, a.PredicateType)})
		}
	}
	return list, nil
}
