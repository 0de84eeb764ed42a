package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/engine"
)

// psFilters are the keys of ps --filter.
var psFilters = []string{
	"id", "name", "label", "exited", "status", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health", "is-task",
}

// words are the values that some keys may have, and no others.
var words = map[string][]string{
	"status":  {"created", "restarting", "running", "removing", "paused", "exited", "dead"},
	"health":  {"starting", "healthy", "unhealthy", "none"},
	"is-task": {"true", "false", "1", "0"},
}

var portRange = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?$`)

// filter is a parsed set of --filter: values of a key are alternatives, but
// all labels must be there; keys must all match, as Docker's.
type filter struct {
	want       map[string][]string
	eng        *engine.Engine
	wantsState bool
	// made is when the containers named by before and since were.
	made map[string]time.Time
}

func parseFilters(ctx context.Context, eng *engine.Engine, specs []string) (filter, error) {
	f := filter{want: map[string][]string{}, eng: eng, made: map[string]time.Time{}}
	for _, s := range specs {
		k, v, ok := strings.Cut(s, "=")
		bad := func(why string) (filter, error) {
			return f, invalid("ps.filter", fmt.Sprintf("invalid filter %.64q%s", s, why), "use "+strings.Join(psFilters, ", "))
		}
		if !ok || !slices.Contains(psFilters, k) {
			return bad("")
		}
		if may := words[k]; may != nil && !slices.Contains(may, v) {
			return bad(": not one of " + strings.Join(may, ", "))
		}
		switch k {
		case "exited":
			if _, err := strconv.Atoi(v); err != nil {
				return bad(": not an exit code")
			}
		case "publish", "expose":
			if !portRange.MatchString(v) {
				return bad(": not a port")
			}
		case "before", "since":
			c, err := eng.Find(ctx, v)
			if err != nil {
				return f, err
			}
			f.made[v] = c.Created
		}
		f.want[k] = append(f.want[k], v)
		f.wantsState = f.wantsState || k == "status" || k == "exited"
	}
	return f, nil
}

func (f filter) match(c engine.Container) bool {
	for key, values := range f.want {
		is := func(v string) bool { return f.matches(c, key, v) }
		if key == "label" {
			if slices.ContainsFunc(values, func(v string) bool { return !is(v) }) {
				return false
			}
		} else if !slices.ContainsFunc(values, is) {
			return false
		}
	}
	return true
}

func (f filter) matches(c engine.Container, key, v string) bool {
	switch key {
	case "id":
		return strings.HasPrefix(c.ID, v)
	case "name":
		if re, err := regexp.Compile(v); err == nil {
			return re.MatchString(c.Name) || re.MatchString("/"+c.Name)
		}
		return strings.Contains(c.Name, v)
	case "status":
		return state(c) == v
	case "ancestor":
		return c.Image == v || c.Digest == v || c.ImageID == v || strings.TrimSuffix(c.Image, ":latest") == v
	case "exited":
		return c.Status.Exit != nil && strconv.Itoa(c.Status.Exit.Code) == v
	case "before":
		return c.Created.Before(f.made[v])
	case "since":
		return c.Created.After(f.made[v])
	case "network":
		return string(c.Network) == v
	case "health":
		return healthStatus(c) == v
	case "is-task":
		return v == "false" || v == "0"
	case "volume":
		for _, m := range mountsOf(f.eng, c) {
			if v == m.Target || v == m.Source || m.Name != "" && v == m.Name {
				return true
			}
		}
		return false
	case "publish", "expose":
		return false // nothing has ports yet
	default: // label
		k, want, hasValue := strings.Cut(v, "=")
		got, ok := c.Labels[k]
		return ok && (!hasValue || got == want)
	}
}
