package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
)

func newUpdate(a *app) *cobra.Command {
	var f limitFlags
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Short: "Change the limits of containers, where policy allows it", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := false
			cmd.Flags().VisitAll(func(fl *pflag.Flag) { changed = changed || fl.Changed && fl.Name != "root" })
			if !changed {
				return usage("you must provide one or more flags: there is nothing to change")
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				failed := false
				for _, name := range args {
					c, err := eng.Update(cmd.Context(), audit.Caller(), name, func(r *engine.Resources) error { return f.apply(cmd.Flags(), r) })
					if err == nil {
						err = say(cmd, c.Name)
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
	return cmd
}
