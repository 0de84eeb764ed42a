package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
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

// confirm asks before something is removed, as Docker does, unless force says
// not to. Anything but y, and the end of the input, is no.
func confirm(cmd *cobra.Command, force bool, warning, what string) error {
	if force {
		return nil
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(line), "y") {
		return invalid("prune.cancelled", what+" has been cancelled", "answer y, or give --force")
	}
	return nil
}

// pruneFilter is what prune commands leave out: labels, and what is younger
// than until.
type pruneFilter struct {
	keyFilter
	until time.Time
}

func parsePruneFilter(specs []string) (pruneFilter, error) {
	f := pruneFilter{}
	var err error
	if f.keyFilter, err = parseKeyFilter(specs, "until", "label", "label!"); err != nil {
		return f, err
	}
	switch u := f.keyFilter["until"]; len(u) {
	case 0:
	case 1:
		f.until, err = parseTime(u[0], time.Time{})
	default:
		err = invalid("filter", "more than one until filter specified", "give one")
	}
	return f, err
}

// takes reports whether what was made then, with these labels, is to go.
func (f pruneFilter) takes(made time.Time, labels map[string]string) bool {
	return (f.until.IsZero() || made.Before(f.until)) && f.labels(labels)
}

// deleted prints what is gone under its heading, as Docker does.
func deleted(cmd *cobra.Command, heading string, gone []string) error {
	if len(gone) == 0 {
		return nil
	}
	return say(cmd, heading+"\n"+strings.Join(gone, "\n")+"\n")
}

func reclaimed(cmd *cobra.Command, n int64) error {
	return say(cmd, "Total reclaimed space: "+units.HumanSize(float64(max(n, 0))))
}

func newContainerGroup(a *app) *cobra.Command {
	return group("container", "Work on containers", newContainerPrune(a), newDiff(a))
}

func newContainerPrune(a *app) *cobra.Command {
	return pruneCommand(a, "Remove all containers that do not run", "This will remove all stopped containers.", "container prune", nil,
		func(cmd *cobra.Command, eng *engine.Engine, f pruneFilter) (int64, error) {
			return pruneContainers(cmd, eng, f)
		})
}

// pruneCommand is a prune command but for its own flags.
func pruneCommand(a *app, short, warning, name string, warn func() string, prune func(*cobra.Command, *engine.Engine, pruneFilter) (int64, error)) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: short, Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := parsePruneFilter(filters)
			if err != nil {
				return err
			}
			if warn != nil {
				warning = warn()
			}
			if err := confirm(cmd, force, warning, name); err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				freed, err := prune(cmd, eng, f)
				if err != nil && freed == 0 {
					return err
				}
				return errors.Join(err, reclaimed(cmd, freed))
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "`key=value`: until, label, label!")
	return cmd
}

// stopped reports whether nobody is responsible for c: it has ended, or was
// never started.
func stopped(c engine.Container) bool {
	return c.Status.Phase == sandbox.PhaseExited || c.Status.Phase == sandbox.PhaseCreated
}

func pruneContainers(cmd *cobra.Command, eng *engine.Engine, f pruneFilter) (int64, error) {
	all, err := eng.List(cmd.Context())
	if err != nil {
		return 0, err
	}
	var freed int64
	var gone []string
	for _, c := range all {
		if !stopped(c) || !f.takes(c.Created, c.Labels) {
			continue
		}
		size, serr := eng.Size(c)
		// Not forced: one that was started meanwhile stays, and somebody else may
		// have removed it.
		rerr := eng.Remove(cmd.Context(), audit.Caller(), c, engine.RemoveOptions{})
		if errors.Is(rerr, fault.NotFound) || rerr != nil && fault.As(rerr).Rule == "container.running" {
			continue
		}
		if rerr != nil || serr != nil {
			err = errors.Join(err, rerr, serr)
			continue
		}
		freed += size
		gone = append(gone, c.ID)
	}
	return freed, errors.Join(err, deleted(cmd, "Deleted Containers:", gone))
}

func newImageGroup(a *app) *cobra.Command {
	var all bool
	prune := pruneCommand(a, "Remove images that are not used", "", "image prune", func() string {
		if all {
			return "This will remove all images without at least one container associated to them."
		}
		return "This will remove all dangling images."
	}, func(cmd *cobra.Command, eng *engine.Engine, f pruneFilter) (int64, error) {
		return a.pruneImages(cmd, eng, all, f)
	})
	prune.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	return group("image", "Work on images", prune)
}

// pruneImages removes images that no container uses: those no tag names, or
// all. Whether one is in use is asked again under the store's lock.
func (a *app) pruneImages(cmd *cobra.Command, eng *engine.Engine, all bool, f pruneFilter) (int64, error) {
	l, err := a.layout()
	if err != nil {
		return 0, err
	}
	store, err := a.store(cmd.Context())
	if err != nil {
		return 0, err
	}
	before, err := fsx.DirSize(l.Images())
	if err != nil {
		return 0, err
	}
	used, err := eng.InUse(cmd.Context())
	if err != nil {
		return 0, err
	}
	list, damaged := store.List(cmd.Context())
	tagged := map[string]bool{}
	for _, img := range list {
		tagged[img.Digest] = tagged[img.Digest] || !strings.Contains(img.Reference, "@")
	}
	var digests, gone []string
	for _, img := range list {
		take := used[img.Digest] == "" && (all || !tagged[img.Digest]) && f.takes(img.Created, img.Config.Labels)
		if take && !slices.Contains(digests, img.Digest) {
			digests = append(digests, img.Digest)
		}
	}
	for _, d := range digests {
		lines, rerr := a.dropImage(cmd, eng, d)
		err = errors.Join(err, rerr)
		gone = append(gone, lines...)
	}
	after, serr := fsx.DirSize(l.Images())
	return before - after, errors.Join(err, serr, damaged, deleted(cmd, "Deleted Images:", gone))
}

func newVolumePrune(a *app) *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove volumes that no container uses", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseKeyFilter(filters, "all", "label", "label!")
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
func pruneVolumes(cmd *cobra.Command, eng *engine.Engine, all bool, keep keyFilter) (int64, error) {
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
	names = names[:0]
	for _, v := range gone {
		freed += sizes[v.Name]
		names = append(names, v.Name)
	}
	return freed, errors.Join(err, bad, deleted(cmd, "Deleted Volumes:", names))
}

func newSystemGroup(a *app) *cobra.Command {
	var all, volumes bool
	prune := pruneCommand(a, "Remove what is not used", "", "system prune", func() string {
		warning := "This will remove:\n  - all stopped containers\n"
		if volumes {
			warning += "  - all anonymous volumes not used by at least one container\n"
		}
		if all {
			return warning + "  - all images without at least one container associated to them\n"
		}
		return warning + "  - all dangling images\n"
	}, func(cmd *cobra.Command, eng *engine.Engine, f pruneFilter) (int64, error) {
		if volumes && !f.until.IsZero() {
			return 0, invalid("filter", `the "until" filter is not supported with "--volumes"`, "leave out one of them")
		}
		// Containers first: what they used is not used any more.
		freed, err := pruneContainers(cmd, eng, f)
		if volumes {
			n, verr := pruneVolumes(cmd, eng, false, f.keyFilter)
			freed, err = freed+n, errors.Join(err, verr)
		}
		n, ierr := a.pruneImages(cmd, eng, all, f)
		return freed + n, errors.Join(err, ierr)
	})
	prune.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	prune.Flags().BoolVar(&volumes, "volumes", false, "also volumes that nobody named")
	return group("system", "Work on all of this ward", prune)
}
