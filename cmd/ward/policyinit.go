package main

import (
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/policy"
)

func newPolicyInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "init [DIR]", Short: "Write a commented policy directory with tests to begin with; nothing is overwritten",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("policy init takes one directory")
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			dir := l.Policy()
			if len(args) == 1 {
				dir = args[0]
			}
			made, err := policy.Init(dir)
			for _, f := range made {
				if err := say(cmd, f); err != nil {
					return err
				}
			}
			return err
		},
	}
}
