package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
)

func newAudit(a *app) *cobra.Command {
	group := &cobra.Command{Use: "audit", Short: "The audit log: read it, check it, prove it"}
	group.AddCommand(newAuditLog(a), newAuditShow(a), newAuditVerify(a), newAuditProve(a), newAuditKey(a), newAuditInit(a), newAuditExport(a),
		newAuditCheckpoint(a), newAuditConsistency(a), newAuditPublish(a), newAuditWitness(a))
	return group
}

// selection says which records a reader wants.
type selection struct{ run, kind, since, until, image string }

func (s *selection) filter() (func(audit.Entry) bool, error) {
	since, err := parseTime(s.since, time.Time{})
	if err != nil {
		return nil, err
	}
	until, err := parseTime(s.until, time.Unix(1<<40, 0))
	if err != nil {
		return nil, err
	}
	return func(e audit.Entry) bool {
		return (s.run == "" || e.Run != "" && strings.HasPrefix(e.Run, s.run)) &&
			(s.kind == "" || string(e.Type) == s.kind) &&
			!e.Time.Before(since) && !e.Time.After(until) &&
			(s.image == "" || strings.Contains(imageOf(e), s.image))
	}, nil
}

// runID turns a container's name into its run's id by the log itself, so that
// it also works for containers that are gone. The newest of a name wins.
func runID(dir, ref string) (string, error) {
	found := ""
	err := audit.Read(dir, 0, func(e audit.Entry) error {
		if ref != "" && e.Run != "" && (strings.HasPrefix(e.Run, ref) || e.Type == audit.RunIntent && nameOf(e) == ref) {
			found = e.Run
		}
		return nil
	})
	if err == nil && found == "" {
		err = fault.New(fault.NotFound, "audit.run", fmt.Sprintf("the log has no run %q", ref), "list runs: ward audit log --type run.intent")
	}
	return found, err
}

func nameOf(e audit.Entry) string {
	var d struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return ""
	}
	return d.Name
}

func newAuditLog(a *app) *cobra.Command {
	var s selection
	var format string
	cmd := &cobra.Command{
		Use: "log [OPTIONS]", Short: "Print records, oldest first", Args: exactly(0, "no arguments; name a run with --run"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			if s.run != "" {
				if s.run, err = runID(l.Audit(), s.run); err != nil {
					return err
				}
			}
			keep, err := s.filter()
			if err != nil {
				return err
			}
			if format != "" && format != "table" && format != "json" {
				return usage("--format %.32q is not there yet: use table or json", format)
			}
			return audit.Read(l.Audit(), 0, func(e audit.Entry) error {
				if !keep(e) {
					return nil
				}
				if format == "json" {
					// The exact bytes: what was signed is what is printed.
					_, err := cmd.OutOrStdout().Write(append(e.Leaf, '\n'))
					return err
				}
				return say(cmd, recordLine(e))
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&s.run, "run", "", "only this run: id, prefix of one, or container `name`")
	fs.StringVar(&s.kind, "type", "", "only this `type`, such as run.denied")
	fs.StringVar(&s.image, "image", "", "only images whose name or digest contains this `text`")
	fs.StringVar(&s.since, "since", "", "from this `time` on (RFC 3339, or a duration ago)")
	fs.StringVar(&s.until, "until", "", "up to this `time`")
	fs.StringVar(&format, "format", "table", "table or json")
	return cmd
}

// recordLine is a record on one line: index, time, type, run, who, what.
func recordLine(e audit.Entry) string {
	run := "-"
	if len(e.Run) >= 12 {
		run = e.Run[:12]
	}
	line := fmt.Sprintf("%6d  %s  %-13s %-12s  uid=%d  %s", e.Index, e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), e.Type, run, e.Actor.UID, summary(e))
	return strings.Map(oneLine, printable(line))
}

func imageOf(e audit.Entry) string {
	var d struct {
		Image     audit.Image `json:"image"`
		Reference string      `json:"reference"`
		Digest    string      `json:"digest"`
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return ""
	}
	return strings.TrimSpace(d.Image.Reference + d.Reference + " " + d.Image.Digest + d.Digest)
}

// summary is what a person wants of a record first.
func summary(e audit.Entry) string {
	var d struct {
		audit.Exit
		Rule, Cause, Stage, Name, Glob, Phase string
		Kills, Chunks, Bytes, Dropped         int64
		PID                                   int
		Syscalls                              []audit.DeniedSyscall
	}
	if err := json.Unmarshal(e.Data, &d); err != nil && len(e.Data) > 0 {
		return string(e.Data)
	}
	switch e.Type {
	case audit.RunIntent:
		return d.Name + " " + imageOf(e) + " plan " + e.Plan
	case audit.RunDenied:
		return fmt.Sprintf("at %s by %s: %s", d.Stage, d.Rule, d.Cause)
	case audit.RunStart:
		return fmt.Sprintf("pid %d", d.PID)
	case audit.RunExit:
		s := fmt.Sprintf("code %d after %d ms, cpu %.1f ms, peak memory %d KiB", d.Code, d.DurationMS, float64(d.Usage.CPUNanos)/1e6, d.Usage.MemoryPeakBytes>>10)
		if d.OOM {
			s += ", out of memory"
		}
		return s
	case audit.RunOOM:
		return fmt.Sprintf("%d killed for want of memory", d.Kills)
	case audit.RunDeniedSyscalls:
		var all []string
		for _, s := range d.Syscalls {
			all = append(all, fmt.Sprintf("%s %d", s.Name, s.Count))
		}
		return "refused: " + strings.Join(all, ", ")
	case audit.RunAnchor, audit.RunSeal:
		if d.Dropped > 0 {
			return fmt.Sprintf("output: %d bytes kept, %d more dropped at the limit", d.Bytes, d.Dropped)
		}
		return fmt.Sprintf("output: %d bytes", d.Bytes)
	case audit.RunLost:
		return "nobody saw it end; last known: " + d.Phase
	case audit.WitnessConflict:
		return d.Cause
	case audit.TrustAdd, audit.TrustRemove, audit.KeyGenerate:
		return strings.TrimSpace(d.Name + " " + d.Glob)
	default:
		if s := imageOf(e); s != "" {
			return s
		}
		return string(e.Data)
	}
}

func newAuditShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show INDEX|RUN", Short: "Print one record, or all of one run, in full", Args: exactly(1, "an INDEX, a run id or a container name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			index, nerr := strconv.ParseInt(args[0], 10, 64)
			run := ""
			if nerr != nil || len(args[0]) >= 12 {
				if run, err = runID(l.Audit(), args[0]); err != nil {
					return err
				}
			}
			found := false
			err = audit.Read(l.Audit(), 0, func(e audit.Entry) error {
				if run == "" && e.Index != index || run != "" && e.Run != run {
					return nil
				}
				found = true
				return indented(cmd.OutOrStdout(), map[string]any{"index": e.Index, "record": json.RawMessage(e.Leaf)})
			})
			if err == nil && !found {
				err = fault.New(fault.NotFound, "audit.record", "the log has no record "+args[0], "see ward audit log")
			}
			return err
		},
	}
}

func newAuditProve(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "prove INDEX|RUN", Short: "Print a receipt: proof that a record, or a run's intent, is in the log", Args: exactly(1, "an INDEX, a run id or a container name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			index, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || len(args[0]) >= 12 {
				if index, err = intentOf(l.Audit(), args[0]); err != nil {
					return err
				}
			}
			r, err := audit.Prove(l.Audit(), index)
			if err != nil {
				return invalid("audit.prove", err.Error(), "see ward audit log for the records, ward audit verify for the log")
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(r.Bytes())
				return err
			}
			return os.WriteFile(out, r.Bytes(), 0o644)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write it to a `file`")
	return cmd
}

// intentOf is the index of the record that let a run in.
func intentOf(dir, ref string) (int64, error) {
	run, err := runID(dir, ref)
	if err != nil {
		return 0, err
	}
	index := int64(-1)
	err = audit.Read(dir, 0, func(e audit.Entry) error {
		if e.Run == run && (e.Type == audit.RunIntent || index < 0) {
			index = e.Index
		}
		return nil
	})
	return index, err
}

func newAuditKey(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the log's public key, as others need it to check it", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, k, err := a.ownKey()
			if err != nil {
				return err
			}
			return say(cmd, k)
		},
	}
}

func newAuditInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Begin the log of a ward that has state but no log", Args: exactly(0, "no arguments"),
		Long: "The first command of a new ward begins its log by itself. This is for a ward whose log\n" +
			"was lost: what happened before is then on record nowhere, so nobody but you can decide it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			if err := a.createLog(cmd.Context(), l, true); err != nil {
				return unrecordable(l, err)
			}
			return say(cmd, "began "+l.Audit())
		},
	}
}
