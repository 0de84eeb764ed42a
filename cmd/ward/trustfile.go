package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

func newTrustImport(a *app) *cobra.Command {
	var name string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "import [--name NAME] [--dry-run] FILE", Short: "Take over trust from a cluster's policies or a containers-policy.json", Args: exactly(1, "a FILE"),
		Long: "Take over a file of ClusterImagePolicies as it is, or translate a containers-policy.json, as\n" +
			"Podman, Skopeo and CRI-O read it. What has no equal here is named and left out, which lets no\n" +
			"image in; --dry-run prints what would be written.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return invalid("trust.import", err.Error(), "name the file by its whole path")
			}
			var im verify.ImportedTrust
			work := func() error {
				im, err = verify.TrustImport(l.Trust(), path, name, dryRun)
				return err
			}
			if dryRun {
				err = work()
			} else {
				err = a.recorded(cmd.Context(), audit.TrustAdd, audit.TrustEvent{Name: name, Path: path}, work)
			}
			for _, left := range im.Left {
				fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(left))
			}
			switch {
			case err != nil:
				return err
			case dryRun:
				_, err = cmd.OutOrStdout().Write(im.YAML)
				return err
			}
			return say(cmd, im.Path)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the file in the trust directory; FILE's unless given")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the policies, and write nothing")
	return cmd
}

func newTrustExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "export [NAME...]", Short: "Print trust policies as a cluster takes them (ClusterImagePolicy)",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			b, err := verify.TrustExport(l.Trust(), args)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
}

func newTrustShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Print all there is about a trust policy, as JSON", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			ps, err := verify.TrustList(l.Trust())
			if err != nil {
				return err
			}
			for _, p := range ps {
				if p.Name == args[0] {
					return indented(cmd.OutOrStdout(), p)
				}
			}
			return fault.New(fault.NotFound, "trust.not-found", fmt.Sprintf("no trust policy is called %q", args[0]), "ward trust list")
		},
	}
}
