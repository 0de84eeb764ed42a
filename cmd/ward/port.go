package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

func newPort(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List the published ports of a container", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				c, err := eng.Find(cmd.Context(), args[0])
				if err != nil || len(args) == 1 {
					return err // no container has published ports yet
				}
				if !portRange.MatchString(args[1]) {
					return invalid("port", fmt.Sprintf("%.32q is not a port", args[1]), "write it as 80, 80/tcp")
				}
				return fault.New(fault.NotFound, "port.unpublished", fmt.Sprintf("no public port '%s' published for %s", args[1], args[0]),
					"list those that are: ward port "+c.Name)
			})
		},
	}
}
