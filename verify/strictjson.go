package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxJSONDepth is far above what any signature needs.
const maxJSONDepth = 32

// strictJSON parses exactly one JSON value. encoding/json alone would take the
// last of two equal keys and match keys without regard to case, so that what
// we believe a payload says could differ from what another reader (or the
// signer) sees in the same signed bytes.
func strictJSON(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := strictValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data after the JSON value")
	}
	return v, nil
}

func strictValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxJSONDepth {
		return nil, errors.New("JSON is nested too deeply")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		return strictObject(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := strictValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

func strictObject(d *json.Decoder, depth int) (any, error) {
	m := map[string]any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		k, ok := t.(string)
		if !ok {
			return nil, errors.New("JSON key is not a string")
		}
		if _, dup := m[k]; dup {
			return nil, fmt.Errorf("duplicate key %q", k)
		}
		if m[k], err = strictValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return m, err
}

// object returns v[key] as an object.
func object(v map[string]any, key string) (map[string]any, error) {
	m, ok := v[key].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%q is missing or not an object", key)
	}
	return m, nil
}

// text returns v[key] as a string.
func text(v map[string]any, key string) (string, error) {
	s, ok := v[key].(string)
	if !ok {
		return "", fmt.Errorf("%q is missing or not a string", key)
	}
	return s, nil
}

// onlyKeys refuses keys that are not listed: what we would not understand, we
// would otherwise vouch for.
func onlyKeys(v map[string]any, keys ...string) error {
	for k := range v {
		known := false
		for _, want := range keys {
			known = known || k == want
		}
		if !known {
			return fmt.Errorf("unknown key %q", k)
		}
	}
	return nil
}
