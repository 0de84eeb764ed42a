package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Bounds on what is stated about an image. They are the reader's, not the
// signer's: a trusted builder may sign what a stranger wrote into a file name.
const (
	// maxScanDepth is above that of any SBOM: CycloneDX nests components.
	maxScanDepth = 64
	// maxScanValues bounds what the values cost whoever builds them: a tree of
	// "[1,1,1…" takes some fifty times the memory of its text.
	maxScanValues = 2_000_000
	// maxNumber bounds a number's text, maxExponent its power of ten. Whoever
	// turns 1e999999999 into an integer would not come back.
	maxNumber   = 64
	maxExponent = 400
)

// scanJSON checks that b is one JSON value that all readers read alike (UTF-8,
// no equal keys, nothing after it) and within bounds, without building it. If
// it is an object, member is called with each of its members in turn.
func scanJSON(b []byte, member func(key string, value []byte) error) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	s := &scanner{b: b, member: member}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	if s.space(); s.at < len(b) {
		return errors.New("data after the JSON value")
	}
	return nil
}

type scanner struct {
	b      []byte
	at     int
	values int
	member func(key string, value []byte) error
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek is the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

func (s *scanner) bad(what string) error { return fmt.Errorf("%s at byte %d", what, s.at) }

func (s *scanner) value(depth int) error {
	if depth > maxScanDepth {
		return errors.New("JSON is nested too deeply")
	}
	if s.values++; s.values > maxScanValues {
		return fmt.Errorf("more than %d JSON values", maxScanValues)
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if len(s.b)-s.at >= len(word) && string(s.b[s.at:s.at+len(word)]) == word {
			s.at += len(word)
			return nil
		}
	}
	return s.bad("no JSON value")
}

func (s *scanner) object(depth int) error {
	s.at++
	var keys keySet
	for first := true; ; first = false {
		if s.space(); first && s.peek() == '}' {
			s.at++
			return nil
		}
		if s.peek() != '"' {
			return s.bad("no JSON key")
		}
		raw, err := s.str()
		if err != nil {
			return err
		}
		key, err := unquoted(raw)
		if err != nil {
			return err
		}
		if !keys.add(key) {
			return fmt.Errorf("duplicate key %q", clip(key))
		}
		if s.space(); s.peek() != ':' {
			return s.bad("no colon")
		}
		s.at++
		s.space()
		start := s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if depth == 0 && s.member != nil {
			if err := s.member(key, s.b[start:s.at]); err != nil {
				return err
			}
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.bad("no comma")
		}
	}
}

func (s *scanner) array(depth int) error {
	s.at++
	for first := true; ; first = false {
		if s.space(); first && s.peek() == ']' {
			s.at++
			return nil
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.bad("no comma")
		}
	}
}

// str returns a string with its quotes.
func (s *scanner) str() ([]byte, error) {
	start := s.at
	for s.at++; s.at < len(s.b); s.at++ {
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			return s.b[start:s.at], nil
		case c < ' ':
			return nil, s.bad("control character")
		case c == '\\':
			s.at++
			switch s.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					s.at++
					if c := s.peek(); (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
						return nil, s.bad("bad escape")
					}
				}
			default:
				return nil, s.bad("bad escape")
			}
		}
	}
	return nil, s.bad("open string")
}

func unquoted(raw []byte) (string, error) {
	for _, c := range raw {
		if c == '\\' {
			var key string
			err := json.Unmarshal(raw, &key)
			return key, err
		}
	}
	return string(raw[1 : len(raw)-1]), nil
}

func (s *scanner) digits() int {
	n := 0
	for ; s.peek() >= '0' && s.peek() <= '9'; n++ {
		s.at++
	}
	return n
}

func (s *scanner) number() error {
	start := s.at
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if s.digits() == 0 {
		return s.bad("bad number")
	}
	if s.peek() == '.' {
		if s.at++; s.digits() == 0 {
			return s.bad("bad number")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		from := s.at
		if s.digits() == 0 {
			return s.bad("bad number")
		}
		power := 0
		for _, c := range s.b[from:s.at] {
			if power = power*10 + int(c-'0'); power > maxExponent {
				return s.bad("number out of range")
			}
		}
	}
	if s.at-start > maxNumber {
		return s.bad("number too long")
	}
	return nil
}

// keySet is the keys of one object. Most have a handful.
type keySet struct {
	few  []string
	many map[string]struct{}
}

func (k *keySet) add(key string) bool {
	if k.many == nil {
		for _, have := range k.few {
			if have == key {
				return false
			}
		}
		if len(k.few) < 16 {
			k.few = append(k.few, key)
			return true
		}
		k.many = make(map[string]struct{}, 64)
		for _, have := range k.few {
			k.many[have] = struct{}{}
		}
	}
	if _, dup := k.many[key]; dup {
		return false
	}
	k.many[key] = struct{}{}
	return true
}
