package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on documents as JSON: one, and those of all containers of a file
// together, since each container is judged, and kept, with the whole of its own.
const (
	maxDocument     = 1 << 20
	maxAllDocuments = 64 << 20
)

// document writes what a file says as JSON, as programs that read YAML for
// policies see it: aliases followed, merges done, variables left as they are.
// It is made of the nodes that the containers are read from, so that a rule
// about the document and one about the run cannot be shown two files.
type document struct {
	// The reader is one of its own: what it counts is this document's alone.
	*reader
	b bytes.Buffer
}

// document is the JSON of a value of the file.
func (r *reader) document(n *yaml.Node) (json.RawMessage, error) {
	d := &document{reader: &reader{file: r.file}}
	if err := d.write(n, 0); err != nil {
		return nil, err
	}
	return d.b.Bytes(), nil
}

func (d *document) write(n *yaml.Node, depth int) error {
	line := n.Line
	n, err := d.resolve(n)
	switch {
	case err != nil:
		return err
	case depth > maxDepth:
		return d.errorf(line, "is nested too deeply")
	case d.b.Len() > maxDocument:
		return d.tooLarge(line)
	}
	switch n.Kind {
	case yaml.MappingNode:
		err = d.mappingOf(n, depth)
	case yaml.SequenceNode:
		d.b.WriteByte('[')
		for i, v := range n.Content {
			if i > 0 {
				d.b.WriteByte(',')
			}
			if err = d.write(v, depth+1); err != nil {
				return err
			}
		}
		d.b.WriteByte(']')
	default:
		err = d.scalarOf(n)
	}
	if err == nil && d.b.Len() > maxDocument {
		err = d.tooLarge(line)
	}
	return err
}

func (d *document) tooLarge(line int) error {
	return d.errorf(line, "makes the document that policies judge larger than %d bytes, aliases followed", maxDocument)
}

func (d *document) mappingOf(n *yaml.Node, depth int) error {
	ms, err := d.mapping(n)
	if err != nil {
		return err
	}
	d.b.WriteByte('{')
	seen := map[string]bool{}
	for i, m := range ms {
		key, err := keyOf(m.at)
		if err != nil {
			return d.errorf(m.line, "%v", err)
		}
		if seen[key] { // "on" and "true", 8 and 010
			return d.errorf(m.line, "the key %.100q stands twice", key)
		}
		seen[key] = true
		if i > 0 {
			d.b.WriteByte(',')
		}
		if err := d.json(m.line, key); err != nil {
			return err
		}
		d.b.WriteByte(':')
		if err := d.write(m.value, depth+1); err != nil {
			return err
		}
	}
	d.b.WriteByte('}')
	return nil
}

func (d *document) scalarOf(n *yaml.Node) error {
	v, err := valueOf(n)
	if err != nil {
		return d.errorf(n.Line, "%v", err)
	}
	return d.json(n.Line, v)
}

// json writes one value with the escapes that the policy input has, so that
// what is counted here is what is counted there.
func (d *document) json(line int, v any) error {
	b, err := json.Marshal(v)
	if err != nil { // infinite, not a number
		return d.errorf(line, "has no form in JSON: %v", err)
	}
	d.b.Write(b)
	return nil
}

// valueOf is what a scalar is to a reader of YAML 1.1, which Kubernetes and
// conftest are: "yes" is true and 0644 is 420 unless it stands in quotes.
func valueOf(n *yaml.Node) (any, error) {
	if n.Style&yaml.TaggedStyle != 0 {
		return taggedValue(n)
	}
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return n.Value, nil
	}
	return plainValue(n.Value), nil
}

// taggedValue is a scalar that says itself what it is.
func taggedValue(n *yaml.Node) (any, error) {
	v, ok := plainValue(n.Value), true
	switch n.ShortTag() {
	case "!!int":
		switch v.(type) {
		case int64, uint64:
		default:
			ok = false
		}
	case "!!float":
		if i, whole := v.(int64); whole {
			v = float64(i)
		}
		_, ok = v.(float64)
	case "!!bool":
		_, ok = v.(bool)
	case "!!null":
		ok = v == nil
	case "!!binary", "!!merge":
		ok = false
	default: // text, and what other programs call by names of their own
		return n.Value, nil
	}
	if !ok {
		return nil, fmt.Errorf("%.40q is no %.40s that is understood", n.Value, n.ShortTag())
	}
	return v, nil
}

// words11 are the words that are no text in YAML 1.1.
var words11 = map[string]any{"": nil, "~": nil, "null": nil, "Null": nil, "NULL": nil}

func init() {
	for word, v := range map[string]bool{"y": true, "yes": true, "true": true, "on": true, "n": false, "no": false, "false": false, "off": false} {
		for _, w := range []string{word, strings.ToUpper(word), strings.ToUpper(word[:1]) + word[1:]} {
			words11[w] = v
		}
	}
}

var (
	decimal11 = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	date11    = regexp.MustCompile(`^[0-9]{4}-`)
	infinite  = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// plainValue is a scalar without quotes and tag.
func plainValue(s string) any {
	if v, ok := words11[s]; ok {
		return v
	}
	if infinite.MatchString(s) {
		v, _ := strconv.ParseFloat(strings.Replace(s, ".", "", 1), 64)
		return v
	}
	if !strings.ContainsAny(s[:1], "+-.0123456789") || date11.MatchString(s) {
		return s
	}
	if s[0] == '.' {
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			return v
		}
		return s
	}
	plain := strings.ReplaceAll(s, "_", "")
	if v, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseUint(plain, 0, 64); err == nil {
		return v
	}
	if decimal11.MatchString(plain) {
		if v, err := strconv.ParseFloat(plain, 64); err == nil {
			return v
		}
	}
	for _, sign := range []string{"", "-"} { // "0b+1" is 1 to others
		if digits, ok := strings.CutPrefix(plain, sign+"0b"); ok {
			if v, err := strconv.ParseInt(sign+digits, 2, 64); err == nil {
				return v
			}
		}
	}
	return s
}

// keyOf is a key as JSON has keys.
func keyOf(n *yaml.Node) (string, error) {
	v, err := valueOf(n)
	if err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, int64:
		return fmt.Sprint(v), nil
	case float64:
		if !math.IsInf(float64(float32(v)), 0) && !math.IsNaN(v) { // others write a key with 32 bits
			return strconv.FormatFloat(v, 'g', -1, 32), nil
		}
	}
	return "", errors.New("a key is no text, number or truth value")
}
