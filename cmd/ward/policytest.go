package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/policy"
)

func newPolicyTest(a *app) *cobra.Command {
	var opt policy.TestOptions
	cmd := &cobra.Command{
		Use: "test [OPTIONS] [DIR...]", Short: "Run the Rego tests of the shipped policies and of yours: exit 0 pass, 1 fail, 2 no policy",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.policies()
			if err != nil {
				return err
			}
			opt.Dirs = args
			if err := p.Test(cmd.Context(), cmd.OutOrStdout(), opt); err != nil {
				return fmt.Errorf("policy test: %w", err)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&opt.Format, "format", "", "`pretty|json|junit`")
	fs.StringVarP(&opt.Run, "run", "r", "", "only tests whose name matches this regular `expression`")
	fs.BoolVarP(&opt.Verbose, "verbose", "v", false, "name each test, and show how a failed one came about")
	fs.BoolVarP(&opt.Coverage, "coverage", "c", false, "say which lines the tests evaluate, as JSON")
	fs.Float64Var(&opt.Threshold, "threshold", 0, "with --coverage: fail below this `percentage`")
	return cmd
}
