package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	kyaml "sigs.k8s.io/yaml"

	"github.com/ward-project/ward/internal/fault"
)

// generic is JSON without regard to the order of members.
func generic(t testing.TB, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
	return v
}

// A container has the object that it stands in, and no other; those of a
// compose file have the file, as it is written.
func TestDocuments(t *testing.T) {
	cs := read(t, deployment)
	docs := strings.Split(deployment, "\n---\n")
	for i, text := range []string{docs[0], docs[0], docs[2]} {
		want, err := kyaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		w := generic(t, want)
		if i == 2 { // the item, not the list
			w = w.(map[string]any)["items"].([]any)[0]
		}
		if got := generic(t, cs[i].Document); !reflect.DeepEqual(got, w) {
			t.Errorf("%s: %s", cs[i].Name, cs[i].Document)
		}
	}
	const compose = "x-base: &base {labels: {on: y, 8080: a}, cap_add: [A]}\nservices:\n  one: {image: 'r/app:${TAG}', <<: *base, environment: {A: null, B: '<${TAG}>'}}\n  two: {image: b}\n"
	cs = read(t, compose, "TAG=secret")
	want, err := kyaml.YAMLToJSON([]byte(compose))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if !reflect.DeepEqual(generic(t, c.Document), generic(t, want)) {
			t.Errorf("%s\nwant %s", c.Document, want)
		}
	}
	if strings.Contains(string(cs[0].Document), "secret") {
		t.Error("the value of a variable is in the document")
	}
	// What a file itself says wins over what it merges, wherever the merge stands.
	cs = read(t, "x-b: &b {privileged: false}\nservices:\n  a: {image: x, privileged: true, <<: *b}\n")
	if !strings.Contains(string(cs[0].Document), `"a":{"image":"x","privileged":true}`) {
		t.Errorf("%s", cs[0].Document)
	}
}

// A document that cannot be had whole is an error with its line, never absent.
func TestDocumentsThatAreRefused(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: x}]}\n"
	many := "services:\n"
	for i := range 200 {
		many += fmt.Sprintf("  s%d: {image: x}\n", i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"a long text, often": {pod + "x: &x " + strings.Repeat("a", 1<<16) + "\ny: [" + strings.Repeat("*x,", 17) + "]\n", "file.yaml:6: makes the document that policies judge larger"},
		"one text":           {"services: {a: {image: x}}\nx-a: '" + strings.Repeat("<", maxDocument/5) + "'\n", "file.yaml:2: makes the document"},
		"many values":        {pod + "x: &x [" + strings.Repeat("1,", 500) + "]\ny: [" + strings.Repeat("*x,", 500) + "]\n", "stands for more than"},
		"deep":               {pod + "x: " + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "\n", "file.yaml:5: is nested"},
		"a circle":           {pod + "x: &x [*x, *x]\n", "file.yaml:5: "},
		"a key twice":        {pod + "x: {a: 1, a: 2}\n", `file.yaml:5: "a" stands twice`},
		"a key in two forms": {pod + "x: {on: 1, 'true': 2}\n", `file.yaml:5: the key "true" stands twice`},
		"a key of nothing":   {pod + "x: {~: 1}\n", "file.yaml:5: a key is"},
		"infinity":           {pod + "x: .inf\n", "file.yaml:5: has no form"},
		"bytes":              {pod + "x: !!binary aGk=\n", "file.yaml:5: "},
		"all together":       {many + "x-a: '" + strings.Repeat("a", 500_000) + "'\n", "split the file"},
	} {
		cs, err := Read("file.yaml", []byte(c.text), options())
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.ClassOf(err) != fault.Invalid || cs != nil {
			t.Errorf("%s: %d containers, %v", name, len(cs), err)
		}
	}
	// What no container stands in is nobody's document.
	if cs, err := Read("file.yaml", []byte(pod+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {a: 1, a: 2}\n"), options()); err != nil || len(cs) != 1 {
		t.Errorf("%d containers, %v", len(cs), err)
	}
}

// sameValue compares what a text is here with what it is to conftest's reader,
// wherever both have something to say.
func sameValue(t *testing.T, text string) {
	t.Helper()
	var n yaml.Node
	if yaml.Unmarshal([]byte(text), &n) != nil || len(n.Content) != 1 {
		return
	}
	want, err := kyaml.YAMLToJSON([]byte(text))
	if err != nil {
		return
	}
	r := &reader{file: "f"}
	got, err := r.document(n.Content[0])
	if err != nil {
		return // refused, which the file is then
	}
	if !reflect.DeepEqual(generic(t, got), generic(t, want)) {
		t.Errorf("%q is %s, to others %s", text, got, want)
	}
}

var scalars = strings.Fields(`y Y yes yEs NO off On true TRUE tRue ~ null nUll 0 -0 +1 007 0644 08 0o17 0x1F -0x1 0b101 -0b1 1_000 _1 1__0 1. .5 -.5 +.5 1e3 1E-3 1e999 .1e999
	0x1p4 .0x1 .inf -.Inf +.INF .nan 18446744073709551615 18446744073709551616 -9223372036854775809 9007199254740993 1:30 190:20:30 2001-01-01 2001-12-14t21:59:43.10-05:00
	1.2.3 - + . .. 0x 0b 0b+1 -0b+1 0_ 1e70 "yes" 'no' !!str!yes a<b> é "\u2028" "\0" =`)

func TestScalarsAreThoseOfOthers(t *testing.T) {
	for _, s := range append(scalars, "", "!!str yes", "!!int '7'", "!!int 0x7", "!!float 3", "!!bool 'yes'", "!!null ''", "!!timestamp 2001-01-01", "!local yes", "|\n  yes\n", ">\n  1\n") {
		sameValue(t, "a: "+s+"\n")
		sameValue(t, s+": a\n")
	}
	// The comparison is no comparison if everything is refused.
	for s, want := range map[string]string{"0644": "420", "yes": "true", "'yes'": `"yes"`, "1_000": "1000", "2001-01-01": `"2001-01-01"`, "1.50": "1.5", "1:30": `"1:30"`} {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(s), &n); err != nil {
			t.Fatal(err)
		}
		if got, err := (&reader{}).document(n.Content[0]); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v", s, got, err)
		}
	}
}

func FuzzDocument(f *testing.F) {
	for _, s := range scalars {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Merges differ on purpose; of "!" alone, which makes a text of anything,
		// the parser does not tell.
		if strings.ContainsAny(s, "&*<!\n\r\u0085\u2028\u2029") || len(s) > 200 {
			return
		}
		sameValue(t, "a: "+s+"\n")
		sameValue(t, s+": a\n")
	})
}
