package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// grants finds what would have to be granted for the request as it is.
func (x *explainer) grants(ctx context.Context, input []byte, out *Explanation) error {
	var could []int
	for i, m := range x.moves {
		if m.grant != nil {
			could = append(could, i)
		}
	}
	sources, err := readDirWith(x.r.cfg.Dir, x.r.cfg.Keys, false)
	if err != nil {
		return err
	}
	g, err := readGrants(x.r.cfg.Dir, sources)
	if err != nil {
		return err
	}
	pattern := x.imagePattern()
	try := func(on []bool) (bool, error) {
		add := x.scoped(could, on, pattern)
		e, err := x.reopened(sources, g, func(doc map[string]any) { addGrants(doc, add) })
		if err != nil {
			if errors.Is(err, fault.Invalid) {
				return false, nil // it cannot be granted
			}
			return false, err
		}
		d, err := x.decideBy(ctx, e, input)
		return d.Allowed(), err
	}
	// What no grants document may hold (the root directory, say) is left out first.
	could = slices.DeleteFunc(could, func(i int) bool {
		add := x.scoped([]int{i}, []bool{true}, pattern)
		_, err := x.reopened(sources, g, func(doc map[string]any) { addGrants(doc, add) })
		return err != nil
	})
	if len(could) == 0 {
		return nil
	}
	if ok, err := try(slices.Repeat([]bool{true}, len(could))); err != nil || !ok {
		return err
	}
	on, err := fewest(len(could), try)
	if err != nil {
		return err
	}
	out.Grants, err = json.Marshal(x.scoped(could, on, pattern))
	out.GrantsFile = g.shown
	return err
}

// imagePattern is the image as a grants document names it, or "" where it
// cannot.
func (x *explainer) imagePattern() string {
	host, _ := dig(x.in, "image", "host").(string)
	repo, _ := dig(x.in, "image", "repo").(string)
	if host == "" || repo == "" {
		return ""
	}
	return host + "/" + repo
}

// scoped is the part of a grants document that some moves would add.
func (x *explainer) scoped(could []int, on []bool, pattern string) map[string]any {
	s := &scopeDoc{image: map[string][]string{}, limits: map[string]json.Number{}}
	for k, i := range could {
		if on[k] {
			x.moves[i].grant(s)
		}
	}
	doc := map[string]any{}
	if len(s.limits) > 0 {
		doc["limits"] = s.limits
	}
	members := map[string]any{}
	for k, v := range s.image {
		members[k] = v
	}
	switch {
	case len(members) == 0:
	case pattern == "":
		for k, v := range members {
			doc[k] = v
		}
	default:
		doc["images"] = map[string]any{pattern: members}
	}
	return doc
}

// addGrants merges more into a grants document.
func addGrants(doc, more map[string]any) {
	for k, v := range more {
		switch v := v.(type) {
		case []string:
			l, _ := doc[k].([]any)
			l = slices.Clone(l)
			for _, e := range v {
				l = append(l, e)
			}
			doc[k] = l
		case map[string]json.Number:
			o := cloned(doc[k])
			if o == nil {
				o = map[string]any{}
			}
			for name, n := range v {
				o[name] = n
			}
			doc[k] = o
		case map[string]any:
			o := cloned(doc[k])
			if o == nil {
				o = map[string]any{}
			}
			addGrants(o, v)
			doc[k] = o
		}
	}
}

// reopened is the policy with another grants document in place of g's.
func (x *explainer) reopened(sources []source, g grants, change func(doc map[string]any)) (*Engine, error) {
	doc := map[string]any{}
	rest := slices.Clone(sources)
	if g.exists {
		i := slices.IndexFunc(rest, func(s source) bool { return s.shown == g.shown })
		var err error
		if doc, err = document(rest[i]); err != nil {
			return nil, err
		}
		rest = slices.Delete(rest, i, i+1)
	}
	change(doc)
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	rest = append(rest, source{name: grantFiles[0], shown: besides(g.shown, grantFiles[0]), text: b})
	cfg := x.r.cfg
	cfg.Point, _ = dig(x.in, "point").(string)
	return open(cfg, rest)
}

func (x *explainer) decideBy(ctx context.Context, e *Engine, input []byte) (Decision, error) {
	if x.tries++; x.tries > maxTries || time.Now().After(x.until) {
		return Decision{}, errTries
	}
	one := &Replayer{cfg: x.r.cfg, engines: map[string]*Engine{e.point: e}}
	return one.Decide(ctx, input)
}

// granted is one entry of a grants document.
type granted struct {
	path  []string // the member that holds it
	value any      // in the list, or nil for the whole member
}

func (g granted) String() string {
	if g.value == nil {
		return strings.Join(g.path, ".")
	}
	return fmt.Sprintf("%s: %v", strings.Join(g.path, "."), g.value)
}

// entries are the grants of a document, each by itself.
func entries(doc map[string]any, path ...string) []granted {
	var out []granted
	for _, k := range sorted(doc) {
		at := append(slices.Clone(path), k)
		switch v := doc[k].(type) {
		case []any:
			for _, e := range v {
				out = append(out, granted{at, e})
			}
		case map[string]any:
			if len(path) == 0 && (k == "images" || k == "limits" || k == "modes") || len(path) == 1 && path[0] == "images" {
				out = append(out, entries(v, at...)...)
			} else if k == "oci" {
				out = append(out, granted{path: at})
			}
		default:
			if k != "level" || len(path) > 0 {
				out = append(out, granted{path: at})
			}
		}
	}
	return out
}

// remove takes an entry out of a document.
func (g granted) remove(doc map[string]any) {
	o := doc
	for _, k := range g.path[:len(g.path)-1] {
		next, ok := o[k].(map[string]any)
		if !ok {
			return
		}
		o = next
	}
	last := g.path[len(g.path)-1]
	if g.value == nil {
		delete(o, last)
		return
	}
	l, _ := o[last].([]any)
	o[last] = slices.DeleteFunc(slices.Clone(l), func(v any) bool { return fmt.Sprint(v) == fmt.Sprint(g.value) })
}

// rests finds what an allowed request rests on: the entries of the grants
// document, and the level, without which it is denied.
func (x *explainer) rests(ctx context.Context, input []byte) ([]string, error) {
	sources, err := readDirWith(x.r.cfg.Dir, x.r.cfg.Keys, false)
	if err != nil {
		return nil, err
	}
	g, err := readGrants(x.r.cfg.Dir, sources)
	if err != nil || !g.exists {
		return nil, err
	}
	i := slices.IndexFunc(sources, func(s source) bool { return s.shown == g.shown })
	doc, err := document(sources[i])
	if err != nil {
		return nil, err
	}
	es := entries(doc)
	if _, ok := doc["level"]; ok {
		es = append(es, granted{path: []string{"level"}})
	}
	allowed := func(on []bool) (bool, error) {
		e, err := x.reopened(sources, g, func(doc map[string]any) {
			for i, entry := range es {
				if !on[i] {
					entry.remove(doc)
				}
			}
		})
		if err != nil {
			return false, err
		}
		d, err := x.decideBy(ctx, e, input)
		return d.Allowed(), err
	}
	on, err := fewest(len(es), allowed)
	if err != nil {
		return nil, err
	}
	var out []string
	for i, e := range es {
		if !on[i] {
			continue
		}
		line := e.String()
		if line == "level" {
			line = fmt.Sprintf("level: %v", doc["level"])
		}
		out = append(out, line+" (in "+g.shown+")")
	}
	return out, nil
}
