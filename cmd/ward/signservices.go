package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/verify"
)

// serviceFlags name who is asked when something is signed, by cosign's names.
// Unlike cosign's they have no defaults: nobody is asked who is not named.
type serviceFlags struct {
	token, fulcio, rekor, stamps string
	config, trustedRoot          string
	tlog                         bool
}

func (f *serviceFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.token, "identity-token", "", "sign as who this OpenID Connect `token` (or file with one) says; else SIGSTORE_ID_TOKEN")
	fs.StringVar(&f.fulcio, "fulcio-url", "", "`address` of the certificate authority that knows the token's issuer")
	fs.StringVar(&f.rekor, "rekor-url", "", "`address` of a transparency log (Rekor v1)")
	fs.StringVar(&f.stamps, "timestamp-server-url", "", "whole `address` of an RFC 3161 timestamp authority")
	fs.StringVar(&f.config, "signing-config", "", "`file` with the addresses of all three, as sigstore gives them out")
	fs.StringVar(&f.trustedRoot, "trusted-root", "", "trusted_root.json `file` that their answers are checked by; this host's default unless given")
	fs.BoolVar(&f.tlog, "tlog-upload", true, "ask the log of --rekor-url or --signing-config; there is no other")
}

// services are who is asked; nil where only a key signs.
func (f *serviceFlags) services(a *app, cmd *cobra.Command, key string) (*verify.Services, error) {
	s := verify.Services{FulcioURL: f.fulcio, RekorURL: f.rekor, TimestampURL: f.stamps}
	if f.config != "" {
		if f.fulcio != "" || f.rekor != "" || f.stamps != "" {
			return nil, usage("--signing-config names the services already")
		}
		b, err := readUpTo(f.config, 1<<20)
		if err != nil {
			return nil, err
		}
		if s, err = verify.ServicesOf(b); err != nil {
			return nil, err
		}
	}
	switch {
	case key != "" && (f.token != "" || f.fulcio != ""):
		return nil, usage("--key and --identity-token are two ways to sign; give one")
	case cmd.Flags().Changed("tlog-upload") && f.tlog && s.RekorURL == "":
		return nil, usage("--tlog-upload needs --rekor-url: ward has no default log")
	}
	if !f.tlog {
		s.RekorURL = ""
	}
	if key != "" {
		if s.FulcioURL = ""; s.RekorURL == "" && s.TimestampURL == "" {
			return nil, nil
		}
	} else {
		var err error
		if s.Token, err = identityToken(f.token); err != nil {
			return nil, err
		}
		if s.Token == "" && s.FulcioURL == "" {
			return nil, usage("ward %s needs --key, or --identity-token and --fulcio-url", cmd.Name())
		}
	}
	var err error
	s.TrustedRoot, err = a.trustedRoot(f.trustedRoot)
	return &s, err
}

// identityToken is the token itself, or what stands in the file of that name,
// as for cosign. A token has two dots and no slash; a file may hold one line.
func identityToken(arg string) (string, error) {
	if arg == "" {
		return strings.TrimSpace(os.Getenv("SIGSTORE_ID_TOKEN")), nil
	}
	if _, err := os.Stat(arg); err != nil && strings.Count(arg, ".") == 2 && !strings.Contains(arg, "/") {
		return arg, nil
	}
	b, err := readUpTo(arg, 16<<10)
	if err != nil {
		// The argument may be a token with a mistake in it: it is not repeated.
		return "", invalid("sign.no-token", "--identity-token is neither a token nor a readable file with one", "give a token, or the file it is in")
	}
	return strings.TrimSpace(string(b)), nil
}
