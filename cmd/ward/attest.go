package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/verify"
)

// maxPredicateFile is as much as verify signs.
const maxPredicateFile = 8 << 20

// attestFlags are those of attest alone.
type attestFlags struct {
	signFlags
	kind, predicate, statement string
	replace, print             bool
}

func newAttest(a *app) *cobra.Command {
	var f attestFlags
	cmd := &cobra.Command{
		Use: "attest (--key KEY | --identity-token TOKEN --fulcio-url URL) --type TYPE --predicate FILE [OPTIONS] IMAGE", Short: "State something about an image, signed", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Sign an in-toto statement about an image that is in the store, by its digest, and keep it beside it.\n" +
			"TYPE is slsaprovenance, slsaprovenance02, slsaprovenance1, link, spdx, spdxjson, cyclonedx, vuln,\n" +
			"openvex, custom, or a URI. ward push sends image and attestations; --upload does so at once.",
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(a, cmd, args[0]) },
	}
	fs := cmd.Flags()
	f.register(fs)
	fs.StringVar(&f.kind, "type", "custom", "`TYPE` of the predicate")
	fs.StringVar(&f.predicate, "predicate", "", "what is stated: a `file`, or - for standard input")
	fs.StringVar(&f.statement, "statement", "", "a whole in-toto statement about this image, signed as it is: a `file`")
	fs.BoolVar(&f.replace, "replace", false, "remove other attestations of this type and form, with --upload also from the registry")
	fs.BoolVar(&f.print, "no-upload", false, "print the attestation and keep it nowhere")
	return cmd
}

func (f *attestFlags) run(a *app, cmd *cobra.Command, ref string) error {
	switch {
	case (f.predicate == "") == (f.statement == ""):
		return usage("ward attest needs one of --predicate and --statement")
	case f.statement != "" && cmd.Flags().Changed("type"):
		return usage("--type is the statement's own where --statement is given")
	case f.print && (f.upload || f.replace):
		return usage("--no-upload keeps nothing: --upload and --replace mean nothing then")
	}
	content, err := f.content(cmd.InOrStdin())
	if err != nil {
		return err
	}
	s, err := f.signatory(a, cmd)
	if err != nil {
		return err
	}
	return a.change(cmd.Context(), audit.ImageAttest, func(store *images.Store) (audit.ImageEvent, error) {
		img, err := store.Resolve(cmd.Context(), ref)
		if err != nil {
			return audit.ImageEvent{}, err
		}
		m, kind, err := f.sign(cmd, s, img, content)
		if err != nil {
			return audit.ImageEvent{}, err
		}
		ev := signed(img, m, s.By())
		sum := sha256.Sum256(m.Payload)
		ev.PredicateType, ev.Payload = kind, "sha256:"+hex.EncodeToString(sum[:])
		if f.print {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), string(m.Payload))
			return ev, err
		}
		if err := keepAttestation(cmd.Context(), store, m, f.replace); err != nil {
			return audit.ImageEvent{}, err
		}
		if f.upload {
			opt := images.PushOptions{Progress: cmd.ErrOrStderr()}
			if f.replace && m.Kind == verify.KindEnvelope {
				opt.Replace = kind
			}
			if _, err := store.Push(cmd.Context(), img.Reference, opt); err != nil {
				return ev, err // attested all the same
			}
		}
		cmd.PrintErrf("attested %s@%s: %s by %s (%s format)\n", img.Reference, img.Digest, kind, printable(signedBy(s.By())), m.Kind)
		return ev, nil
	})
}

// content reads what is to be stated.
func (f *attestFlags) content(stdin io.Reader) ([]byte, error) {
	if f.statement != "" {
		return readUpTo(f.statement, maxPredicateFile)
	}
	if f.predicate == "-" {
		b, err := io.ReadAll(io.LimitReader(stdin, maxPredicateFile))
		if err != nil {
			return nil, invalid("file", reason(err), "name a readable file")
		}
		return b, nil
	}
	return readUpTo(f.predicate, maxPredicateFile)
}

// sign makes the attestation and says of which type it is.
func (f *attestFlags) sign(cmd *cobra.Command, s *verify.Signatory, img images.Image, content []byte) (verify.Material, string, error) {
	format := verify.KindEnvelope
	if f.newBundle {
		format = verify.KindBundle
	}
	if f.statement != "" {
		return s.AttestStatement(cmd.Context(), content, img.Digest, format)
	}
	uri, predicate, err := verify.NewPredicate(f.kind, content, time.Now())
	if err != nil {
		return verify.Material{}, "", err
	}
	m, err := s.Attest(cmd.Context(), verify.AttestRequest{
		Reference: img.Reference, Digest: img.Digest, PredicateType: uri, Predicate: predicate, Format: format,
	})
	return m, uri, err
}
