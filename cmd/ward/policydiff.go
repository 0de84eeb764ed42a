package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
)

func newPolicyDiff(a *app) *cobra.Command {
	var when period
	var format string
	var all, code bool
	cmd := &cobra.Command{
		Use:   "diff [OPTIONS] [OLD] NEW",
		Short: "Say what two policies decide differently",
		Long: "Decide under two policies about everything on record and about built-in cases, one\n" +
			"thing asked for at a time, and list where they differ. OLD is the policy in force\n" +
			"unless given. Nothing is started or recorded.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("policy diff needs one or two policy directories")
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			since, until, err := when.times()
			if err != nil {
				return err
			}
			out, err := newReplayOutput(cmd.OutOrStdout(), format, all)
			if err != nil {
				return err
			}
			cfg := policy.Config{Dir: l.Policy()}
			keys := policy.KeysFile(l.Policy())
			if len(args) == 2 {
				if cfg, err = policyAt(args[0]); err != nil {
					return err
				}
				cfg.Keys = keys
			}
			old, err := policy.NewReplayer(cfg)
			if err != nil {
				return err
			}
			if cfg, err = policyAt(args[len(args)-1]); err != nil {
				return err
			}
			cfg.Keys = keys
			now, err := policy.NewReplayer(cfg)
			if err != nil {
				return err
			}
			totals, err := engine.Diff(cmd.Context(), l, since, until, old, now, out.row)
			if err := errors.Join(logError(cmd.ErrOrStderr(), err), out.end(totals, old, now)); err != nil {
				return err
			}
			return replayExit(totals, code)
		},
	}
	fs := cmd.Flags()
	when.register(fs)
	fs.StringVar(&format, "format", "text", "text or json")
	fs.BoolVar(&all, "all", false, "list what is decided alike, too")
	fs.BoolVar(&code, "exit-code", false, "exit with 1 if anything is decided differently")
	return cmd
}
