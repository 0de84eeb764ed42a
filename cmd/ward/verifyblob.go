package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/verify"
)

// newVerifyBlob is cosign's verify-blob for bundles, with its flag names, so
// that what checks sigstore clients can check this one.
func newVerifyBlob(a *app) *cobra.Command {
	var bundle, rootFile, key string
	var r verify.BlobRequest
	cmd := &cobra.Command{
		Use:   "verify-blob --bundle BUNDLE (--certificate-identity NAME --certificate-oidc-issuer URL | --key PUB) FILE|sha256:DIGEST",
		Short: "Check that a sigstore bundle vouches for a file; exit 0 yes, 1 no", Args: exactly(1, "a FILE or sha256:DIGEST"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Checks a bundle (v0.1 to v0.3) with a message signature, or with a statement that has the file as a\n" +
			"subject. The authorities and logs are those of --trusted-root, else of this host's trust root default.\n" +
			"No image, policy or network is involved. Expressions must match the whole name.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if bundle == "" {
				return usage("ward verify-blob needs --bundle")
			}
			if r.Bundle, err = readUpTo(bundle, verify.MaxBundle); err != nil {
				return err
			}
			if key != "" {
				if r.KeyPEM, err = readKey(key); err != nil {
					return err
				}
			}
			if r.TrustedRoot, err = a.trustedRoot(rootFile); err != nil {
				return err
			}
			f, err := os.Open(args[0])
			switch {
			case err == nil:
				defer f.Close()
				r.Artifact = f
			case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(args[0], "sha256:"):
				r.Digest = args[0]
			default:
				return invalid("file", reason(err), "name a readable file, or its digest as sha256:…")
			}
			s, err := verify.VerifyBlob(cmd.Context(), r)
			if err != nil {
				return err
			}
			return say(cmd, "verified: "+signedBy(s))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&bundle, "bundle", "", "sigstore bundle `file`")
	fs.StringVar(&rootFile, "trusted-root", "", "trusted_root.json `file`; this host's default unless given")
	fs.StringVar(&key, "key", "", "public key `file` (PEM) that must have signed")
	fs.StringVar(&r.Identity, "certificate-identity", "", "the exact `name` in the certificate")
	fs.StringVar(&r.IdentityRegexp, "certificate-identity-regexp", "", "an `expression` for the whole of it")
	fs.StringVar(&r.Issuer, "certificate-oidc-issuer", "", "the exact `address` of who knew that name")
	fs.StringVar(&r.IssuerRegexp, "certificate-oidc-issuer-regexp", "", "an `expression` for the whole of it")
	fs.BoolVar(&r.Timestamp, "use-signed-timestamps", false, "ask for an RFC 3161 timestamp besides the log entry")
	fs.BoolVar(&r.UnsafeIgnoreLog, "insecure-ignore-tlog", false, "ask for no transparency log entry")
	fs.BoolVar(&r.UnsafeIgnoreSCT, "insecure-ignore-sct", false, "ask for no certificate log's promise")
	fs.Bool("new-bundle-format", true, "the only format there is; for cosign's sake")
	return cmd
}

// trustedRoot reads a file, or this host's trust root default; nil if that does
// not exist.
func (a *app) trustedRoot(file string) ([]byte, error) {
	if file != "" {
		return readUpTo(file, 2<<20)
	}
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	return verify.TrustRootRead(l.Trust(), "default")
}

// signedBy says who a signer is, in a line.
func signedBy(s verify.Signer) string {
	line := "key " + s.KeyID
	if s.Kind == verify.KindStatic {
		return "nobody: trust policy " + s.Policy + " asks for no signature"
	}
	if s.Kind != verify.KindKey {
		line = s.Subject
		if s.Issuer != "" {
			line += " by " + s.Issuer
		}
	}
	if s.SignedAt != nil {
		line += " at " + s.SignedAt.Time.Format("2006-01-02T15:04:05Z") + " (" + s.SignedAt.Source + ")"
	}
	return line
}
