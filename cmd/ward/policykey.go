package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
)

func newPolicyKey(a *app) *cobra.Command {
	group := &cobra.Command{Use: "key", Short: "Whose signatures on policy bundles are believed"}
	group.AddCommand(newPolicyKeyAdd(a), newPolicyKeyList(a), newPolicyKeyRemove(a))
	return group
}

func newPolicyKeyAdd(a *app) *cobra.Command {
	k := policy.BundleKey{}
	var file string
	cmd := &cobra.Command{
		Use: "add --key FILE --algorithm ALG --bundle NAME [OPTIONS] NAME", Short: "Believe the bundles that a key signs", Args: exactly(1, "a NAME"),
		Long: "NAME is the key's id as opa build --verification-key-id writes it into signatures; it is\n" +
			"\"default\" where nothing is said.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" || k.Algorithm == "" || len(k.Bundles) == 0 {
				return usage("ward policy key add needs --key, --algorithm and --bundle")
			}
			pem, err := readKey(file)
			if err != nil {
				return err
			}
			k.Name, k.PEM = args[0], string(pem)
			if err := k.Check(); err != nil {
				return fault.Wrap(fault.Invalid, "policy.key", err, "name a public key and the algorithm it signs with")
			}
			return a.changeKeys(cmd, audit.PolicyKeyAdd, k, func(keys []policy.BundleKey) ([]policy.BundleKey, error) {
				if slices.ContainsFunc(keys, func(o policy.BundleKey) bool { return o.Name == k.Name }) {
					return nil, invalid("policy.key", fmt.Sprintf("there is a key %s already", k.Name), "remove it first: ward policy key rm "+k.Name)
				}
				return append(keys, k), nil
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&file, "key", "", "public key `file`, PEM")
	fs.StringVar(&k.Algorithm, "algorithm", "", "ES256, RS256, PS256, the same with 384 or 512, or EdDSA")
	fs.StringArrayVar(&k.Bundles, "bundle", nil, "`name` of a bundle it may sign; '*' is any")
	fs.StringVar(&k.Scope, "scope", "", "the `scope` that signatures have to be for")
	return cmd
}

func newPolicyKeyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the keys, as JSON", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			keys, err := policy.ReadBundleKeys(policy.KeysFile(l.Policy()))
			if err != nil {
				return err
			}
			if keys == nil {
				keys = []policy.BundleKey{}
			}
			return indented(cmd.OutOrStdout(), keys)
		},
	}
}

func newPolicyKeyRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Believe a key no more; a bundle signed by it then stops everything", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKeys(cmd, audit.PolicyKeyRemove, policy.BundleKey{Name: args[0]}, func(keys []policy.BundleKey) ([]policy.BundleKey, error) {
				i := slices.IndexFunc(keys, func(k policy.BundleKey) bool { return k.Name == args[0] })
				if i < 0 {
					return nil, fault.New(fault.NotFound, "policy.key", fmt.Sprintf("there is no key %.80q", args[0]), "ward policy key list names them")
				}
				return slices.Delete(keys, i, i+1), nil
			})
		},
	}
}

// changeKeys puts a change of the trusted keys on record, then makes it.
func (a *app) changeKeys(cmd *cobra.Command, change string, k policy.BundleKey, to func([]policy.BundleKey) ([]policy.BundleKey, error)) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	file := policy.KeysFile(l.Policy())
	keys, err := policy.ReadBundleKeys(file)
	if err != nil {
		return err
	}
	if keys, err = to(keys); err != nil {
		return err
	}
	b, err := json.MarshalIndent(map[string]any{"keys": keys}, "", "  ")
	if err != nil {
		return err
	}
	said, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return a.recorded(cmd.Context(), audit.PolicyChange, audit.PolicyEvent{Change: change, Key: said}, func() error {
		if err := ensureDir(l.Etc); err != nil {
			return err
		}
		return fsx.WriteFile(file, append(b, '\n'), 0o644)
	})
}

func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return invalid("root.create", err.Error(), "give --root a directory you may write in")
	}
	return nil
}
