package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/verify"
)

func newTrustRoot(a *app) *cobra.Command {
	group := &cobra.Command{Use: "root", Short: "Which certificate authorities, logs and timestamp authorities exist"}
	group.AddCommand(newTrustRootAdd(a), newTrustRootList(a), newTrustRootRm(a), newTrustRootUpdate(a))
	return group
}

func newTrustRootAdd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME FILE", Short: "Keep a trusted_root.json as NAME; policies mean default unless they name one", Args: exactly(2, "a NAME and a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readUpTo(args[1], 2<<20)
			if err != nil {
				return err
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.TrustAdd, audit.TrustEvent{Name: "root " + args[0], Path: args[1]}, func() error {
				path, err := verify.TrustRootAdd(l.Trust(), args[0], b, false)
				if err != nil {
					return err
				}
				return say(cmd, path)
			})
		},
	}
}

func newTrustRootList(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the trust roots", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			roots, err := verify.TrustRootList(l.Trust())
			if err != nil {
				return err
			}
			if format == "json" {
				return indented(cmd.OutOrStdout(), roots)
			}
			var rows []row
			for _, r := range roots {
				services := append(append(append([]string{}, r.Authorities...), r.Logs...), r.Timestamps...)
				if r.Problem != "" {
					services = []string{"cannot be used: " + r.Problem}
				}
				rows = append(rows, row{"Name": r.Name, "Digest": r.Digest[:min(len(r.Digest), 19)], "Vouches": strings.Join(services, ","), "File": r.File})
			}
			return listing(cmd.OutOrStdout(), format, []column{{"NAME", "Name"}, {"DIGEST", "Digest"}, {"VOUCHES FOR", "Vouches"}, {"FILE", "File"}}, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "table, json, or a Go template")
	return cmd
}

func newTrustRootRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a trust root; policies that need it refuse from then on", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.TrustRemove, audit.TrustEvent{Name: "root " + args[0]}, func() error {
				return verify.TrustRootRemove(l.Trust(), args[0])
			})
		},
	}
}

func newTrustRootUpdate(a *app) *cobra.Command {
	var mirror, first string
	cmd := &cobra.Command{
		Use: "update [NAME] [--mirror URL --tuf-root FILE]", Short: "Fetch a trust root (default, unless named) from a TUF repository; needs a network",
		Args: cobra.MaximumNArgs(1),
		Long: "Fetches trusted_root.json from sigstore's public TUF repository, or from a mirror whose first root.json\n" +
			"is given, and keeps it as NAME. Signatures, expiry and versions are checked. No other command fetches one.",
		RunE: func(cmd *cobra.Command, args []string) error {
			u := verify.RootUpdate{Name: "default", Mirror: mirror}
			if len(args) > 0 {
				u.Name = args[0]
			}
			if first != "" {
				b, err := readUpTo(first, 1<<20)
				if err != nil {
					return err
				}
				u.TUFRoot = b
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			return a.recorded(cmd.Context(), audit.TrustAdd, audit.TrustEvent{Name: "root " + u.Name, Path: mirror}, func() error {
				path, changed, err := verify.TrustRootUpdate(cmd.Context(), l.Trust(), u)
				switch {
				case err != nil:
					return err
				case !changed:
					return say(cmd, path+" is up to date")
				}
				return say(cmd, path)
			})
		},
	}
	cmd.Flags().StringVar(&mirror, "mirror", "", "`URL` of a TUF repository instead of sigstore's public one")
	cmd.Flags().StringVar(&first, "tuf-root", "", "root.json `file` to check the mirror's first answer with")
	return cmd
}

// readUpTo reads a whole file that a person named, unless it is larger.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("file", reason(err), "name a readable file")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, invalid("file", reason(err), "name a readable file")
	}
	if int64(len(b)) > limit {
		return nil, invalid("file", path+" is too large", "name the right file")
	}
	return b, nil
}

func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Path + ": " + pe.Err.Error()
	}
	return err.Error()
}
