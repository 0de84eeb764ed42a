package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
)

func newPolicyExplain(a *app) *cobra.Command {
	var other otherPolicy
	var format string
	cmd := &cobra.Command{
		Use:   "explain [OPTIONS] RUN|CONTAINER|IMAGE|INDEX",
		Short: "Say why something was denied or allowed, and the least change that would pass",
		Long: "Find the newest decision about a run, a container, an image or a record of the audit log; name\n" +
			"the rules, the values they saw and what they expected; and find, by deciding again\n" +
			"and again, the least change of the request that is allowed. It starts nothing.",
		Args: exactly(1, "a run's id, a container's name or id, an image's full name, or the index of a record"), Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usage("--format %.32q is not there: use text or json", format)
			}
			l, err := a.layout()
			if err != nil {
				return err
			}
			cfg, err := other.config(l)
			if err != nil {
				return err
			}
			rec, others, err := engine.FindDecision(l, args[0])
			if err != nil {
				return logError(cmd.ErrOrStderr(), err)
			}
			e := explained{Recorded: rec, others: others}
			if rec.Input != "" {
				if err := e.explain(cmd, cfg); err != nil {
					return err
				}
			}
			if format == "json" {
				return indented(cmd.OutOrStdout(), e.document())
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), printable(e.text()))
			return err
		},
	}
	other.register(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// explained is a decision with what was found out about it.
type explained struct {
	engine.Recorded
	others int
	was    policy.Answer
	// now is nil, and missing says why, where it cannot be decided again.
	now     *policy.Explanation
	missing string
}

func (e *explained) explain(cmd *cobra.Command, cfg policy.Config) error {
	var err error
	if e.was, err = e.Answer(); err != nil {
		e.missing = err.Error()
		return nil
	}
	in, err := e.InputBytes()
	if errors.Is(err, engine.ErrNotKept) {
		e.missing = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	x, err := policy.Explain(cmd.Context(), cfg, in)
	if err != nil {
		return err
	}
	e.now = &x
	return nil
}

func (e *explained) document() map[string]any {
	doc := map[string]any{
		"index": e.Index, "time": e.Time, "type": e.Type, "point": e.Point, "run": e.Run, "container": e.Container, "name": e.Name,
		"image": e.Image, "args": e.Args, "actor": e.Actor, "input": e.Input, "others": e.others,
	}
	if e.Stage != "" {
		doc["refusal"] = map[string]any{"stage": e.Stage, "rule": e.Rule, "cause": e.Cause, "remedy": e.Remedy}
	}
	if e.Input != "" && e.was.InputDigest != "" {
		doc["decision"] = e.was
	}
	if e.now != nil {
		doc["explanation"] = e.now
	}
	if e.missing != "" {
		doc["missing"] = e.missing
	}
	return doc
}

// Bounds on the text: it is for one screen.
const (
	explainedReasons = 4
	explainedLine    = 200
)

func (e *explained) text() string {
	var b strings.Builder
	line := func(format string, args ...any) {
		s := strings.Map(oneLine, fmt.Sprintf(format, args...))
		if len(s) > explainedLine {
			s = strings.ToValidUTF8(s[:explainedLine], "") + "…"
		}
		b.WriteString(strings.TrimRight(s, " ") + "\n")
	}
	verdict := "allowed"
	if e.Stage != "" {
		verdict = "refused at " + e.Stage
	}
	if e.Input != "" && e.was.InputDigest != "" && !e.was.Allow {
		verdict = "denied"
	}
	line("%s: %s %s of %s, record %d, %s, by uid %d", verdict, e.Point, cmp.Or(e.Name, short12(e.Run)), cmp.Or(e.Image.Reference, "(no image)"), e.Index, e.Time.UTC().Format("2006-01-02T15:04:05Z"), e.Actor.UID)
	if e.others > 0 {
		line("  the newest of %d decisions about it; others by the index of their record (ward audit log)", e.others+1)
	}
	switch {
	case e.Input == "":
		line("  %s", e.Rule)
		line("    %s", e.Cause)
		line("    fix: %s", e.Remedy)
		line("  policy was not asked: the request did not get that far")
		return b.String()
	case e.missing != "":
		line("  it cannot be decided again: %s", e.missing)
	}
	line("  by policy %s (revision %s)", e.was.Level, shortDigest(e.was.Revision))
	e.reasons(line)
	if e.Stage != "" && e.was.Allow {
		line("")
		line("  policy allowed it; %s refused it by %s: %s", e.Stage, e.Rule, e.Cause)
	}
	if e.now != nil {
		e.outlook(line)
	}
	return b.String()
}

func (e *explained) reasons(line func(string, ...any)) {
	rules := map[string]policy.RuleAt{}
	if e.now != nil {
		for _, r := range e.now.Rules {
			rules[r.Code] = r
		}
	}
	left := explainedReasons
	for _, set := range []struct {
		kind string
		rs   []policy.Reason
	}{{"deny", e.was.Deny}, {"warn", e.was.Warn}} {
		for i, r := range set.rs {
			if left--; left < 0 {
				line("  and %d more to %s (--format json has all)", len(set.rs)-i, set.kind)
				break
			}
			at := rules[r.Code]
			line("")
			line("  %s %s  %s", set.kind, r.Code, at.Where)
			line("    %s", r.Msg)
			for i, l := range at.Looked {
				if i < 3 {
					line("    input.%s is %s", l.Input, l.Value)
				}
			}
			if at.Expected != "" {
				line("    expected: %s", at.Expected)
			}
		}
	}
}

// outlook is what the policy that was asked says now, and what would change it.
func (e *explained) outlook(line func(string, ...any)) {
	x := e.now
	line("")
	if x.Now.Revision != e.was.Revision {
		line("under the policy asked now, level %s (revision %s), it is %s", x.Now.Level, shortDigest(x.Now.Revision), map[bool]string{true: "allowed", false: "denied: " + reasonsOf(x.Now)}[x.Now.Allow])
	}
	if x.Now.Allow {
		if len(x.Rests) == 0 && x.Now.Level != "custom" {
			line("nothing beyond level restricted is needed for it: no grant")
		}
		for i, r := range x.Rests {
			if i == 0 {
				line("it rests on, and would be denied without any one of:")
			}
			line("  %s", r)
		}
		return
	}
	switch {
	case len(x.Request) > 0:
		line("the least change that passes (%d decisions; leaving out any one is denied):", x.Decisions)
		for i, c := range x.Request {
			if i == 6 {
				line("  and %d more (--format json has all)", len(x.Request)-i)
				break
			}
			line("  %s", c.Do)
		}
	case len(x.Remaining) > 0:
		line("no option of the request would pass: %s judge something else", strings.Join(x.Remaining, ", "))
	default:
		line("no change was found in the time there is (%d decisions)", x.Decisions)
	}
	if len(x.Grants) > 0 {
		line("or, looser, since it also holds for what is asked for later: add to %s", x.GrantsFile)
		line("  %s", x.Grants)
	}
	if !x.Complete {
		line("  not everything was tried: the request is too large, or the rules too slow")
	}
}

func short12(id string) string { return id[:min(12, len(id))] }
