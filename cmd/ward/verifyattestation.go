package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/verify"
)

func newVerifyAttestation(a *app) *cobra.Command {
	var f verifyFlags
	var kind, output string
	var policies []string
	cmd := &cobra.Command{
		Use:   "verify-attestation --type TYPE [--policy FILE.rego] [--key PUB | --certificate-identity NAME --certificate-oidc-issuer URL] IMAGE",
		Short: "Print what is stated about an image, if it is believed: exit 0 yes, 1 no, 3 unknown", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Judge the attestations kept beside an image by this host's trust policies, or by one key, or by\n" +
			"names in a certificate, alone. Those of TYPE that are believed are printed as cosign prints them: one\n" +
			"DSSE envelope a line. With --policy, data.signature.allow must be true for each, or none is printed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usage("--output %.32q is not there: use json", output)
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			uri, err := verify.PredicateType(kind)
			if err != nil {
				return err
			}
			rules, err := statementPolicy(policies)
			if err != nil {
				return err
			}
			_, subject, material, err := f.subject(a, cmd, args[0])
			if err != nil {
				return err
			}
			v, done, err := a.verifierFor(&f)
			if err != nil {
				return err
			}
			defer done()
			list, err := v.VerifyAttestations(cmd.Context(), subject, material, uri)
			if err != nil {
				return err
			}
			if rules != nil {
				for _, at := range list {
					if err := rules.Allows(cmd.Context(), at.Statement()); err != nil {
						return fmt.Errorf("%s: attestation %s: %w", subject.Reference, at.Envelope, err)
					}
				}
			}
			f.header(cmd.ErrOrStderr(), subject.Reference, nil)
			return printEnvelopes(cmd, list)
		},
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&kind, "type", "custom", "`TYPE` of the predicate: a name as for ward attest, or a URI")
	fs.StringArrayVar(&policies, "policy", nil, "Rego `file` with package signature that every one must satisfy")
	fs.StringVarP(&output, "output", "o", "json", "json or text: both are the envelopes, as cosign does")
	return cmd
}

// statementPolicy reads the files of --policy; nil without any.
func statementPolicy(paths []string) (*policy.StatementPolicy, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	files := map[string][]byte{}
	for _, p := range paths {
		if filepath.Ext(p) != ".rego" {
			return nil, usage("--policy %.200q: ward reads Rego only (FILE.rego)", p)
		}
		b, err := readUpTo(p, 1<<20)
		if err != nil {
			return nil, err
		}
		files[p] = b
	}
	return policy.NewStatementPolicy(files)
}

// header says on standard error what was checked, in cosign's words where they
// are true here.
func (f *verifyFlags) header(w io.Writer, ref string, annotations map[string]string) {
	fmt.Fprintf(w, "\nVerification for %s --\nThe following checks were performed on each of these signatures:\n", printable(ref))
	if len(annotations) > 0 {
		fmt.Fprintln(w, "  - The specified annotations were verified.")
	}
	fmt.Fprintln(w, "  - The cosign claims were validated")
	if f.keyless() && !f.ignoreTlog || f.tlogAsked {
		fmt.Fprintln(w, "  - Existence of the claims in the transparency log was verified offline")
	}
	switch {
	case f.key != "":
		fmt.Fprintln(w, "  - The signatures were verified against the specified public key")
	case f.keyless():
		fmt.Fprintln(w, "  - The code-signing certificate was verified using trusted certificate authority certificates")
	default:
		fmt.Fprintln(w, "  - The signatures were verified against the trust policies of this host")
	}
}

func printEnvelopes(cmd *cobra.Command, list []verify.Attestation) error {
	for _, at := range list {
		for _, s := range at.Signers {
			if s.Kind != verify.KindKey {
				cmd.PrintErrf("Certificate subject: %s\nCertificate issuer URL: %s\n", printable(s.Subject), printable(s.Issuer))
			}
		}
		b, err := at.DSSE()
		if err != nil {
			return err
		}
		if err := say(cmd, string(b)); err != nil {
			return err
		}
	}
	return nil
}
