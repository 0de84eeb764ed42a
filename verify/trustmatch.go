package verify

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// reach is what spec.match makes of a policy. On a host everything that runs
// counts as a Pod: core/v1 pods. The zero value is a policy without match.
type reach int

const (
	// forAll is asked about every image that its globs match.
	forAll reach = iota
	// forSome is a policy for Pods with certain labels. Whoever asks chooses
	// the labels, so it is asked always and lets nothing in by itself.
	forSome
	// forOthers is about other resources alone; on a host it says nothing.
	forOthers
)

// resources are those that a cluster's policy may be about.
var resources = []string{"pods", "replicasets", "deployments", "statefulsets", "daemonsets", "jobs", "cronjobs"}

// match reads which resources a policy is about. One entry is enough.
func (r reader) match(n *yaml.Node, p *policy) error {
	p.reach = forOthers
	return r.items(n, "spec.match", maxGlobsPerPolicy, func(_ int, n *yaml.Node) error {
		var group, version, resource string
		selector := false
		err := r.fields(n, "spec.match", map[string]func(*yaml.Node) error{
			"group":    r.str(&group, "match.group"),
			"version":  r.str(&version, "match.version"),
			"resource": r.str(&resource, "match.resource"),
			"selector": func(n *yaml.Node) error { selector = true; return r.selector(n) },
		})
		switch {
		case err != nil:
			return err
		case resource != "" && !slices.Contains(resources, resource):
			return r.errorf(n, "match.resource %q is not one that a policy can be about", clip(resource))
		case selector && resource == "" && version == "" && group == "":
			return r.errorf(n, "match.selector needs a resource")
		case group != "" || resource != "pods" || version != "v1" && version != "*":
			return nil // of something else
		case selector && p.reach == forOthers:
			p.reach = forSome
		case !selector:
			p.reach = forAll
		}
		return nil
	})
}

// selector checks a label selector; which labels it asks for does not matter.
func (r reader) selector(n *yaml.Node) error {
	any := func(what string, kind yaml.Kind) func(*yaml.Node) error {
		return func(n *yaml.Node) error {
			if n.Kind != kind {
				return r.errorf(n, "%s has the wrong form", what)
			}
			return nil
		}
	}
	return r.fields(n, "match.selector", map[string]func(*yaml.Node) error{
		"matchLabels":      any("match.selector.matchLabels", yaml.MappingNode),
		"matchExpressions": any("match.selector.matchExpressions", yaml.SequenceNode),
	})
}
