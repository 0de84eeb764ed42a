package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/volume"
)

// keyFilter is a parsed set of filters: values of a key are alternatives, but
// all labels must be there, as with Docker.
type keyFilter map[string][]string

func parseKeyFilter(specs []string, known ...string) (keyFilter, error) {
	f := keyFilter{}
	for _, s := range specs {
		k, v, ok := strings.Cut(s, "=")
		if strings.HasSuffix(k, "!") && slices.Contains(known, k) {
			ok = true
		}
		if !ok || !slices.Contains(known, k) {
			return f, invalid("filter", fmt.Sprintf("invalid filter %.64q", s), "use "+strings.Join(known, ", "))
		}
		if k == "dangling" || k == "all" {
			switch strings.ToLower(v) {
			case "1", "true":
				v = "true"
			case "0", "false":
				v = "false"
			default:
				return f, invalid("filter", fmt.Sprintf("invalid filter %.64q: not true or false", s), "")
			}
		}
		f[k] = append(f[k], v)
	}
	return f, nil
}

func (f keyFilter) match(v volume.Volume, users int) bool {
	any := func(key string, is func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], is)
	}
	return any("dangling", func(s string) bool { return (s == "true") == (users == 0) }) &&
		any("driver", func(s string) bool { return s == v.Driver }) &&
		any("name", func(s string) bool { return strings.Contains(v.Name, s) }) &&
		f.labels(v.Labels)
}

// labels reports whether all labels asked for are there, and none that must not.
func (f keyFilter) labels(have map[string]string) bool {
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
