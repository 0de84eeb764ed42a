package main

import (
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
)

func newPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "pause CONTAINER [CONTAINER...]", Short: "Stop all processes of containers where they are", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Pause(cmd.Context(), audit.Caller(), c); err != nil {
					return err
				}
				return say(cmd, asked)
			})
		},
	}
}

func newUnpause(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "unpause CONTAINER [CONTAINER...]", Short: "Let paused containers go on", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container, asked string) error {
				if err := eng.Unpause(cmd.Context(), audit.Caller(), c); err != nil {
					return err
				}
				return say(cmd, asked)
			})
		},
	}
}
