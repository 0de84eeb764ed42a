package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
)

func newPolicyBundle(a *app) *cobra.Command {
	group := &cobra.Command{Use: "bundle", Short: "Signed OPA bundles in the policy directory"}
	group.AddCommand(newBundleInstall(a), newBundleList(a), newBundleRemove(a))
	return group
}

func newBundleInstall(a *app) *cobra.Command {
	var name string
	var back bool
	cmd := &cobra.Command{
		Use: "install [OPTIONS] FILE", Short: "Put a signed bundle into the policy directory, if it verifies and is not older than the last", Args: exactly(1, "a FILE"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(args[0]), ".tar.gz")
			}
			archive, err := readArchive(args[0])
			if err != nil {
				return err
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			log, err := a.log(cmd.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			b, err := engine.InstallBundle(cmd.Context(), l, log, name, archive, back)
			if err != nil {
				return err
			}
			return say(cmd, fmt.Sprintf("%s revision %s (%s), signed by %s", b.Name, b.Revision, b.Digest, b.Key))
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the bundle's `name`, if it is not the file's")
	cmd.Flags().BoolVar(&back, "unsafe-rollback", false, "go back to an older revision; the record says so")
	return cmd
}

// readArchive reads a file of bounded size.
func readArchive(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("policy.bundle", err.Error(), "name a bundle that can be read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, policy.MaxBundle+1))
	if err != nil {
		return nil, invalid("policy.bundle", err.Error(), "name a bundle that can be read")
	}
	if len(b) > policy.MaxBundle {
		return nil, invalid("policy.size", fmt.Sprintf("%s is larger than %d bytes", path, policy.MaxBundle), "make it smaller")
	}
	return b, nil
}

func newBundleList(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the bundles in force", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usage("--format %.32q is not there: use text or json", format)
			}
			e, err := a.policies()
			if err != nil {
				return err
			}
			bundles := e.Bundles()
			if format == "json" {
				if bundles == nil {
					bundles = []policy.Bundle{}
				}
				return indented(cmd.OutOrStdout(), bundles)
			}
			for _, b := range bundles {
				if err := say(cmd, fmt.Sprintf("%s  revision %s  %s  signed by %s", b.Name, printable(b.Revision), shortDigest(b.Digest), b.Key)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func newBundleRemove(a *app) *cobra.Command {
	var unsafe bool
	cmd := &cobra.Command{
		Use: "rm --unsafe NAME", Short: "Give a bundle up: what it denies is not denied any more", Args: exactly(1, "a NAME"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !unsafe {
				return usage("ward policy bundle rm needs --unsafe: what the bundle denies would not be denied any more")
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			log, err := a.log(cmd.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			return engine.UnsafeRemoveBundle(cmd.Context(), l, log, args[0])
		},
	}
	cmd.Flags().BoolVar(&unsafe, "unsafe", false, "yes, give it up; the record says so")
	return cmd
}
