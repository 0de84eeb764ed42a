package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
)

// wardTypes are the events that Docker does not have. They are shown only to
// who asks for them: readers made for Docker's must not meet them.
var wardTypes = []string{"gate", "policy", "audit"}

var eventFilters = []string{"container", "event", "image", "label", "type", "volume"}

func newEvents(a *app) *cobra.Command {
	var since, until, format string
	var filters []string
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Show what happens, and what happened, from the audit log", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseTime(since, time.Now())
			if err != nil {
				return err
			}
			to, err := parseTime(until, time.Unix(1<<40, 0))
			if err != nil {
				return err
			}
			want, err := parseEventFilters(filters)
			if err != nil {
				return err
			}
			show, err := eventPrinter(cmd.OutOrStdout(), format)
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				return eng.Events(cmd.Context(), from, to, func(ev engine.Event) error {
					if !want.match(ev) {
						return nil
					}
					return show(ev)
				})
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "from this `time` on (RFC 3339, or a duration ago)")
	fs.StringVar(&until, "until", "", "up to this `time`")
	fs.StringVar(&format, "format", "", "json, or a Go template")
	fs.StringArrayVarP(&filters, "filter", "f", nil, "`key=value`: container, event, image, label, type (also gate, policy, audit), volume")
	return cmd
}

type eventFilter map[string][]string

func parseEventFilters(specs []string) (eventFilter, error) {
	f := eventFilter{}
	for _, s := range specs {
		k, v, ok := strings.Cut(s, "=")
		if !ok || !slices.Contains(eventFilters, k) {
			return nil, invalid("events.filter", fmt.Sprintf("--filter %.64q is not there yet", s), "use "+strings.Join(eventFilters, ", "))
		}
		f[k] = append(f[k], v)
	}
	return f, nil
}

// match is Docker's: the values of a key are alternatives, all keys must fit.
func (f eventFilter) match(ev engine.Event) bool {
	if slices.Contains(wardTypes, ev.Type) && !slices.Contains(f["type"], ev.Type) {
		return false
	}
	for key, values := range f {
		if !slices.ContainsFunc(values, func(v string) bool { return eventMatches(ev, key, v) }) {
			return false
		}
	}
	return true
}

func eventMatches(ev engine.Event, key, v string) bool {
	attr := ev.Actor.Attributes
	switch key {
	case "type":
		return ev.Type == v
	case "event":
		action, _, _ := strings.Cut(ev.Action, ":")
		return ev.Action == v || action == v
	case "container":
		return ev.Type == "container" && v != "" && (strings.HasPrefix(ev.Actor.ID, v) || attr["name"] == v)
	case "volume":
		return ev.Type == "volume" && ev.Actor.ID == v
	case "image":
		return attr["image"] == v || ev.Type == "image" && (ev.Actor.ID == v || attr["name"] == v)
	default: // label
		k, want, hasValue := strings.Cut(v, "=")
		got, ok := attr[k]
		return ok && (!hasValue || got == want)
	}
}

// eventPrinter prints events as Docker's command line does.
func eventPrinter(w io.Writer, format string) (func(engine.Event) error, error) {
	switch format {
	case "":
		return func(ev engine.Event) error {
			_, err := fmt.Fprintln(w, strings.Map(oneLine, printable(eventLine(ev))))
			return err
		}, nil
	case "json", "{{json .}}":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return func(ev engine.Event) error { return enc.Encode(ev) }, nil
	}
	t, err := parseTemplate(format)
	if err != nil {
		return nil, err
	}
	// An attribute that this event does not have is empty; a misspelt field is
	// still an error.
	t.Option("missingkey=zero")
	return func(ev engine.Event) error {
		return execute(w, t, struct {
			engine.Event
			ID, Status, From string
		}{ev, ev.Actor.ID, ev.Action, ev.Actor.Attributes["image"]})
	}, nil
}

func eventLine(ev engine.Event) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(ev.Actor.Attributes)) {
		pairs = append(pairs, k+"="+ev.Actor.Attributes[k])
	}
	line := time.Unix(0, ev.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00") + " " + ev.Type + " " + ev.Action + " " + ev.Actor.ID
	if len(pairs) > 0 {
		line += " (" + strings.Join(pairs, ", ") + ")"
	}
	return line
}
