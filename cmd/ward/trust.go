package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/verify"
)

func newKey(a *app) *cobra.Command {
	group := &cobra.Command{Use: "key", Short: "Signing keys"}
	var out string
	generate := &cobra.Command{
		Use: "generate [--out DIR]", Short: "Make a key pair, cosign.key and cosign.pub", Args: exactly(0, "no arguments"),
		Long: "Make a key pair in cosign's format. The private key is encrypted with the password in\n" +
			"COSIGN_PASSWORD, or one asked for on the terminal. Nothing is ever overwritten.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			pw, err := password(cmd.ErrOrStderr(), true)
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.KeyGenerate, audit.TrustEvent{Path: out}, func() error {
				if err := os.MkdirAll(out, 0o700); err != nil {
					return invalid("key.write", err.Error(), "name a directory that can be made")
				}
				key, pub, err := verify.GenerateKey(out, pw)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "private key (keep it): %s\npublic key:            %s\n", key, pub)
				return nil
			})
		},
	}
	generate.Flags().StringVar(&out, "out", ".", "`directory` to put them in")
	group.AddCommand(generate)
	return group
}

// recorded puts on record what is about to be done, then does it: with trust
// and keys a record too many is harmless and one too few is not.
func (a *app) recorded(ctx context.Context, kind audit.Type, data any, fn func() error) error {
	log, err := a.log(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := record(ctx, log, audit.Record{Type: kind, Actor: audit.Caller(), Data: data}); err != nil {
		return err
	}
	return fn()
}

// password comes from COSIGN_PASSWORD, as for cosign, or from the terminal.
func password(w io.Writer, twice bool) ([]byte, error) {
	if pw, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(pw), nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, invalid("key.password", "there is no terminal to ask for the key's password on", "set COSIGN_PASSWORD; empty means none")
	}
	ask := func(what string) ([]byte, error) {
		fmt.Fprint(w, what)
		defer fmt.Fprintln(w)
		return term.ReadPassword(int(os.Stdin.Fd()))
	}
	pw, err := ask("password of the private key: ")
	if err != nil || !twice {
		return pw, err
	}
	again, err := ask("once more: ")
	if err == nil && string(again) != string(pw) {
		err = invalid("key.password", "the two passwords differ", "try again")
	}
	return pw, err
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("key.file", err.Error(), "name a readable public key file")
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return nil, invalid("key.file", err.Error(), "name a readable public key file")
	}
	return pem, nil
}

func newTrust(a *app) *cobra.Command {
	group := &cobra.Command{Use: "trust", Short: "Whose signatures this host accepts, for which images"}
	group.AddCommand(newTrustAdd(a), newTrustList(a), newTrustRm(a), newTrustTest(a), newTrustShow(a), newTrustImport(a), newTrustExport(a), newTrustRoot(a))
	return group
}

func newTrustAdd(a *app) *cobra.Command {
	var key, name string
	cmd := &cobra.Command{
		Use: "add --key PUB [--name NAME] GLOB", Short: "Accept images that match GLOB if PUB's key signed them", Args: exactly(1, "a GLOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return usage("ward trust add needs --key")
			}
			pem, err := readKey(key)
			if err != nil {
				return err
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.TrustAdd, audit.TrustEvent{Name: name, Glob: args[0], Path: key}, func() error {
				path, err := verify.TrustAdd(l.Trust(), verify.TrustRule{Name: name, Glob: args[0], KeyPEM: pem})
				if err != nil {
					return err
				}
				return say(cmd, path)
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key `file` (PEM)")
	cmd.Flags().StringVar(&name, "name", "", "name of the policy; made of GLOB unless given")
	return cmd
}

func newTrustList(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the trust policies", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			ps, err := verify.TrustList(l.Trust())
			if err != nil {
				return err
			}
			if format == "json" {
				return indented(cmd.OutOrStdout(), ps)
			}
			var rows []row
			for _, p := range ps {
				rows = append(rows, trustRow(p))
			}
			return listing(cmd.OutOrStdout(), format, []column{{"NAME", "Name"}, {"IMAGES", "Globs"}, {"SIGNED BY", "Keys"}, {"FILE", "File"}}, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "table, json, or a Go template")
	return cmd
}

func newTrustRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a trust policy", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.TrustRemove, audit.TrustEvent{Name: args[0]}, func() error {
				return verify.TrustRemove(l.Trust(), args[0])
			})
		},
	}
}

func newTrustTest(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "test IMAGE", Short: "Say which trust policies apply to an image's name; exit 1 if none", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			ref, err := images.ParseReference(args[0])
			if err != nil {
				return err
			}
			ms, err := verify.TrustTest(l.Trust(), ref)
			if err != nil {
				return err
			}
			for _, m := range ms {
				if err := say(cmd, m.Name+"  "+m.Glob+"  "+m.File); err != nil {
					return err
				}
			}
			if len(ms) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "ward: no trust policy matches "+printable(ref)+": it is refused")
				return exitCode(1)
			}
			return nil
		},
	}
}

func trustRow(p verify.TrustPolicy) row {
	var keys []string
	for _, au := range p.Authorities {
		for _, k := range au.KeyIDs {
			keys = append(keys, k[:min(len(k), 19)])
		}
		for _, i := range au.Identities {
			keys = append(keys, printable(i))
		}
	}
	return row{"Name": p.Name, "Globs": strings.Join(p.Globs, ","), "Keys": strings.Join(keys, ","), "File": p.File, "Mode": p.Mode}
}
