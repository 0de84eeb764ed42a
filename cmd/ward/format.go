package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
)

// row is one line of a listing: what templates and JSON see.
type row map[string]any

// labels are a row's: printed as Docker does, and looked up by .Label.
type labels map[string]string

// String lists them in order.
func (l labels) String() string {
	var all []string
	for k, v := range l {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// MarshalText makes them a string in JSON too.
func (l labels) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Label is one label's value, for templates; in a table's first line its name.
func (r row) Label(key string) string {
	if l, ok := r["Labels"].(labels); ok {
		return l[key]
	}
	return key
}

// column is one column of the default table.
type column struct{ header, key string }

// listing prints rows as a table, as JSON lines, or through a Go template, as
// Docker's --format does.
func listing(w io.Writer, format string, cols []column, rows []row) error {
	switch {
	case format == "" || format == "table":
		return table(w, cols, rows)
	case format == "json":
		enc := json.NewEncoder(w)
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	format, asTable := strings.CutPrefix(format, "table ")
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	out := io.Writer(w)
	if asTable {
		tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
		defer tw.Flush()
		heads := row{}
		for _, c := range cols {
			heads[c.key] = c.header
		}
		rows, out = append([]row{heads}, rows...), tw
	}
	for _, r := range rows {
		if err := execute(out, t, r); err != nil {
			return err
		}
	}
	return nil
}

func table(w io.Writer, cols []column, rows []row) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	heads := make([]string, len(cols))
	for i, c := range cols {
		heads[i] = c.header
	}
	fmt.Fprintln(tw, strings.Join(heads, "\t"))
	for _, r := range rows {
		cells := make([]string, len(cols))
		for i, c := range cols {
			// A tab or a newline in a name must not make columns of its own.
			cells[i] = strings.Map(oneLine, printable(fmt.Sprint(r[c.key])))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

func oneLine(r rune) rune {
	if r == '\n' || r == '\t' {
		return ' '
	}
	return r
}

func parseTemplate(text string) (*template.Template, error) {
	// Docker lets people write \t and \n in a format given on a command line.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json":  toJSON,
		"join":  joined,
		"split": strings.Split,
		"upper": strings.ToUpper,
		"lower": strings.ToLower,
	}).Parse(text)
	if err != nil {
		return nil, invalid("format", "the template does not parse: "+err.Error(), "see Go's text/template")
	}
	return t, nil
}

// joined is join, also of a list that was read from JSON.
func joined(list any, separator string) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, separator), nil
	case []any:
		words := make([]string, len(l))
		for i, v := range l {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, separator), nil
	}
	return "", fmt.Errorf("join: %T is no list", list)
}

func execute(w io.Writer, t *template.Template, v any) error {
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return invalid("format", "the template does not fit: "+err.Error(), "--format json shows the fields")
	}
	_, err := fmt.Fprintln(w, strings.Map(noControl, b.String()))
	return err
}

// noControl takes away what drives a terminal and nothing else: programs read
// what templates print.
func noControl(r rune) rune {
	if unicode.IsControl(r) && r != '\n' && r != '\t' {
		return unicode.ReplacementChar
	}
	return r
}

func toJSON(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// indented prints v as JSON for people.
func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	return enc.Encode(v)
}
