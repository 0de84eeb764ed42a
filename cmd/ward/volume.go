package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/volume"
)

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
			keep, err := parseKeyFilter(filters, "dangling", "driver", "label", "name")
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

func (a *app) inspectVolume(cmd *cobra.Command, name string) (out any, err error) {
	err = a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
		store, err := eng.Volumes()
		if err != nil {
			return err
		}
		v, err := store.Find(name)
		out = volumeDetails(v)
		return err
	})
	return out, err
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
