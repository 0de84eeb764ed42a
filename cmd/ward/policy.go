package main

import "github.com/spf13/cobra"

func newPolicy(a *app) *cobra.Command {
	group := &cobra.Command{Use: "policy", Short: "What may run, and why"}
	group.AddCommand(newPolicyCheck(a), newPolicyTest(a), newPolicyInit(a), newPolicyFmt(a), newPolicyReplay(a), newPolicyExplain(a), newPolicyDiff(a), newPolicyBundle(a), newPolicyKey(a))
	return group
}
