package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/internal/volume"
)

// group makes a command that only has others below it.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use + " COMMAND", Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%q is not a command of %s", args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}}
	cmd.AddCommand(sub...)
	return cmd
}

func newVolume(a *app) *cobra.Command {
	return group("volume", "Keep data longer than its container",
		newVolumeCreate(a), newVolumeList(a), newVolumeInspect(a), newVolumeRemove(a), newVolumePrune(a))
}

func newVolumeCreate(a *app) *cobra.Command {
	var driver, name string
	var labels, opts []string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if name != "" {
					return usage("conflicting options: cannot specify a volume name through both --name and as a positional arg")
				}
				name = args[0]
			}
			if err := volume.CheckDriver(driver); err != nil {
				return err
			}
			if len(opts) > 0 {
				return invalid("volume.opt", fmt.Sprintf("--opt %.64q: the driver local has no options", opts[0]), "bind a directory instead, where policy grants it")
			}
			v := volume.Volume{Name: name, Driver: driver, Labels: map[string]string{}}
			for _, l := range labels {
				k, val, _ := strings.Cut(l, "=")
				if k == "" {
					return invalid("volume.label", fmt.Sprintf("%.64q is not KEY=VALUE", l), "")
				}
				v.Labels[k] = val
			}
			if name == "" {
				v.Name, v.Labels[volume.AnonymousLabel] = volume.NewName(), ""
			}
			err := a.withEngine(cmd.Context(), func(eng *engine.Engine) (err error) {
				v, err = eng.CreateVolume(cmd.Context(), audit.Caller(), v)
				return err
			})
			if err != nil {
				return err
			}
			return say(cmd, v.Name)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", volume.Local, "local: there is no other")
	fs.StringArrayVar(&labels, "label", nil, "label the volume `KEY=VALUE`")
	fs.StringArrayVarP(&opts, "opt", "o", nil, "refused: the driver local has none")
	fs.StringVar(&name, "name", "", "name the volume")
	_ = fs.MarkHidden("name") // Docker's old spelling
	return cmd
}

var volumeColumns = []column{{"DRIVER", "Driver"}, {"VOLUME NAME", "Name"}}

func newVolumeList(a *app) *cobra.Command {
	var quiet bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseVolumeFilters(filters, "dangling", "driver", "label", "name")
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				users, err := eng.VolumeUsers()
				if err != nil {
					return err
				}
				store, err := eng.Volumes()
				if err != nil {
					return err
				}
				// One that cannot be read does not hide the others.
				all, bad := store.List()
				var rows []row
				for _, v := range all {
					if keep.match(v, len(users[v.Name])) {
						rows = append(rows, volumeRow(v, len(users[v.Name])))
					}
				}
				if quiet && format == "" {
					format = "{{.Name}}"
				}
				return errors.Join(listing(cmd.OutOrStdout(), format, volumeColumns, rows), bad)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "names only")
	fs.StringVar(&format, "format", "", "table, json, or a Go template")
	fs.StringArrayVarP(&filters, "filter", "f", nil, "`key=value`: dangling, driver, label, name")
	return cmd
}

func volumeRow(v volume.Volume, links int) row {
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		labels = append(labels, k+"="+v.Labels[k])
	}
	return row{"Name": v.Name, "Driver": v.Driver, "Scope": volume.Local, "Mountpoint": v.Mountpoint, "Labels": strings.Join(labels, ","),
		"Links": fmt.Sprint(links), "Size": "N/A", "Status": "N/A", "Availability": "N/A", "Group": "N/A"}
}

// volumeFilter are parsed filters: values of a key are alternatives, but all
// labels must be there, as with Docker.
type volumeFilter map[string][]string

func parseVolumeFilters(specs []string, known ...string) (volumeFilter, error) {
	f := volumeFilter{}
	for _, s := range specs {
		k, v, ok := strings.Cut(s, "=")
		if strings.HasSuffix(k, "!") && slices.Contains(known, k) {
			ok = true
		}
		if !ok || !slices.Contains(known, k) {
			return f, invalid("volume.filter", fmt.Sprintf("invalid filter %.64q", s), "use "+strings.Join(known, ", "))
		}
		if k == "dangling" || k == "all" {
			switch strings.ToLower(v) {
			case "1", "true":
				v = "true"
			case "0", "false":
				v = "false"
			default:
				return f, invalid("volume.filter", fmt.Sprintf("invalid filter %.64q: not true or false", s), "")
			}
		}
		f[k] = append(f[k], v)
	}
	return f, nil
}

func (f volumeFilter) match(v volume.Volume, users int) bool {
	any := func(key string, is func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], is)
	}
	return any("dangling", func(s string) bool { return (s == "true") == (users == 0) }) &&
		any("driver", func(s string) bool { return s == v.Driver }) &&
		any("name", func(s string) bool { return strings.Contains(v.Name, s) }) &&
		f.labels(v.Labels)
}

// labels reports whether all labels asked for are there, and none that must not.
func (f volumeFilter) labels(have map[string]string) bool {
	has := func(s string) bool {
		k, want, valued := strings.Cut(s, "=")
		got, ok := have[k]
		return ok && (!valued || got == want)
	}
	for _, s := range f["label"] {
		if !has(s) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], has)
}

func newVolumeInspect(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Print everything about volumes, as JSON", Args: atLeast(1, "a VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found := []any{}
			var missing error
			err := a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				store, err := eng.Volumes()
				if err != nil {
					return err
				}
				for _, name := range args {
					v, err := store.Find(name)
					if errors.Is(err, fault.NotFound) {
						missing = errors.Join(missing, err)
						continue
					}
					if err != nil {
						return err
					}
					found = append(found, volumeDetails(v))
				}
				return nil
			})
			if err != nil {
				return err
			}
			if err := printInspected(cmd, format, found); err != nil {
				return err
			}
			return missing
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template for each volume")
	return cmd
}

func volumeDetails(v volume.Volume) any {
	labels := any(v.Labels)
	if len(v.Labels) == 0 {
		labels = nil
	}
	return map[string]any{"CreatedAt": v.Created.Format(time.RFC3339), "Driver": v.Driver, "Labels": labels,
		"Mountpoint": v.Mountpoint, "Name": v.Name, "Options": nil, "Scope": volume.Local}
}

func newVolumeRemove(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove volumes that no container uses", Args: atLeast(1, "a VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				failed := false
				for _, name := range args {
					// One after the other: the rest goes also when one is in use.
					_, err := eng.RemoveVolumes(cmd.Context(), audit.Caller(), []string{name}, false)
					if force && errors.Is(err, fault.NotFound) {
						err = nil
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
	cmd.Flags().BoolVarP(&force, "force", "f", false, "no error about volumes that are not there")
	return cmd
}

func newVolumePrune(a *app) *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove volumes that no container uses", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseVolumeFilters(filters, "all", "label", "label!")
			if err != nil {
				return err
			}
			all = all || slices.Contains(keep["all"], "true")
			what := "anonymous local volumes"
			if all {
				what = "all local volumes"
			}
			if err := confirm(cmd, force, "This will remove "+what+" not used by at least one container.", "volume prune"); err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				freed, err := pruneVolumes(cmd, eng, all, keep)
				return errors.Join(err, reclaimed(cmd, freed))
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "also volumes that have a name")
	fs.BoolVarP(&force, "force", "f", false, "do not ask")
	fs.StringArrayVar(&filters, "filter", nil, "`key=value`: label, label!")
	return cmd
}

// pruneVolumes removes what nobody uses and says so. What is in use is asked
// again under the volumes' lock, so a run that begins now keeps its volumes.
func pruneVolumes(cmd *cobra.Command, eng *engine.Engine, all bool, keep volumeFilter) (int64, error) {
	store, err := eng.Volumes()
	if err != nil {
		return 0, err
	}
	vs, bad := store.List()
	users, err := eng.VolumeUsers()
	if err != nil {
		return 0, err
	}
	sizes := map[string]int64{}
	var names []string
	for _, v := range vs {
		if (all || v.Anonymous()) && keep.labels(v.Labels) && len(users[v.Name]) == 0 {
			names = append(names, v.Name)
			if sizes[v.Name], err = fsx.DirSize(v.Mountpoint); err != nil {
				return 0, err
			}
		}
	}
	if len(names) == 0 {
		return 0, bad
	}
	gone, err := eng.RemoveVolumes(cmd.Context(), audit.Caller(), names, true)
	var freed int64
	for i, v := range gone {
		if i == 0 {
			err = errors.Join(err, say(cmd, "Deleted Volumes:"))
		}
		freed += sizes[v.Name]
		err = errors.Join(err, say(cmd, v.Name))
	}
	if len(gone) > 0 {
		err = errors.Join(err, say(cmd, ""))
	}
	return freed, errors.Join(err, bad)
}

func reclaimed(cmd *cobra.Command, n int64) error {
	return say(cmd, "Total reclaimed space: "+units.HumanSize(float64(n)))
}
