package verify

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"

	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/ward-project/ward/internal/fault"
)

// SignRequest names what to sign, and with what. All fields but Password and
// Annotations are required.
type SignRequest struct {
	// KeyPath names the private key (ECDSA P-256): an encrypted file of cosign's,
	// env://VARIABLE with the same content, or NAME://KEY for a key plugin.
	KeyPath string
	// Password decrypts it; empty for a key made without one.
	Password []byte
	// Reference is the image's full name; its repository goes into the
	// payload of the cosign format.
	Reference string
	// Digest is what is vouched for, "sha256:…".
	Digest string
	// Format is KindCosign or KindBundle.
	Format string
	// Annotations are signed with the image; the cosign format only.
	Annotations map[string]string
}

// Sign vouches for a digest with a private key and returns the signature as
// Material, ready to be kept beside the image. It touches neither registry nor
// store.
func Sign(ctx context.Context, r SignRequest) (Material, error) {
	if _, err := r.check(); err != nil {
		return Material{}, err
	}
	s, err := NewSignatory(ctx, SignatoryConfig{KeyPath: r.KeyPath, Password: r.Password})
	if err != nil {
		return Material{}, err
	}
	return s.Sign(ctx, r)
}

// check refuses what cannot be signed, before a key is touched.
func (r SignRequest) check() (repository string, err error) {
	ref, err := parseReference(r.Reference)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "sign.reference", err, "name an image")
	}
	if !validDigest(r.Digest) {
		return "", fault.New(fault.Invalid, "sign.digest", fmt.Sprintf("%q is not a sha256 digest", r.Digest),
			"sign an image that is in the store")
	}
	switch r.Format {
	case KindCosign:
	case KindBundle:
		if len(r.Annotations) > 0 {
			return "", fault.New(fault.Invalid, "sign.annotations", "the bundle format has no place for annotations",
				"sign with --format cosign, or without annotations")
		}
	default:
		return "", fault.New(fault.Invalid, "sign.format", fmt.Sprintf("unknown signature format %q", r.Format),
			"use cosign or bundle")
	}
	return ref.Context().Name(), nil
}

func signCosign(ctx context.Context, s signature.Signer, repository string, r SignRequest) (Material, error) {
	body, err := newSimpleSigning(repository, r.Digest, r.Annotations)
	if err != nil {
		return Material{}, err
	}
	sig, err := s.SignMessage(bytes.NewReader(body), options.WithContext(ctx))
	if err != nil {
		return Material{}, fmt.Errorf("sign %s: %w", r.Digest, err)
	}
	return Material{
		Subject:     r.Digest,
		Kind:        KindCosign,
		MediaType:   types.SimpleSigningMediaType,
		Payload:     body,
		Annotations: map[string]string{static.SignatureAnnotationKey: base64.StdEncoding.EncodeToString(sig)},
	}, nil
}
