package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
)

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "diff CONTAINER", Short: "List what a container has added, changed and deleted in its root", Args: exactly(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				c, err := eng.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				changes, err := eng.Diff(c)
				if err != nil {
					return err
				}
				for _, ch := range changes {
					// The names are the container's: they must not drive a terminal.
					if err := say(cmd, fmt.Sprintf("%c %s", ch.Kind, printable(ch.Path))); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
