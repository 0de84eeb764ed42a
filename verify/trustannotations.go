package verify

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// keyAnnotations say of a policy's key authorities what a ClusterImagePolicy
// has no field for.
var keyAnnotations = map[string]func(reader, note, *keyAuthority, string) error{
	ownAnnotations + "threshold": reader.threshold,
	ownAnnotations + "not-before": func(r reader, n note, k *keyAuthority, value string) error {
		return r.instant(n, &k.notBefore, value)
	},
	ownAnnotations + "not-after": func(r reader, n note, k *keyAuthority, value string) error {
		return r.instant(n, &k.notAfter, value)
	},
}

// keep remembers an annotation until the authorities it names have been read.
func (r reader) keep(p *policy, key string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var s string
		if err := r.str(&s, key)(n); err != nil {
			return err
		}
		p.notes = append(p.notes, note{key, s, n})
		return nil
	}
}

// note is one annotation of ours and where it stands.
type note struct {
	key, value string
	node       *yaml.Node
}

// apply gives each named authority what the annotations say of it.
func (r reader) apply(p *policy) error {
	for _, n := range p.notes {
		for entry := range strings.SplitSeq(n.value, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(entry), "=")
			if !ok {
				return r.errorf(n.node, "annotation %s: %q is not AUTHORITY=VALUE", n.key, entry)
			}
			named := func(a authority) bool { return a.name == name }
			a := slices.IndexFunc(p.authorities, named)
			if a < 0 || slices.ContainsFunc(p.authorities[a+1:], named) {
				return r.errorf(n.node, "annotation %s: not exactly one authority is called %q", n.key, name)
			}
			if p.authorities[a].key == nil {
				return r.errorf(n.node, "annotation %s: authority %q has no key", n.key, name)
			}
			if err := keyAnnotations[n.key](r, n, p.authorities[a].key, value); err != nil {
				return err
			}
		}
	}
	for _, a := range p.authorities {
		if k := a.key; k.windowed() && !k.notBefore.IsZero() && !k.notAfter.IsZero() && !k.notBefore.Before(k.notAfter) {
			return trustError(p.file, p.line, "authority "+strconv.Quote(a.name)+": not-after is not after not-before")
		}
	}
	return nil
}

func (r reader) threshold(n note, k *keyAuthority, value string) error {
	ids := map[string]bool{}
	for _, key := range k.keys {
		ids[key.id] = true
	}
	v, err := strconv.Atoi(value)
	if err != nil || v < 1 || v > len(ids) {
		return r.errorf(n.node, "annotation %s: %q is not a threshold for %d different keys", n.key, value, len(ids))
	}
	k.threshold = v
	return nil
}

// instant reads a time with its zone: a date alone is a day long and begins
// elsewhere at another hour.
func (r reader) instant(n note, dst *time.Time, value string) error {
	t, err := time.Parse(time.RFC3339, value)
	if err != nil || t.IsZero() {
		return r.errorf(n.node, "annotation %s: %q is not a time like 2026-01-31T00:00:00Z", n.key, value)
	}
	*dst = t
	return nil
}
