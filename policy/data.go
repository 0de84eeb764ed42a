package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ward-project/ward/internal/fault"
)

// maxDepth bounds the nesting of data documents.
const maxDepth = 64

// document reads a data document: one object, in JSON or YAML, with no key
// twice (two readers of such a file would believe different things).
func document(s source) (map[string]any, error) {
	text := s.text
	if s.is(".yaml", ".yml") {
		var err error
		if text, err = yaml.YAMLToJSONStrict(text); err != nil {
			return nil, badData(s, err)
		}
		if len(text) > maxSources { // aliases can multiply
			return nil, badData(s, fmt.Errorf("it expands to more than %d bytes", maxSources))
		}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := strictValue(dec, 0)
	if err == nil {
		if _, e := dec.Token(); e != io.EOF {
			err = fmt.Errorf("something follows the document")
		}
	}
	m, ok := v.(map[string]any)
	if err == nil && !ok {
		err = fmt.Errorf("it is not an object")
	}
	if err != nil {
		if s.is(".json") {
			line := 1 + bytes.Count(text[:min(int64(len(text)), dec.InputOffset())], []byte("\n"))
			err = fmt.Errorf("line %d: %w", line, err)
		}
		return nil, badData(s, err)
	}
	return m, nil
}

func strictValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		m := map[string]any{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key := k.(string) // the decoder lets nothing else stand here
			if _, twice := m[key]; twice {
				return nil, fmt.Errorf("key %q is there twice", key)
			}
			if m[key], err = strictValue(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		return m, err
	case json.Delim('['):
		l := []any{}
		for dec.More() {
			v, err := strictValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		_, err = dec.Token()
		return l, err
	}
	return t, nil
}

// userData merges the data documents of the directory, as OPA does: each is
// part of data itself. Two that say different things about one key conflict,
// and "ward" is not theirs to define.
func userData(sources []source) (map[string]any, error) {
	out := map[string]any{}
	for _, s := range sources {
		if s.is(".rego", manifestFile) || slices.Contains(grantFiles, s.name) {
			continue
		}
		doc, err := document(s)
		if err != nil {
			return nil, err
		}
		if s.bundle != nil {
			_, inside, _ := strings.Cut(s.name, "/")
			for _, name := range slices.Backward(placedAt(inside)) {
				doc = map[string]any{name: doc}
			}
		}
		for _, key := range sorted(doc) {
			if b := claimed(key, s.bundle, sources); s.bundle == nil && b != nil {
				return nil, badData(s, fmt.Errorf("%q is bundle %s's alone", key, b.Name))
			}
		}
		if _, ok := doc["ward"]; ok {
			return nil, badData(s, fmt.Errorf(`"ward" is reserved: grants belong in grants.json`))
		}
		if key, ok := merge(out, doc); !ok {
			return nil, badData(s, fmt.Errorf("%q is defined in another file already", key))
		}
	}
	return out, nil
}

func merge(into, from map[string]any) (string, bool) {
	for k, v := range from {
		old, there := into[k]
		if !there {
			into[k] = v
			continue
		}
		a, okA := old.(map[string]any)
		b, okB := v.(map[string]any)
		if !okA || !okB {
			return k, false
		}
		if key, ok := merge(a, b); !ok {
			return k + "." + key, false
		}
	}
	return "", true
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func badData(s source, err error) error {
	return &fault.Error{
		Class: fault.Invalid, Rule: "policy.data", Cause: s.shown + ": " + err.Error(),
		Remedy: "mend the file, or move it away", Err: err,
	}
}
