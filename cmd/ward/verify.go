package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/images"
	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// verifyFlags say by what verify and verify-attestation judge, by cosign's
// names; without any of them it is this host's trust policies.
type verifyFlags struct {
	key, trustedRoot                           string
	identity, identityRE, issuer, issuerRE     string
	ignoreTlog, ignoreSCT, stamps, pull, alone bool
	tlogAsked                                  bool
}

func (f *verifyFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.key, "key", "", "judge by this public key `file` alone")
	fs.StringVar(&f.identity, "certificate-identity", "", "judge by certificates for exactly this `name` alone")
	fs.StringVar(&f.identityRE, "certificate-identity-regexp", "", "an `expression` for the whole of it")
	fs.StringVar(&f.issuer, "certificate-oidc-issuer", "", "the exact `address` of who knew that name")
	fs.StringVar(&f.issuerRE, "certificate-oidc-issuer-regexp", "", "an `expression` for the whole of it")
	fs.StringVar(&f.trustedRoot, "trusted-root", "", "trusted_root.json `file`; this host's default unless given")
	fs.BoolVar(&f.stamps, "use-signed-timestamps", false, "ask for an RFC 3161 timestamp")
	fs.BoolVar(&f.ignoreTlog, "insecure-ignore-tlog", false, "ask for no transparency log entry (for keys only =false asks for one)")
	fs.BoolVar(&f.ignoreSCT, "insecure-ignore-sct", false, "ask for no certificate log's promise")
	fs.BoolVar(&f.pull, "pull", true, "pull an image that is not local; =false asks no registry")
	fs.BoolVar(&f.alone, "offline", false, "open no socket: the same as --pull=false")
	fs.Bool("new-bundle-format", false, "for cosign's sake: both formats are always looked at")
}

func (f *verifyFlags) keyless() bool {
	return f.identity != "" || f.identityRE != "" || f.issuer != "" || f.issuerRE != ""
}

// check refuses flags that contradict each other, or would go unheard.
func (f *verifyFlags) check(cmd *cobra.Command) error {
	f.tlogAsked = cmd.Flags().Changed("insecure-ignore-tlog") && !f.ignoreTlog
	switch {
	case f.key != "" && f.keyless():
		return usage("--key and --certificate-… are two ways to say who signed; give one")
	case f.keyless() && ((f.identity == "") == (f.identityRE == "") || (f.issuer == "") == (f.issuerRE == "")):
		return usage("give one of --certificate-identity and -regexp, and one of --certificate-oidc-issuer and -regexp")
	case f.key == "" && !f.keyless() && (f.trustedRoot != "" || f.stamps || f.ignoreTlog || f.ignoreSCT || f.tlogAsked):
		return usage("without --key or --certificate-identity this host's trust policies judge, and say themselves what they ask for")
	}
	return nil
}

// verifier is the host's, or one that trusts what the flags say for every
// name. The latter lives in a directory of its own until done is called.
func (a *app) verifierFor(f *verifyFlags) (v *verify.Verifier, done func(), err error) {
	if f.key == "" && !f.keyless() {
		v, err = a.verifier()
		return v, func() {}, err
	}
	authority, err := f.authority()
	if err != nil {
		return nil, nil, err
	}
	root, err := a.trustedRoot(f.trustedRoot)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "ward-verify-")
	if err != nil {
		return nil, nil, err
	}
	done = func() { os.RemoveAll(dir) }
	// JSON is YAML, and needs no care with what stands in a name.
	policy, err := json.Marshal(map[string]any{
		"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": map[string]any{"name": "flags"},
		"spec": map[string]any{"images": []any{map[string]any{"glob": "**"}}, "authorities": []any{authority}},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "flags.yaml"), policy, 0o600)
	}
	if err == nil && root != nil {
		_, err = verify.TrustRootAdd(dir, "default", root, false)
	}
	if err == nil {
		v, err = verify.Open(dir)
	}
	if err != nil {
		done()
	}
	return v, done, err
}

// authority is what the flags would be in a trust policy.
func (f *verifyFlags) authority() (map[string]any, error) {
	a := map[string]any{"name": "flags"}
	if f.stamps {
		a["rfc3161timestamp"] = map[string]any{"trustRootRef": "default"}
	}
	if f.key != "" {
		pem, err := readKey(f.key)
		if err != nil {
			return nil, err
		}
		a["key"] = map[string]any{"data": string(pem)}
		if f.tlogAsked {
			a["ctlog"] = map[string]any{"trustRootRef": "default"}
		}
		return a, nil
	}
	id := map[string]any{}
	for k, v := range map[string]string{"subject": f.identity, "subjectRegExp": f.identityRE, "issuer": f.issuer, "issuerRegExp": f.issuerRE} {
		if v != "" {
			id[k] = v
		}
	}
	a["keyless"] = map[string]any{"identities": []any{id}, "insecureIgnoreSCT": f.ignoreSCT}
	if f.ignoreTlog {
		a["ctlog"] = map[string]any{}
	} else {
		a["ctlog"] = map[string]any{"trustRootRef": "default"}
	}
	return a, nil
}

// subject is the image and what hangs on it; it is pulled if it is not here.
func (f *verifyFlags) subject(a *app, cmd *cobra.Command, ref string) (images.Image, verify.Subject, []verify.Material, error) {
	store, err := a.store(cmd.Context())
	if err != nil {
		return images.Image{}, verify.Subject{}, nil, err
	}
	img, err := store.Resolve(cmd.Context(), ref)
	if errors.Is(err, fault.NotFound) && f.pull && !f.alone {
		img, err = a.pull(cmd.Context(), engine.PullRequest{Image: ref, Progress: cmd.ErrOrStderr()})
	}
	if err != nil {
		return img, verify.Subject{}, nil, err
	}
	s, ms, err := engine.Gather(cmd.Context(), store, img)
	return img, s, ms, err
}

func newVerify(a *app) *cobra.Command {
	var f verifyFlags
	var output string
	var annotations []string
	cmd := &cobra.Command{
		Use: "verify [--key PUB | --certificate-identity NAME --certificate-oidc-issuer URL] IMAGE", Short: "Say who vouches for an image: exit 0 verified, 1 not, 3 unknown", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Judge the signatures kept beside an image by this host's trust policies, exactly as ward run\n" +
			"does, or by one key, or by names in a certificate, alone. An image that is not local is pulled\n" +
			"first; a registry that does not answer is exit 3: unknown, which is not the same as unsigned.\n" +
			"--output json prints the signed payloads as cosign verify does, --output evidence ward's own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" && output != "evidence" {
				return usage("--output %.32q is not there: use text, json or evidence", output)
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			asked, err := keyValues(annotations)
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
			ev, signatures, err := v.VerifySignatures(cmd.Context(), subject, material, asked)
			if err != nil {
				return err
			}
			if !ev.Signed() {
				// ward run may let it in all the same, by a grant. The question here is who vouches.
				return fault.New(fault.Unverified, "trust.static", "nobody vouches for "+ev.Reference()+": the trust policies that match ask for no signature, or only warn",
					"sign it and trust the key: ward sign --key KEY "+ev.Reference())
			}
			for _, w := range ev.Warnings() {
				fmt.Fprintf(cmd.ErrOrStderr(), "trust policy %s only warns: %s (%s)\n", w.Policy, printable(w.Cause), w.Rule)
			}
			switch output {
			case "json":
				f.header(cmd.ErrOrStderr(), subject.Reference, asked)
				return asCosign(cmd.OutOrStdout(), signatures)
			case "evidence":
				return indented(cmd.OutOrStdout(), ev)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "verified %s@%s\n", ev.Reference(), ev.Digest())
			for _, s := range ev.Signers() {
				fmt.Fprintf(cmd.OutOrStdout(), "  by %s %s (%s format)\n", s.Authority, printable(signedBy(s)), s.Format)
			}
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json (the payloads, as cosign does) or evidence (ward's own JSON)")
	cmd.Flags().StringSliceVarP(&annotations, "annotations", "a", nil, "count only signatures that carry `KEY=VALUE`")
	return cmd
}

// asCosign writes the payloads in one line after an empty one, byte for byte
// as cosign does, but for control characters, which a terminal would obey.
func asCosign(w io.Writer, list []verify.Signature) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s\n", reports.Escaped(b))
	return err
}
