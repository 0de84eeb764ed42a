package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
)

func newUpdate(a *app) *cobra.Command {
	var f limitFlags
	var restart string
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Short: "Change the limits of containers, where policy allows it", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, policy := false, cmd.Flags().Changed("restart")
			cmd.Flags().VisitAll(func(fl *pflag.Flag) {
				limits = limits || fl.Changed && fl.Name != "root" && fl.Name != "restart"
			})
			if !limits && !policy {
				return usage("you must provide one or more flags: there is nothing to change")
			}
			again, err := engine.ParseRestart(restart)
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				failed := false
				for _, name := range args {
					c, err := eng.Find(cmd.Context(), name)
					if err == nil && limits {
						c, err = eng.Update(cmd.Context(), audit.Caller(), name, func(r *engine.Resources) error { return f.apply(cmd.Flags(), r) })
					}
					if err == nil && policy {
						err = eng.SetRestart(cmd.Context(), audit.Caller(), c, again)
					}
					if err == nil {
						err = say(cmd, name)
					}
					if err != nil {
						report(cmd.ErrOrStderr(), cmd, err)
						failed = true
					}
				}
				if failed {
					return exitCode(1)
				}
				return nil
			})
		},
	}
	cmd.Flags().Bool("help", false, "print this help") // -h stays free, as for run
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&restart, "restart", "no", "start it again when it ends: `no|on-failure[:N]|always|unless-stopped`")
	return cmd
}
