package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

// change opens log and store, lets fn change the store, and records what it
// did, also when a later step of it failed: an event with a digest or a removal
// has happened. The log comes first: what could not be recorded is not begun.
// fn prints no result, because a closed pipe would end this process between
// the change and its record.
func (a *app) change(ctx context.Context, kind audit.Type, fn func(*images.Store) (audit.ImageEvent, error)) error {
	log, err := a.log(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	store, err := a.store(ctx)
	if err != nil {
		return err
	}
	ev, err := fn(store)
	if err != nil && ev.Image.Digest == "" && len(ev.Removed) == 0 {
		return err
	}
	return errors.Join(err, record(ctx, log, audit.Record{Type: kind, Actor: audit.Caller(), Data: ev}))
}

func record(ctx context.Context, log *audit.Log, r audit.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := log.Append(ctx, r); err != nil {
		return fault.Wrap(fault.Unrecorded, "audit.append", err, "see ward audit verify")
	}
	return nil
}

func event(img images.Image) audit.ImageEvent {
	host, _, _ := strings.Cut(img.Reference, "/")
	return audit.ImageEvent{Image: audit.Image{Reference: img.Reference, Digest: img.Digest}, Registry: host}
}

// progressTo is where a command's progress goes: to standard error, unless
// nobody wants it.
func progressTo(cmd *cobra.Command, quiet bool) io.Writer {
	if quiet {
		return nil
	}
	return cmd.ErrOrStderr()
}

func newPull(a *app) *cobra.Command {
	var quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Fetch an image and its signatures from a registry", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			img, err := a.pull(cmd.Context(), engine.PullRequest{Image: args[0], Platform: platform, Progress: progressTo(cmd, quiet)})
			if err != nil {
				return err
			}
			return say(cmd, img.Reference+"@"+img.Digest)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	cmd.Flags().StringVar(&platform, "platform", "", "`os/arch[/variant]`, if not this machine's")
	return cmd
}

// pull fetches an image by the engine, which asks policy and keeps the record.
func (a *app) pull(ctx context.Context, req engine.PullRequest) (img images.Image, err error) {
	req.Actor = audit.Caller()
	err = a.withEngine(ctx, func(eng *engine.Engine) error {
		img, err = eng.Pull(ctx, req)
		return err
	})
	return img, err
}

func newPush(a *app) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Short: "Send an image and its signatures to its registry", Args: exactly(1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var digest string
			err := a.change(cmd.Context(), audit.ImagePush, func(s *images.Store) (_ audit.ImageEvent, err error) {
				digest, err = s.Push(cmd.Context(), args[0], images.PushOptions{Progress: progressTo(cmd, quiet)})
				if err != nil {
					return audit.ImageEvent{}, err
				}
				return audit.ImageEvent{Image: audit.Image{Reference: args[0], Digest: digest}}, nil
			})
			if err != nil {
				return err
			}
			return say(cmd, args[0]+"@"+digest)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME[:TAG]", Short: "Give an image another name", Args: exactly(2, "an IMAGE and a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), audit.ImageTag, func(s *images.Store) (audit.ImageEvent, error) {
				img, err := s.Tag(cmd.Context(), args[0], args[1])
				ev := event(img)
				ev.From = args[0]
				return ev, err
			})
		},
	}
}

func newRmi(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rmi IMAGE [IMAGE...]", Short: "Remove images", Args: atLeast(1, "an IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				for _, ref := range args {
					if err := a.removeImage(cmd, eng, ref); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (a *app) removeImage(cmd *cobra.Command, eng *engine.Engine, ref string) error {
	gone, err := a.dropImage(cmd, eng, ref)
	if err != nil || len(gone) == 0 {
		return err
	}
	return say(cmd, strings.Join(gone, "\n"))
}

// dropImage removes an image that no container uses, on record, and returns
// what is gone.
func (a *app) dropImage(cmd *cobra.Command, eng *engine.Engine, ref string) ([]string, error) {
	var gone []string
	err := a.change(cmd.Context(), audit.ImageRemove, func(s *images.Store) (_ audit.ImageEvent, err error) {
		// Asked under the store's lock, when it is known which image is meant.
		// Who cannot say whether it is used says that it is.
		var unknown error
		gone, err = s.Remove(cmd.Context(), ref, func(digest string) bool {
			used, err := eng.InUse(cmd.Context())
			unknown = err
			return err != nil || used[digest] != ""
		})
		if unknown != nil {
			return audit.ImageEvent{}, unknown
		}
		ev := audit.ImageEvent{Image: audit.Image{Reference: ref}, Removed: gone}
		if len(gone) == 0 {
			return ev, err
		}
		if err != nil {
			// The name is gone, so that is recorded; the space is not.
			fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(err.Error()))
		}
		return ev, nil
	})
	return gone, err
}

func newImport(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE|- NAME[:TAG]", Short: "Make an image of a root file system in a tar archive", Args: exactly(2, "a FILE (- for standard input) and a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var img images.Image
			err := a.change(cmd.Context(), audit.ImageImport, func(s *images.Store) (_ audit.ImageEvent, err error) {
				in := io.ReadCloser(os.Stdin)
				if args[0] != "-" {
					f, err := os.Open(args[0])
					if err != nil {
						return audit.ImageEvent{}, invalid("import.file", err.Error(), "name a readable tar archive")
					}
					in = f
				}
				img, err = s.Import(cmd.Context(), in, args[1], images.ImportOptions{})
				if err = errors.Join(err, in.Close()); err != nil {
					return audit.ImageEvent{}, err
				}
				ev := event(img)
				ev.From = args[0]
				return ev, nil
			})
			if err != nil {
				return err
			}
			return say(cmd, img.Digest)
		},
	}
}

var imageColumns = []column{
	{"REPOSITORY", "Repository"}, {"TAG", "Tag"}, {"IMAGE ID", "ID"}, {"CREATED", "CreatedSince"}, {"SIZE", "Size"},
}

func newImages(a *app) *cobra.Command {
	var quiet, noTrunc, digests bool
	var format string
	cmd := &cobra.Command{
		Use: "images [OPTIONS] [NAME]", Short: "List images", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.store(cmd.Context())
			if err != nil {
				return err
			}
			// Damaged images do not hide the others.
			all, damaged := store.List(cmd.Context())
			var rows []row
			for _, img := range all {
				r := imageRow(img, noTrunc)
				if len(args) == 1 && args[0] != r["Repository"] && args[0] != img.Reference {
					continue
				}
				rows = append(rows, r)
			}
			cols := imageColumns
			if digests {
				cols = append(append(cols[:2:2], column{"DIGEST", "Digest"}), cols[2:]...)
			}
			if quiet && format == "" {
				format = "{{.ID}}"
			}
			return errors.Join(listing(cmd.OutOrStdout(), format, cols, rows), damaged)
		},
	}
	fs := cmd.Flags()
	fs.BoolP("all", "a", false, "accepted for Docker's sake: there are no hidden images")
	fs.BoolVarP(&quiet, "quiet", "q", false, "ids only")
	fs.BoolVar(&noTrunc, "no-trunc", false, "whole ids")
	fs.BoolVar(&digests, "digests", false, "with digests")
	fs.StringVar(&format, "format", "", "table, json, or a Go template")
	return cmd
}

func imageRow(img images.Image, noTrunc bool) row {
	repo, tag := img.Reference, "<none>"
	if i := strings.LastIndexAny(repo, ":@/"); i >= 0 && repo[i] == ':' && !strings.Contains(repo, "@") {
		repo, tag = repo[:i], repo[i+1:]
	} else if name, _, ok := strings.Cut(repo, "@"); ok {
		repo = name
	}
	id := strings.TrimPrefix(img.ID, "sha256:")
	if noTrunc {
		id = img.ID
	} else {
		id = id[:min(12, len(id))]
	}
	since := "N/A"
	if !img.Created.IsZero() {
		since = units.HumanDuration(time.Since(img.Created)) + " ago"
	}
	return row{
		"Repository": repo, "Tag": tag, "ID": id, "Digest": img.Digest, "CreatedSince": since,
		"CreatedAt": createdAt(img.Created), "Size": units.HumanSizeWithPrecision(float64(img.Size), 3),
		"Platform": fmt.Sprint(img.Platform),
	}
}
