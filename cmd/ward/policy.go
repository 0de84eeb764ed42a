package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
)

func newPolicy(a *app) *cobra.Command {
	group := &cobra.Command{Use: "policy", Short: "What may run, and why"}
	group.AddCommand(newPolicyCheck(a), newPolicyTest(a), newPolicyInit(a), newPolicyFmt(a), newPolicyReplay(a), newPolicyExplain(a), newPolicyDiff(a))
	return group
}

func newPolicyCheck(a *app) *cobra.Command {
	var f runFlags
	var output string
	cmd := &cobra.Command{
		Use:   "check [RUN OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Say what ward run would decide: exit 0 allow, 1 deny, 3 unknown",
		Long: "Pass a local image through verification and policy with the options of ward run, and say\n" +
			"what would happen. It asks no registry, starts nothing, records nothing.",
		Args:        atLeast(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd.Flags(), args)
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				ev, dec, err := eng.Check(cmd.Context(), req)
				if err != nil {
					return err
				}
				if output == "json" {
					err = indented(cmd.OutOrStdout(), map[string]any{
						"decision": dec, "evidence": ev, "input": json.RawMessage(dec.Input()),
					})
				} else {
					err = dec.WriteText(cmd.OutOrStdout())
				}
				if err == nil && !dec.Allowed() {
					err = exitCode(1)
				}
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
