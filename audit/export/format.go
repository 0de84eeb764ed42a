package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Format is a way to write an event: one line of valid UTF-8 without a line
// break in it.
type Format struct {
	// Name is what --format takes; ContentType is that of one event.
	Name, ContentType string
	// encode writes an event, with the record itself or without.
	encode func(e *Event, whole bool) []byte
	text   bool // and not JSON
}

var formats = map[string]Format{
	"jsonl":       {"jsonl", "application/json", jsonl, false},
	"ocsf":        {"ocsf", "application/json", ocsf, false},
	"ecs":         {"ecs", "application/json", ecs, false},
	"cef":         {"cef", "text/plain; charset=utf-8", cef, true},
	"cloudevents": {"cloudevents", "application/cloudevents+json", cloudEvent, false},
}

// Formats are the names of all formats.
func Formats() []string { return slices.Sorted(maps.Keys(formats)) }

// ParseFormat finds a format by its name.
func ParseFormat(name string) (Format, error) {
	f, ok := formats[name]
	if !ok {
		return f, fmt.Errorf("%w: no format %.32q; there are %s", ErrConfig, name, strings.Join(Formats(), ", "))
	}
	return f, nil
}

// message is an event in its format.
type message struct {
	*Event
	body []byte
}

// form writes e within limit bytes (0 is none): with the record if it fits and
// is wanted, else what was taken from it. Nothing is left out, or cut unsaid.
func (f Format) form(e *Event, record bool, limit int) message {
	b := f.encode(e, record)
	if limit > 0 && len(b) > limit && record {
		b = f.encode(e, false)
	}
	return message{e, b}
}

// object is a JSON object whose empty fields are left out and whose order is
// that of the calls.
type object struct{ b []byte }

func (o *object) raw(key string, v []byte) *object {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, quote(key)...), ':'), v...)
	return o
}

func (o *object) str(key, v string) *object {
	if v == "" {
		return o
	}
	return o.raw(key, quote(v))
}

func (o *object) num(key string, v int64) *object { return o.raw(key, fmt.Appendf(nil, "%d", v)) }

func (o *object) obj(key string, v *object) *object {
	if len(v.b) == 0 {
		return o
	}
	return o.raw(key, v.done())
}

func (o *object) strs(key string, v ...string) *object {
	l := [][]byte{}
	for _, s := range v {
		if s != "" {
			l = append(l, quote(s))
		}
	}
	if len(l) == 0 {
		return o
	}
	return o.raw(key, list(l...))
}

func (o *object) done() []byte {
	if len(o.b) == 0 {
		return []byte("{}")
	}
	return append(o.b, '}')
}

func list(items ...[]byte) []byte {
	return append(append([]byte{'['}, bytes.Join(items, []byte(","))...), ']')
}

// quote is a JSON string in which nothing is left that ends a line or drives a
// terminal.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) != nil {
		return []byte(`""`) // a string always encodes
	}
	q := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if !bytes.ContainsFunc(q, control) {
		return q
	}
	var out []byte
	for _, r := range string(q) {
		if control(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, string(r)...)
		}
	}
	return out
}

// jsonl is the native form: what to search for, then the record, exact bytes
// and last, so that a receiver can hash what stands behind "record":.
func jsonl(e *Event, whole bool) []byte {
	o := (&object{}).str("id", e.ID).str("origin", e.Origin).num("index", e.Index).str("leaf_hash", e.LeafHash).num("tree_size", e.TreeSize).
		str("time", e.Time.UTC().Format(timeNano)).str("type", string(e.Type)).str("host", e.Host).str("run", e.Run).
		obj("actor", (&object{}).num("uid", int64(e.Actor.UID)).num("loginuid", int64(e.Actor.LoginUID)).num("pid", int64(e.Actor.PID)).
			str("exe", e.Actor.Exe)).
		str("container", e.Container).str("name", e.Name).
		obj("image", (&object{}).str("reference", e.Image.Reference).str("digest", e.Image.Digest)).
		str("plan", e.Plan).str("decision", e.Decision).str("rule", e.Rule).str("class", e.Class)
	switch {
	case !whole:
		o.num("record_bytes", int64(len(e.Leaf)))
	case e.verbatim():
		o.raw("record", e.Leaf)
	default:
		o.raw("record_base64", base64JSON(e.Leaf))
	}
	return o.done()
}

const timeNano = "2006-01-02T15:04:05.000000000Z"

func base64JSON(b []byte) []byte {
	q, err := json.Marshal(b)
	if err != nil {
		return []byte(`""`) // bytes always encode
	}
	return q
}
