package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// otherPolicy names a policy that is not the one in force.
type otherPolicy struct{ dir string }

func (o *otherPolicy) register(fs *pflag.FlagSet) {
	fs.StringVar(&o.dir, "policy-dir", "", "the policy in this `directory`, not the one in force")
}

// config is that policy, or without one the policy in force.
func (o *otherPolicy) config(l engine.Layout) (policy.Config, error) {
	if o.dir == "" {
		return policy.Config{Dir: l.Policy()}, nil
	}
	cfg, err := policyAt(o.dir)
	cfg.Keys = policy.KeysFile(l.Policy())
	return cfg, err
}

// policyAt is the policy of a directory that has to be there: a name mistyped
// must not stand for the shipped policy alone.
func policyAt(path string) (policy.Config, error) {
	if !isDir(path) {
		return policy.Config{}, fault.New(fault.NotFound, "policy.missing", fmt.Sprintf("%.255q is not a directory", path), "name a directory of policy files")
	}
	return policy.Config{Dir: path}, nil
}

// period is which part of the log a command is about.
type period struct{ since, until string }

func (p *period) register(fs *pflag.FlagSet) {
	fs.StringVar(&p.since, "since", "30d", "from this `time` on (RFC 3339, or a duration ago such as 30d, 12h)")
	fs.StringVar(&p.until, "until", "", "up to this `time`")
}

func (p *period) times() (since, until time.Time, err error) {
	if since, err = parseTime(inHours(p.since), time.Time{}); err != nil {
		return since, until, err
	}
	until, err = parseTime(inHours(p.until), time.Unix(1<<40, 0))
	return since, until, err
}

// inHours writes a whole number of days as Go does.
func inHours(s string) string {
	var days int
	if n, err := fmt.Sscanf(s, "%dd", &days); n == 1 && err == nil && s == fmt.Sprintf("%dd", days) && days >= 0 && days < 100_000 {
		return fmt.Sprintf("%dh", 24*days)
	}
	return s
}

func newPolicyReplay(a *app) *cobra.Command {
	var other otherPolicy
	var when period
	var format string
	var all, code bool
	cmd := &cobra.Command{
		Use:   "replay [OPTIONS]",
		Short: "Decide again about what is on record, under this policy or another",
		Long: "Take each decision of the audit log with the input it was made on, ask a policy\n" +
			"again, and list what would now be denied, or allowed. Nothing is started or\n" +
			"recorded. The policy that decided gives every answer again, byte for byte.",
		Args: exactly(0, "no arguments; name the policy with --policy-dir"), Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			since, until, err := when.times()
			if err != nil {
				return err
			}
			cfg, err := other.config(l)
			if err != nil {
				return err
			}
			out, err := newReplayOutput(cmd.OutOrStdout(), format, all)
			if err != nil {
				return err
			}
			r, err := policy.NewReplayer(cfg)
			if err != nil {
				return err
			}
			totals, err := engine.Replay(cmd.Context(), l, since, until, r, out.row)
			if err := errors.Join(logError(cmd.ErrOrStderr(), err), out.end(totals, nil, r)); err != nil {
				return err
			}
			return replayExit(totals, code)
		},
	}
	fs := cmd.Flags()
	other.register(fs)
	when.register(fs)
	fs.StringVar(&format, "format", "text", "text or json")
	fs.BoolVar(&all, "all", false, "list what does not change, too")
	fs.BoolVar(&code, "exit-code", false, "exit with 1 if anything would be decided otherwise")
	return cmd
}

// logError says that the log is damaged where that is what ended a reading.
func logError(w io.Writer, err error) error {
	if errors.Is(err, audit.ErrDamaged) {
		fmt.Fprintln(w, "ward: "+printable(err.Error()))
		return exitCode(fault.LogDamaged)
	}
	if errors.Is(err, audit.ErrNoLog) {
		return fault.Wrap(fault.NotFound, "audit.none", err, "nothing has been decided here yet")
	}
	return err
}

// replayExit is the answer of a replay: a policy that does not give its own
// answers again is no answer at all.
func replayExit(t engine.ReplayTotals, code bool) error {
	if t.Exact != t.SamePolicy {
		return fault.New(fault.Internal, "policy.replay", fmt.Sprintf("%d decisions of this very policy came out otherwise than they are on record", t.SamePolicy-t.Exact),
			"check the log (ward audit verify); if it is whole, this is a defect of ward")
	}
	if t.Changes[engine.Undecided] > 0 {
		return exitCode(3)
	}
	if code && t.Changes[policy.NewlyDenied]+t.Changes[policy.NewlyAllowed]+t.Changes[policy.OtherReasons] > 0 {
		return exitCode(1)
	}
	return nil
}

// replayOutput prints results as they come: a log may hold more than memory.
type replayOutput struct {
	w         io.Writer
	json, all bool
	rows      int
}

func newReplayOutput(w io.Writer, format string, all bool) (*replayOutput, error) {
	if format != "text" && format != "json" {
		return nil, usage("--format %.32q is not there: use text or json", format)
	}
	return &replayOutput{w: w, json: format == "json", all: all}, nil
}

// replayRow is a result in the JSON form.
type replayRow struct {
	Case   string         `json:"case,omitempty"`
	Index  *int64         `json:"index,omitempty"`
	Time   *time.Time     `json:"time,omitempty"`
	Type   audit.Type     `json:"type,omitempty"`
	Point  string         `json:"point,omitempty"`
	Run    string         `json:"run,omitempty"`
	Name   string         `json:"name,omitempty"`
	Image  audit.Image    `json:"image"`
	Input  string         `json:"input,omitempty"`
	Change policy.Change  `json:"change"`
	Why    string         `json:"why,omitempty"`
	Old    *policy.Answer `json:"old,omitempty"`
	New    *policy.Answer `json:"new,omitempty"`
}

func (o *replayOutput) row(r engine.Replayed) error {
	if r.Change == policy.Unchanged && !o.all {
		return nil
	}
	o.rows++
	if !o.json {
		_, err := fmt.Fprintln(o.w, strings.Map(oneLine, printable(replayLine(r))))
		return err
	}
	row := replayRow{Case: r.Case, Type: r.Type, Point: r.Point, Run: r.Run, Name: r.Name, Image: r.Image, Input: r.Input, Change: r.Change, Why: r.Why}
	if r.Case == "" {
		row.Index, row.Time = &r.Index, &r.Time
	}
	if r.Old.InputDigest != "" {
		row.Old = &r.Old
	}
	if r.New.InputDigest != "" {
		row.New = &r.New
	}
	return o.element(`{"rows": [`, row)
}

// element writes one element of a list that is one JSON document in the end.
func (o *replayOutput) element(open string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n  "
	if o.rows == 1 {
		sep = open + "\n  "
	}
	_, err = fmt.Fprintf(o.w, "%s%s", sep, b)
	return err
}

func replayLine(r engine.Replayed) string {
	name := r.Name
	if name == "" && len(r.Run) >= 12 {
		name = r.Run[:12]
	}
	line := fmt.Sprintf("%-14s  case %q", r.Change, r.Case)
	if r.Case == "" {
		line = fmt.Sprintf("%-14s  %6d  %s  %-7s %s %s", r.Change, r.Index, r.Time.UTC().Format("2006-01-02T15:04:05Z"), r.Point, name, r.Image.Reference)
	}
	switch r.Change {
	case policy.NewlyDenied:
		line += "  " + reasonsOf(r.New)
	case policy.NewlyAllowed:
		line += "  was " + reasonsOf(r.Old)
	case policy.OtherReasons:
		line += "  " + reasonsOf(r.New) + " (was " + reasonsOf(r.Old) + ")"
	default:
		line += "  " + r.Why
	}
	return strings.TrimRight(line, " ")
}

// maxCodes is how many codes stand in a line.
const maxCodes = 4

func reasonsOf(a policy.Answer) string {
	codes := a.Codes()
	if len(codes) > maxCodes {
		codes = append(codes[:maxCodes:maxCodes], fmt.Sprintf("and %d more", len(codes)-maxCodes))
	}
	if len(codes) == 0 {
		return "allowed"
	}
	return strings.Join(codes, " ")
}

// end says what all of it comes to. With an old policy it is a comparison.
func (o *replayOutput) end(t engine.ReplayTotals, old, r *policy.Replayer) error {
	level, revision, err := r.Level(policy.PointRun)
	if err != nil {
		return err
	}
	summary := map[string]any{"level": level, "revision": revision, "totals": t}
	under := fmt.Sprintf("policy %s (revision %s)", level, shortDigest(revision))
	if old != nil {
		was, before, err := old.Level(policy.PointRun)
		if err != nil {
			return err
		}
		summary["old_level"], summary["old_revision"] = was, before
		under = fmt.Sprintf("policy %s (revision %s), then %s", was, shortDigest(before), under)
	}
	if o.json {
		open := ""
		if o.rows == 0 {
			open = `{"rows": [`
		}
		b, err := json.MarshalIndent(summary, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(o.w, "%s\n],\n\"summary\": %s}\n", open, b)
		}
		return err
	}
	c := t.Changes
	if o.rows > 0 {
		fmt.Fprintln(o.w)
	}
	_, err = fmt.Fprintf(o.w, "%d decisions under %s\n  %d newly denied, %d newly allowed, %d for other reasons, %d unchanged, %d undecided, %d not replayable\n",
		t.Decisions, under, c[policy.NewlyDenied], c[policy.NewlyAllowed], c[policy.OtherReasons], c[policy.Unchanged], c[engine.Undecided], c[engine.NotReplayable])
	if err == nil && t.SamePolicy > 0 {
		_, err = fmt.Fprintf(o.w, "  %d of the %d that this very policy made came out byte for byte the same\n", t.Exact, t.SamePolicy)
	}
	return err
}

// shortDigest is enough of a digest to compare by eye.
func shortDigest(d string) string {
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(12, len(d))]
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
