package verify

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// validPolicyName is Kubernetes' rule for object names, which a cluster would
// enforce anyway. It also makes a name safe as a file name.
func validPolicyName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		inner := (c == '-' || c == '.') && i > 0 && i < len(s)-1
		if !inner && (!isAlnum(c) || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return true
}

// document reads one YAML document and appends its policies.
func (r reader) document(n *yaml.Node, all *[]policy) error {
	var version, kind string
	var spec, items, meta *yaml.Node
	keep := func(dst **yaml.Node) func(*yaml.Node) error {
		return func(n *yaml.Node) error { *dst = n; return nil }
	}
	err := r.fields(n, "the document", map[string]func(*yaml.Node) error{
		"apiVersion": r.str(&version, "apiVersion"),
		"kind":       r.str(&kind, "kind"),
		"metadata":   keep(&meta),
		"spec":       keep(&spec),
		"items":      keep(&items),
		"status":     ignored, // what a controller thought of it
	})
	if err != nil {
		return err
	}
	switch {
	case kind == "List" && version == "v1", kind == policyKind+"List" && version == policyAPIVersion:
		if items == nil || spec != nil {
			return r.errorf(n, "a %s needs items and nothing else", kind)
		}
		return r.items(items, "items", maxPoliciesPerFile, func(_ int, n *yaml.Node) error {
			if n.Kind == yaml.MappingNode && field(n, "items") != nil {
				return r.errorf(n, "a list inside a list")
			}
			return r.document(n, all)
		})
	case kind != policyKind || version != policyAPIVersion:
		return r.errorf(n, "apiVersion %q, kind %q is not %s %s", version, kind, policyAPIVersion, policyKind)
	case items != nil:
		return r.errorf(items, "unknown field \"items\" in a %s", kind)
	case meta == nil || spec == nil:
		return r.errorf(n, "metadata and spec are required")
	}
	p := policy{file: r.file, line: n.Line, mode: "enforce"}
	if err := r.metadata(meta, &p); err != nil {
		return err
	}
	if err := r.spec(spec, &p); err != nil {
		return err
	}
	if err := r.apply(&p); err != nil {
		return err
	}
	*all = append(*all, p)
	return nil
}

// field returns the value of a key in a mapping, or nil.
func field(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// metadata takes the name; the other fields are what a cluster adds.
func (r reader) metadata(n *yaml.Node, p *policy) error {
	known := map[string]func(*yaml.Node) error{
		"name":        r.str(&p.name, "metadata.name"),
		"annotations": func(n *yaml.Node) error { return r.annotations(n, p) },
	}
	for _, k := range []string{"labels", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
		"finalizers", "generateName", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"} {
		known[k] = ignored
	}
	if err := r.fields(n, "metadata", known); err != nil {
		return err
	}
	if !validPolicyName(p.name) {
		return r.errorf(n, "metadata.name %q is not a name (lower-case letters, digits, - and .)", p.name)
	}
	return nil
}

// annotations are anybody's, but for ward's own, which say what a cluster has
// no field for.
func (r reader) annotations(n *yaml.Node, p *policy) error {
	if n.Kind != yaml.MappingNode {
		return r.errorf(n, "metadata.annotations must be a mapping")
	}
	known := map[string]func(*yaml.Node) error{}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i].Value; !strings.HasPrefix(k, ownAnnotations) {
			known[k] = ignored
		}
	}
	known[signedNameAnnotation] = func(n *yaml.Node) (err error) {
		var s string
		if err := r.str(&s, signedNameAnnotation)(n); err != nil {
			return err
		}
		if p.signed, err = parseSignedName(s); err != nil {
			return r.errorf(n, "%s: %v", signedNameAnnotation, err)
		}
		return nil
	}
	for key := range keyAnnotations {
		known[key] = r.keep(p, key)
	}
	return r.fields(n, "metadata.annotations", known)
}

func (r reader) spec(n *yaml.Node, p *policy) error {
	images, authorities := false, false
	err := r.fields(n, "spec", map[string]func(*yaml.Node) error{
		"images": func(n *yaml.Node) error {
			images = true
			return r.items(n, "spec.images", maxGlobsPerPolicy, func(_ int, n *yaml.Node) error { return r.image(n, p) })
		},
		"authorities": func(n *yaml.Node) error {
			authorities = true
			return r.items(n, "spec.authorities", maxAuthorities, func(i int, n *yaml.Node) error {
				a := authority{name: fmt.Sprintf(defaultAuthorityFmt, i)}
				if err := r.authority(n, &a); err != nil {
					return err
				}
				p.authorities = append(p.authorities, a)
				return nil
			})
		},
		"mode": func(n *yaml.Node) error {
			if err := r.str(&p.mode, "spec.mode")(n); err != nil {
				return err
			}
			if p.mode != "enforce" && p.mode != "warn" {
				return r.errorf(n, "spec.mode %q is not enforce or warn", p.mode)
			}
			return nil
		},
		"policy": func(n *yaml.Node) (err error) {
			p.rule, err = r.rego(n, "spec.policy")
			return err
		},
		"match": func(n *yaml.Node) error { return r.match(n, p) },
	})
	switch {
	case err != nil:
		return err
	case !images:
		return r.errorf(n, "spec.images is missing")
	case !authorities:
		// Without authorities nothing would have to be proved.
		return r.errorf(n, "spec.authorities is missing")
	}
	return nil
}

func (r reader) image(n *yaml.Node, p *policy) error {
	var pattern string
	if err := r.fields(n, "spec.images", map[string]func(*yaml.Node) error{"glob": r.str(&pattern, "glob")}); err != nil {
		return err
	}
	g, err := compileGlob(pattern)
	if err != nil {
		return r.errorf(n, "glob %q: %v", pattern, err)
	}
	p.globs = append(p.globs, g)
	return nil
}

func (r reader) authority(n *yaml.Node, a *authority) error {
	var key, keyless, static, logOff bool
	err := r.fields(n, "spec.authorities", map[string]func(*yaml.Node) error{
		"name":    r.str(&a.name, "name"),
		"key":     func(n *yaml.Node) error { key = true; return r.key(n, a) },
		"static":  func(n *yaml.Node) error { static = true; return r.static(n, a) },
		"keyless": func(n *yaml.Node) error { keyless = true; return r.keyless(n, a) },
		"ctlog": func(n *yaml.Node) (err error) {
			logOff, err = r.ctlog(n, a)
			return err
		},
		"rfc3161timestamp": func(n *yaml.Node) error { return r.timestamp(n, a) },
		"signatureFormat": func(n *yaml.Node) error {
			var s string
			if err := r.str(&s, "signatureFormat")(n); err != nil {
				return err
			}
			f, ok := map[string]string{"legacy": KindCosign, "bundle": KindBundle}[s]
			if !ok {
				return r.errorf(n, "signatureFormat %q is not legacy or bundle", s)
			}
			a.format = f
			return nil
		},
		"attestations": func(n *yaml.Node) error { return r.attestations(n, a) },
		"source":       r.unsupported("source (signatures kept in another repository)", ""),
	})
	switch {
	case err != nil:
		return err
	case !onlyOne(key, keyless, static):
		return r.errorf(n, "an authority needs exactly one of key, keyless and static")
	case a.name == "":
		return r.errorf(n, "an authority's name is empty")
	case static && len(a.wanted) > 0:
		return r.errorf(n, "a static authority looks at nothing: attestations mean nothing there")
	}
	return r.witnesses(n, a, logOff)
}

func (r reader) key(n *yaml.Node, a *authority) error {
	var data, hash string
	at := n
	err := r.fields(n, "key", map[string]func(*yaml.Node) error{
		"data":          func(n *yaml.Node) error { at = n; return r.str(&data, "key.data")(n) },
		"hashAlgorithm": r.str(&hash, "key.hashAlgorithm"),
		"secretRef":     r.unsupported("key.secretRef", "; put the public key itself into key.data"),
		"kms":           r.unsupported("key.kms", "; put the public key itself into key.data"),
	})
	if err != nil {
		return err
	}
	h, ok := hashes[hash]
	if !ok {
		return r.errorf(n, "key.hashAlgorithm %q is not sha256, sha384 or sha512", hash)
	}
	keys, err := parsePublicKeys([]byte(data), h)
	if err != nil {
		return r.errorf(at, "key.data: %v", err)
	}
	a.key = &keyAuthority{keys: keys, threshold: 1}
	return nil
}

// static answers without looking at any signature. An image that passes this
// way alone needs a grant of the run policy besides.
func (r reader) static(n *yaml.Node, a *authority) error {
	var action string
	a.static = &staticAuthority{}
	err := r.fields(n, "static", map[string]func(*yaml.Node) error{
		"action":  r.str(&action, "static.action"),
		"message": r.str(&a.static.message, "static.message"),
	})
	switch {
	case err != nil:
		return err
	case action != "fail" && action != "pass":
		return r.errorf(n, "static.action %q is not pass or fail", action)
	}
	a.static.pass = action == "pass"
	return nil
}

func onlyOne(flags ...bool) bool {
	n := 0
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n == 1
}
