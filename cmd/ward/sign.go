package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/verify"
)

// signFlags are what sign and attest share, by cosign's names.
type signFlags struct {
	serviceFlags
	key       string
	newBundle bool
	upload    bool
}

func (f *signFlags) register(fs *pflag.FlagSet) {
	f.serviceFlags.register(fs)
	fs.StringVar(&f.key, "key", "", "private key: a `file`, env://VARIABLE, or NAME://KEY for a key plugin")
	fs.BoolVar(&f.newBundle, "new-bundle-format", false, "write a sigstore bundle, kept as an OCI referrer")
	fs.BoolVar(&f.upload, "upload", false, "push image and signatures to its registry")
	fs.BoolP("yes", "y", false, "for cosign's sake: ward asks nothing")
}

// signatory opens what signs. Nothing has happened by then. Where services are
// asked, the bundle is the only form.
func (f *signFlags) signatory(a *app, cmd *cobra.Command) (*verify.Signatory, error) {
	services, err := f.services(a, cmd, f.key)
	if err != nil {
		return nil, err
	}
	f.newBundle = f.newBundle || services != nil
	var pw []byte
	if f.key != "" {
		if pw, err = password(cmd.ErrOrStderr(), false); err != nil {
			return nil, err
		}
	}
	return verify.NewSignatory(cmd.Context(), verify.SignatoryConfig{KeyPath: f.key, Password: pw, Services: services})
}

// signed is the record of what was made, and by whom.
func signed(img images.Image, m verify.Material, by verify.Signer) audit.ImageEvent {
	ev := event(img)
	ev.Format, ev.KeyID, ev.Issuer, ev.Signer = m.Kind, by.KeyID, by.Issuer, by.Subject
	return ev
}

func newSign(a *app) *cobra.Command {
	var f signFlags
	var format string
	var annotations []string
	cmd := &cobra.Command{
		Use: "sign (--key KEY | --identity-token TOKEN --fulcio-url URL) [OPTIONS] IMAGE", Short: "Vouch for an image with a private key, or by name", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Sign an image that is in the store, by its digest, and keep the signature beside it.\n" +
			"ward push sends image and signatures; --upload does so at once. With a token the authority given\n" +
			"certifies a key made for this signature, which a timestamp or a log entry makes last.",
		RunE: func(cmd *cobra.Command, args []string) error {
			notes, err := keyValues(annotations)
			if err != nil {
				return err
			}
			s, err := f.signatory(a, cmd)
			if err != nil {
				return err
			}
			if f.newBundle {
				if cmd.Flags().Changed("format") && format != verify.KindBundle {
					return usage("--format %.32q is not there with --new-bundle-format, or where services are asked", format)
				}
				format = verify.KindBundle
			}
			return a.change(cmd.Context(), audit.ImageSign, func(store *images.Store) (audit.ImageEvent, error) {
				img, err := store.Resolve(cmd.Context(), args[0])
				if err != nil {
					return audit.ImageEvent{}, err
				}
				m, err := s.Sign(cmd.Context(), verify.SignRequest{Reference: img.Reference, Digest: img.Digest, Format: format, Annotations: notes})
				if err != nil {
					return audit.ImageEvent{}, err
				}
				if err := store.Attach(cmd.Context(), images.Attachment(m)); err != nil {
					return audit.ImageEvent{}, err
				}
				ev := signed(img, m, s.By())
				if f.upload {
					if _, err := store.Push(cmd.Context(), img.Reference, images.PushOptions{Progress: cmd.ErrOrStderr()}); err != nil {
						return ev, err // signed all the same
					}
				}
				cmd.PrintErrf("signed %s@%s by %s (%s format)\n", img.Reference, img.Digest, printable(signedBy(s.By())), format)
				return ev, nil
			})
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", verify.KindCosign, "cosign (a .sig tag) or bundle (a sigstore bundle as referrer)")
	cmd.Flags().StringSliceVarP(&annotations, "annotations", "a", nil, "`KEY=VALUE` to sign along")
	return cmd
}

func keyValues(list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, n := range list {
		k, v, ok := strings.Cut(n, "=")
		if !ok || k == "" {
			return nil, usage("--annotations %.64q is not KEY=VALUE", n)
		}
		if _, twice := m[k]; twice {
			return nil, usage("--annotations gives %.64q twice", k)
		}
		m[k] = v
	}
	return m, nil
}

// keepAttestation puts what was signed beside the image.
func keepAttestation(ctx context.Context, store *images.Store, m verify.Material, replace bool) error {
	if replace {
		return store.ReplaceAttestations(ctx, images.Attachment(m))
	}
	return store.Attest(ctx, images.Attachment(m))
}
