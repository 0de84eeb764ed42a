package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

var psColumns = []column{
	{"CONTAINER ID", "ID"}, {"IMAGE", "Image"}, {"COMMAND", "Command"}, {"CREATED", "RunningFor"},
	{"STATUS", "Status"}, {"PORTS", "Ports"}, {"NAMES", "Names"},
}

type psFlags struct {
	all, quiet, noTrunc, latest, size bool
	last                              int
	format                            string
	filters                           []string
}

func newPs(a *app) *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Short: "List containers", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error { return a.ps(cmd, eng, f) })
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "also those that have ended")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "ids only")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "whole ids and commands")
	fs.BoolVarP(&f.latest, "latest", "l", false, "the newest one")
	fs.BoolVarP(&f.size, "size", "s", false, "and how much each has written")
	fs.IntVarP(&f.last, "last", "n", -1, "the `n` newest")
	fs.StringVar(&f.format, "format", "", "table, json, or a Go template")
	fs.StringArrayVarP(&f.filters, "filter", "f", nil, "`key=value`: "+strings.Join(psFilters, ", "))
	return cmd
}

func (a *app) ps(cmd *cobra.Command, eng *engine.Engine, f psFlags) error {
	keep, err := parseFilters(cmd.Context(), eng, f.filters)
	if err != nil {
		return err
	}
	cs, err := eng.List(cmd.Context())
	if err != nil {
		return err
	}
	slices.Reverse(cs) // newest first
	if f.latest {
		f.last = 1
	}
	f.size = f.size || strings.Contains(f.format, ".Size") && !f.quiet
	var rows []row
	for _, c := range cs {
		if f.last > 0 && len(rows) == f.last {
			break
		}
		if (f.all || f.last > 0 || keep.wantsState || c.Running()) && keep.match(c) {
			r := psRow(eng, c, f.noTrunc)
			if f.size && !f.quiet {
				if r["Size"], err = a.sizes(cmd.Context(), eng, c); err != nil {
					return err
				}
			}
			rows = append(rows, r)
		}
	}
	columns := psColumns
	if f.size {
		columns = append(slices.Clone(psColumns), column{"SIZE", "Size"})
	}
	if f.quiet && f.format == "" {
		f.format = "{{.ID}}"
	}
	return listing(cmd.OutOrStdout(), f.format, columns, rows)
}

// sizes is what a container has written, and that with its image.
func (a *app) sizes(ctx context.Context, eng *engine.Engine, c engine.Container) (string, error) {
	own, all, err := a.sizeOf(ctx, eng, c)
	return fmt.Sprintf("%s (virtual %s)", units.HumanSizeWithPrecision(float64(own), 3), units.HumanSizeWithPrecision(float64(all), 3)), err
}

func (a *app) sizeOf(ctx context.Context, eng *engine.Engine, c engine.Container) (own, all int64, err error) {
	if own, err = eng.Size(c); err != nil {
		return 0, 0, err
	}
	store, err := a.store(ctx)
	if err != nil {
		return 0, 0, err
	}
	img, _, err := store.Inspect(ctx, c.ImageID)
	if errors.Is(err, fault.NotFound) {
		return own, own, nil // removed since
	}
	return own, own + img.Size, err
}

func psRow(eng *engine.Engine, c engine.Container, noTrunc bool) row {
	id, command := c.ID, commandLine(c.Command)
	if !noTrunc {
		id, command = id[:12], shortened(command, 20)
	}
	var names []string
	local := 0
	for _, m := range mountsOf(eng, c) {
		switch name := m.Source; m.Type {
		case sandbox.MountVolume:
			local++
			name = m.Name
			fallthrough
		case sandbox.MountBind:
			if !noTrunc {
				name = shortened(name, 15)
			}
			names = append(names, name)
		}
	}
	return row{
		"ID": id, "Image": c.Image, "Command": strconv.Quote(command), "CreatedAt": createdAt(c.Created),
		"RunningFor": units.HumanDuration(time.Since(c.Created)) + " ago", "State": state(c), "Status": status(c),
		"Ports": "", "Names": c.Name, "Labels": labels(c.Labels), "Networks": string(c.Network), "HealthStatus": healthStatus(c),
		"Size": "0B", "Mounts": strings.Join(names, ","), "LocalVolumes": strconv.Itoa(local), "Platform": "linux/" + runtime.GOARCH,
	}
}

// createdAt is a time as Docker's listings have it.
func createdAt(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700 MST") }

// commandLine is a command as Docker shows it: what has blanks is quoted.
func commandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i > 0 && strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}

func shortened(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// mountsOf are a container's mounts; none if its plan cannot be read.
func mountsOf(eng *engine.Engine, c engine.Container) []sandbox.Mount {
	plan, _, err := eng.PlanToShow(c)
	if err != nil {
		return nil
	}
	return plan.Mounts
}

func healthStatus(c engine.Container) string {
	switch h := c.Kept.Health; {
	case h != nil:
		return h.Status
	case c.Request.Health != nil && c.Running():
		return "starting"
	}
	return "none"
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
