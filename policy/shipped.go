package policy

import (
	"embed"
	"slices"
)

// shipped holds the policies ward comes with, and their tests. File names in
// messages and reports are shown with shippedPrefix.
//
//go:embed rego/*.rego rego/*.json
var shipped embed.FS

// The shipped levels, strictest first. A level is chosen in the grants
// document of the policy directory; without one it is Restricted.
const (
	// Restricted is the default: PSS "restricted".
	Restricted = "restricted"
	// Baseline is PSS "baseline".
	Baseline = "baseline"
	// Privileged is PSS "privileged": only evidence is asked for.
	Privileged = "privileged"
)

// levelFiles says which shipped files a level needs: parsing and compiling the
// others would cost every run.
var levelFiles = map[string][]string{
	Restricted: {"baseline.rego", "restricted.rego"},
	Baseline:   {"baseline.rego"},
	Privileged: {"privileged.rego"},
}

// grantsRules is what a grants document means, which only matters where there
// is one.
const grantsRules = "grants.rego"

// shippedPrefix marks shipped files; no file of a directory can have a slash.
const shippedPrefix = "ward/"

// stricter returns the stricter of two levels.
func stricter(a, b string) string {
	order := []string{Restricted, Baseline, Privileged}
	if slices.Index(order, a) < slices.Index(order, b) {
		return a
	}
	return b
}

func shippedSource(name string) source {
	b, err := shipped.ReadFile("rego/" + name)
	if err != nil {
		panic(err) // compiled in
	}
	return source{name: shippedPrefix + name, shown: shippedPrefix + name, text: b}
}
