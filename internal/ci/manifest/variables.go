package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// maxText bounds a text after variables were put in.
const maxText = 64 << 10

// interpolate puts variables in as compose does: $NAME, ${NAME}, ${NAME:-word},
// ${NAME-word}, ${NAME:?word}, ${NAME?word}, ${NAME:+word}, ${NAME+word}, and $$
// for a dollar. A variable that is not there and has no word is an error:
// compose would put in nothing, and mean another image.
func interpolate(s string, lookup func(string) (string, bool), depth int) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	if depth > 8 {
		return "", errors.New("variables are nested too deeply")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if b.Len() > maxText {
			return "", errors.New("the text is too long once variables are put in")
		}
		if s[i] != '$' {
			b.WriteByte(s[i])
			i++
			continue
		}
		rest := s[i+1:]
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			i += 2
		case strings.HasPrefix(rest, "{"):
			end := closing(rest)
			if end < 0 {
				return "", fmt.Errorf("%.40q has no }", s[i:])
			}
			v, err := expand(rest[1:end], lookup, depth)
			if err != nil {
				return "", err
			}
			b.WriteString(v)
			i += 1 + end + 1
		default:
			n := nameLength(rest)
			if n == 0 {
				return "", fmt.Errorf("%.40q is no variable; a dollar is written $$", s[i:])
			}
			v, ok := lookup(rest[:n])
			if !ok {
				return "", unset(rest[:n])
			}
			b.WriteString(v)
			i += 1 + n
		}
	}
	if b.Len() > maxText {
		return "", errors.New("the text is too long once variables are put in")
	}
	return b.String(), nil
}

func unset(name string) error { return fmt.Errorf("the variable %.64s is not set", name) }

// closing is the place of the } that ends "{…", inner braces passed over.
func closing(s string) int {
	open := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return i
			}
		}
	}
	return -1
}

func nameLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return n
}

// expand is the value of what stands in ${…}.
func expand(s string, lookup func(string) (string, bool), depth int) (string, error) {
	n := nameLength(s)
	name, op := s[:n], s[n:]
	if n == 0 {
		return "", fmt.Errorf("${%.40s} names no variable", s)
	}
	v, set := lookup(name)
	if op == "" {
		if !set {
			return "", unset(name)
		}
		return v, nil
	}
	word, empty := op, false
	if op[0] == ':' {
		word, empty = op[1:], true
	}
	if word == "" {
		return "", fmt.Errorf("${%.40s} is no form of a variable", s)
	}
	there := set && (!empty || v != "")
	inner := word[1:]
	switch word[0] {
	case '-':
		if there {
			return v, nil
		}
		return interpolate(inner, lookup, depth+1)
	case '+':
		if !there {
			return "", nil
		}
		return interpolate(inner, lookup, depth+1)
	case '?':
		if there {
			return v, nil
		}
		return "", fmt.Errorf("the variable %.64s is required: %.200s", name, inner)
	}
	return "", fmt.Errorf("${%.40s} is no form of a variable", s)
}

// words splits a command as a shell would, without any of a shell's meaning.
func words(s string) ([]string, error) {
	var out []string
	var b strings.Builder
	begun := false
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'' && c != '\'':
			b.WriteByte(c)
		case c == quote && quote != 0:
			quote = 0
		case c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("a command ends in a backslash")
			}
			if quote == '"' && s[i] != '"' && s[i] != '\\' && s[i] != '$' && s[i] != '`' {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
			begun = true
		case quote != 0:
			b.WriteByte(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if begun {
				out = append(out, b.String())
				b.Reset()
				begun = false
			}
		default:
			b.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote in a command is not closed")
	}
	if begun {
		out = append(out, b.String())
	}
	return out, nil
}

// DotEnv reads the plain form of a .env file: NAME=VALUE lines, the value bare
// or in quotes, without variables and escapes in it. A line of another form is
// an error, as compose would read something else into it.
func DotEnv(name string, text []byte) (map[string]string, error) {
	out := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if !ok || k == "" || nameLength(k) != len(k) {
			return nil, fileError(name, i+1, "is not NAME=VALUE")
		}
		if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			v = v[1 : len(v)-1]
		}
		if strings.ContainsAny(v, "\"'\\$`#") {
			return nil, fileError(name, i+1, "has a value that is not plain: set the variable in the environment instead")
		}
		out[k] = v
	}
	return out, nil
}
