package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/sandbox"
)

// withEngine runs fn with an open engine and closes the log after it.
func (a *app) withEngine(ctx context.Context, fn func(*engine.Engine) error) error {
	eng, log, err := a.engine(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(eng), log.Close())
}

// each runs fn for every container named and goes on after a failure, so that
// one unknown name does not leave the others running.
func (a *app) each(cmd *cobra.Command, names []string, fn func(*engine.Engine, engine.Container) error) error {
	return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
		failed := false
		for _, name := range names {
			c, err := eng.Find(cmd.Context(), name)
			if err == nil {
				err = fn(eng, c)
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
}

var psColumns = []column{
	{"CONTAINER ID", "ID"}, {"IMAGE", "Image"}, {"COMMAND", "Command"}, {"CREATED", "RunningFor"},
	{"STATUS", "Status"}, {"PORTS", "Ports"}, {"NAMES", "Names"},
}

func newPs(a *app) *cobra.Command {
	var all, quiet, noTrunc, latest bool
	var last int
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Short: "List containers", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseFilters(filters)
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				cs, err := eng.List(cmd.Context())
				if err != nil {
					return err
				}
				slices.Reverse(cs) // newest first
				if latest {
					last = 1
				}
				var rows []row
				for _, c := range cs {
					if last > 0 && len(rows) == last {
						break
					}
					if (all || last > 0 || keep.wantsState || c.Running()) && keep.match(c) {
						rows = append(rows, psRow(c, noTrunc))
					}
				}
				if quiet && format == "" {
					format = "{{.ID}}"
				}
				return listing(cmd.OutOrStdout(), format, psColumns, rows)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "also those that have ended")
	fs.BoolVarP(&quiet, "quiet", "q", false, "ids only")
	fs.BoolVar(&noTrunc, "no-trunc", false, "whole ids and commands")
	fs.BoolVarP(&latest, "latest", "l", false, "the newest one")
	fs.IntVarP(&last, "last", "n", -1, "the `n` newest")
	fs.StringVar(&format, "format", "", "table, json, or a Go template")
	fs.StringArrayVarP(&filters, "filter", "f", nil, "`key=value`: id, name, label, status, exited, ancestor")
	return cmd
}

func psRow(c engine.Container, noTrunc bool) row {
	id, command := c.ID, strings.Join(c.Command, " ")
	if !noTrunc {
		id = id[:12]
		if r := []rune(command); len(r) > 20 {
			command = string(r[:19]) + "…"
		}
	}
	var labels []string
	for k, v := range c.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return row{
		"ID": id, "Image": c.Image, "Command": strconv.Quote(command), "CreatedAt": c.Created.Format(time.RFC3339),
		"RunningFor": units.HumanDuration(time.Since(c.Created)) + " ago", "State": state(c), "Status": status(c),
		"Ports": "", "Names": c.Name, "Labels": strings.Join(labels, ","), "Networks": string(c.Network),
	}
}

// restarting is Docker's word for a container that its keeper will start again.
const restarting = "restarting"

func state(c engine.Container) string {
	switch {
	case c.Status.Phase == "":
		return string(sandbox.PhaseCreated)
	case c.Status.Phase == sandbox.PhaseExited && !c.Kept.Next.IsZero() && c.Status.Exit != nil:
		return restarting
	case c.Paused():
		return "paused"
	}
	return string(c.Status.Phase)
}

func status(c engine.Container) string {
	switch c.Status.Phase {
	case sandbox.PhaseRunning:
		up := "Up " + units.HumanDuration(time.Since(c.Status.Started))
		if c.Paused() {
			return up + " (Paused)"
		}
		if h := c.Kept.Health; h == nil && c.Request.Health != nil || h != nil && h.Status == "starting" {
			return up + " (health: starting)"
		} else if h != nil {
			return up + " (" + h.Status + ")"
		}
		return up
	case sandbox.PhaseExited:
		if state(c) == restarting {
			return fmt.Sprintf("Restarting (%d) %s ago", c.Status.Exit.Code, units.HumanDuration(time.Since(c.Status.Finished)))
		}
		code := 0
		if c.Status.Exit != nil {
			code = c.Status.Exit.Code
		}
		return fmt.Sprintf("Exited (%d) %s ago", code, units.HumanDuration(time.Since(c.Status.Finished)))
	default:
		return "Created"
	}
}

// filter is a parsed set of --filter: values of a key are alternatives, keys
// must all match, as Docker's.
type filter struct {
	want       map[string][]string
	wantsState bool
}

func parseFilters(specs []string) (filter, error) {
	f := filter{want: map[string][]string{}}
	for _, s := range specs {
		k, v, ok := strings.Cut(s, "=")
		if !ok || !slices.Contains([]string{"id", "name", "label", "status", "exited", "ancestor"}, k) {
			return f, invalid("ps.filter", fmt.Sprintf("--filter %.64q is not there yet", s), "use id, name, label, status, exited or ancestor")
		}
		f.want[k] = append(f.want[k], v)
		f.wantsState = f.wantsState || k == "status" || k == "exited"
	}
	return f, nil
}

func (f filter) match(c engine.Container) bool {
	for key, values := range f.want {
		if !slices.ContainsFunc(values, func(v string) bool { return matches(c, key, v) }) {
			return false
		}
	}
	return true
}

func matches(c engine.Container, key, v string) bool {
	switch key {
	case "id":
		return strings.HasPrefix(c.ID, v)
	case "name":
		return strings.Contains(c.Name, v)
	case "status":
		return state(c) == v
	case "ancestor":
		return c.Image == v || c.Digest == v || c.ImageID == v
	case "exited":
		return c.Status.Exit != nil && strconv.Itoa(c.Status.Exit.Code) == v
	default: // label
		k, want, hasValue := strings.Cut(v, "=")
		got, ok := c.Labels[k]
		return ok && (!hasValue || got == want)
	}
}

func newStop(a *app) *cobra.Command {
	var grace int
	cmd := &cobra.Command{
		Use: "stop [OPTIONS] CONTAINER [CONTAINER...]", Short: "Stop containers: their stop signal, then SIGKILL", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container) error {
				if err := eng.Stop(cmd.Context(), audit.Caller(), c, stopGrace(cmd, c, grace)); err != nil {
					return err
				}
				return say(cmd, c.Name)
			})
		},
	}
	cmd.Flags().IntVarP(&grace, "time", "t", 10, "`seconds` to wait before SIGKILL; -1 for ever")
	cmd.Flags().IntVar(&grace, "timeout", 10, "same as --time")
	return cmd
}

// stopGrace is how long to wait before SIGKILL: as said now, else as said when
// the container was made.
func stopGrace(cmd *cobra.Command, c engine.Container, seconds int) time.Duration {
	if said := cmd.Flags().Changed("time") || cmd.Flags().Changed("timeout"); !said && c.Request.StopTimeout != nil {
		seconds = *c.Request.StopTimeout
	}
	return time.Duration(seconds) * time.Second
}

func newKill(a *app) *cobra.Command {
	var sig string
	cmd := &cobra.Command{
		Use: "kill [OPTIONS] CONTAINER [CONTAINER...]", Short: "Send a signal, SIGKILL unless another is named", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container) error {
				if err := eng.Signal(cmd.Context(), audit.Caller(), c, sig); err != nil {
					return err
				}
				return say(cmd, c.Name)
			})
		},
	}
	cmd.Flags().StringVarP(&sig, "signal", "s", "KILL", "`signal` to send")
	return cmd
}

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Wait until containers have ended, print their exit codes", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container) error {
				exit, err := eng.Wait(cmd.Context(), c)
				if err != nil {
					return err
				}
				return say(cmd, strconv.Itoa(exit.Code))
			})
		},
	}
}

func newRm(a *app) *cobra.Command {
	var force, volumes bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] CONTAINER [CONTAINER...]", Short: "Remove containers; their records stay", Args: atLeast(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(eng *engine.Engine, c engine.Container) error {
				if err := eng.Remove(cmd.Context(), audit.Caller(), c, engine.RemoveOptions{Force: force, Volumes: volumes}); err != nil {
					return err
				}
				return say(cmd, c.Name)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it first if it runs")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "and the volumes that nobody named")
	return cmd
}

// say prints one line of result.
func say(cmd *cobra.Command, line string) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}
