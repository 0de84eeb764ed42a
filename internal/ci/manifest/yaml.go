package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on what is read. An alias costs what it stands for each time, so that
// a small file cannot stand for a huge one.
const (
	maxVisits    = 200_000
	maxDocuments = 1000
	maxDepth     = 64
)

// parse reads all documents of a file, as nodes: nothing is decided about tags
// or aliases here. Empty documents are left out.
func parse(file string, text []byte) (docs []*yaml.Node, err error) {
	if len(text) > MaxFile {
		return nil, fileError(file, 0, fmt.Sprintf("is larger than %d bytes", MaxFile))
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, fileError(file, 0, "is no text")
	}
	if line := tooDeep(text); line > 0 {
		return nil, fileError(file, line, "is nested too deeply")
	}
	defer func() {
		// A defect of the library in hostile bytes ends the reading, not the program.
		if p := recover(); p != nil {
			docs, err = nil, fileError(file, 0, fmt.Sprintf("cannot be read: %v", p))
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, msg := yamlError(err)
			return nil, fileError(file, line, msg)
		}
		if len(docs) >= maxDocuments {
			return nil, fileError(file, n.Line, "has too many documents")
		}
		if len(n.Content) == 0 || n.Content[0].Tag == "!!null" {
			continue
		}
		docs = append(docs, n.Content[0])
	}
	if len(docs) == 0 {
		return nil, fileError(file, 0, "is empty")
	}
	return docs, nil
}

// tooDeep finds a line of more open brackets, or of more block entries, than
// any real file has: the library's parser calls itself for each.
func tooDeep(text []byte) int {
	flow, line := 0, 1
	dashes := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			flow++
		case ']', '}':
			flow = max(0, flow-1)
		case '\n':
			line, dashes = line+1, 0
		case '-', '?', ':':
			dashes++
		}
		if flow > 1000 || dashes > 10_000 {
			return line
		}
	}
	return 0
}

// yamlError splits "yaml: line 3: what".
func yamlError(err error) (line int, msg string) {
	msg = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, after, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				return line, after
			}
		}
	}
	return 0, msg
}

// resolve follows an alias, and counts.
func (r *reader) resolve(n *yaml.Node) (*yaml.Node, error) {
	for range maxDepth {
		if r.visits++; r.visits > maxVisits {
			return nil, r.errorf(n.Line, "stands for more than %d values, aliases followed", maxVisits)
		}
		if n.Kind != yaml.AliasNode {
			return n, nil
		}
		n = n.Alias
	}
	return nil, r.errorf(n.Line, "aliases go round in circles")
}

// entry is one member of a mapping.
type entry struct {
	key   string
	line  int
	value *yaml.Node
	// at is the key as it stands, aliases followed.
	at *yaml.Node
}

// members are a mapping's, in their order, merges done.
type members []entry

func (m members) get(key string) (entry, bool) {
	for _, e := range m {
		if e.key == key {
			return e, true
		}
	}
	return entry{}, false
}

func (m members) has(key string) bool { _, ok := m.get(key); return ok }

// mapping reads a mapping. A key that stands twice is an error, as two readers
// could take either; "<<" takes in what it names for keys that are not there.
func (r *reader) mapping(n *yaml.Node) (members, error) { return r.merged(n, 0) }

func (r *reader) merged(n *yaml.Node, depth int) (members, error) {
	n, err := r.resolve(n)
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, r.errorf(n.Line, "merges go round in circles")
	}
	if n.Kind != yaml.MappingNode {
		return nil, r.errorf(n.Line, "is no mapping (key: value)")
	}
	var out members
	var merges []*yaml.Node
	at := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, err := r.resolve(n.Content[i])
		if err != nil {
			return nil, err
		}
		if k.Kind != yaml.ScalarNode {
			return nil, r.errorf(k.Line, "a key is not text")
		}
		if k.Tag == "!!merge" {
			merges = append(merges, n.Content[i+1])
			continue
		}
		if at[k.Value] {
			return nil, r.errorf(k.Line, "%.100q stands twice", k.Value)
		}
		at[k.Value] = true
		out = append(out, entry{k.Value, k.Line, n.Content[i+1], k})
	}
	for _, m := range merges {
		if out, err = r.merge(out, at, m, depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// merge takes in one "<<": a mapping, or a list of them, earlier ones first.
func (r *reader) merge(out members, at map[string]bool, from *yaml.Node, depth int) (members, error) {
	from, err := r.resolve(from)
	if err != nil {
		return nil, err
	}
	list := []*yaml.Node{from}
	if from.Kind == yaml.SequenceNode {
		list = from.Content
	}
	for _, f := range list {
		ms, err := r.merged(f, depth+1)
		if err != nil {
			return nil, err
		}
		for _, e := range ms {
			if !at[e.key] {
				at[e.key] = true
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// list reads a sequence.
func (r *reader) list(n *yaml.Node) ([]*yaml.Node, error) {
	n, err := r.resolve(n)
	if err != nil {
		return nil, err
	}
	if n.Kind != yaml.SequenceNode {
		return nil, r.errorf(n.Line, "is no list")
	}
	return n.Content, nil
}

// isNull says whether a value is there at all.
func (r *reader) isNull(n *yaml.Node) bool {
	m, err := r.resolve(n)
	return err == nil && m.Kind == yaml.ScalarNode && m.Tag == "!!null"
}

// scalar reads a text or a plain number. Numbers in other forms than decimal
// mean different things to different readers, and are refused.
func (r *reader) scalar(n *yaml.Node) (string, *yaml.Node, error) {
	n, err := r.resolve(n)
	if err != nil {
		return "", nil, err
	}
	if n.Kind != yaml.ScalarNode {
		return "", nil, r.errorf(n.Line, "is no single value")
	}
	switch n.Tag {
	case "!!str":
	case "!!int", "!!float":
		if strings.Trim(strings.TrimPrefix(n.Value, "-"), "0123456789.") != "" || len(n.Value) > 1 && n.Value[0] == '0' && n.Value[1] != '.' {
			return "", nil, r.errorf(n.Line, "the number %.40q is read differently by different programs; write it in decimal, or in quotes", n.Value)
		}
	case "!!bool":
	default:
		return "", nil, r.errorf(n.Line, "%.40q is %s, not text", n.Value, n.Tag)
	}
	return n.Value, n, nil
}

// boolean reads true or false; the other words of YAML 1.1 are refused.
func (r *reader) boolean(n *yaml.Node) (bool, error) {
	s, m, err := r.scalar(n)
	if err != nil {
		return false, err
	}
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, r.errorf(m.Line, "%.40q is not true or false", s)
}
