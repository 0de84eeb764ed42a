package policy_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ward-project/ward/policy"
)

const schemaFile = "../docs/schema/policy-input-v1.json"

func schemaOf(t testing.TB) (map[string]any, *jsonschema.Schema) {
	t.Helper()
	b, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("input.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("input.json")
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any), s
}

// TestSchemaIsTheStruct: the published schema has exactly the struct's members,
// all required, nothing besides, and each of the struct's type.
func TestSchemaIsTheStruct(t *testing.T) {
	doc, _ := schemaOf(t)
	same(t, "input", doc, reflect.TypeFor[policy.Input]())
}

func same(t *testing.T, at string, s map[string]any, typ reflect.Type) {
	t.Helper()
	if at == "input.evidence" || at == "input.version" || at == "input.point" || at == "input.document" {
		return // another package's; constants; anything
	}
	if d, _ := s["description"].(string); d == "" && at != "input" && !strings.HasSuffix(at, "[]") && !strings.HasSuffix(at, "{}") {
		t.Errorf("%s has no description", at)
	}
	want := map[reflect.Kind]string{
		reflect.Struct: "object", reflect.Map: "object", reflect.Slice: "array", reflect.String: "string", reflect.Bool: "boolean",
		reflect.Int: "integer", reflect.Int64: "integer", reflect.Uint32: "integer", reflect.Uint64: "integer", reflect.Float64: "number",
	}[typ.Kind()]
	if typ == reflect.TypeFor[time.Time]() {
		want = "string"
	}
	if _, enum := s["enum"]; !enum && s["type"] != want {
		t.Errorf("%s: schema says %v, struct %v", at, s["type"], typ)
	}
	switch {
	case want == "array":
		same(t, at+"[]", s["items"].(map[string]any), typ.Elem())
	case typ.Kind() == reflect.Map:
		same(t, at+"{}", s["additionalProperties"].(map[string]any), typ.Elem())
	case want == "object":
		var members []string
		props, _ := s["properties"].(map[string]any)
		for f := range typ.Fields() {
			name := f.Tag.Get("json")
			if name == "-" {
				continue
			}
			members = append(members, name)
			p, ok := props[name].(map[string]any)
			if !ok {
				t.Errorf("%s.%s is not in the schema", at, name)
				continue
			}
			same(t, at+"."+name, p, f.Type)
		}
		slices.Sort(members)
		if got := slices.Sorted(maps.Keys(props)); !slices.Equal(got, members) {
			t.Errorf("%s: schema has %v, struct %v", at, got, members)
		}
		var required []string
		for _, r := range s["required"].([]any) {
			required = append(required, r.(string))
		}
		if slices.Sort(required); !slices.Equal(required, members) || s["additionalProperties"] != false {
			t.Errorf("%s: required %v, additional %v", at, required, s["additionalProperties"])
		}
	}
}

// What is decided about is what the schema describes.
func TestInputsAreValid(t *testing.T) {
	_, schema := schemaOf(t)
	e := open(t)
	for name, in := range map[string]policy.Input{
		"good":    good(),
		"minimal": {Point: "run", Now: time.Unix(1, 0)},
		"full": with(func(in *policy.Input) {
			in.Run.Mounts = []policy.Mount{bind("/srv", true)}
			in.Run.User = policy.User{UID: 1, GID: 2, Groups: []uint32{3}}
			in.Run.Labels = map[string]string{"a": "b"}
			in.Image.Labels = map[string]string{"a": "b"}
			in.Actor = policy.Actor{UID: 1, LoginUID: 4294967295, PID: 3, Exe: "/x", TTY: "pts/0"}
			in.Host = policy.ThisHost()
		}),
	} {
		d := decide(t, e, in)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.Input()))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v\n%s", name, err, d.Input())
		}
	}
}

// The schema can fail: it refuses what an input is not.
func TestSchemaRefuses(t *testing.T) {
	_, schema := schemaOf(t)
	for _, change := range []func(m map[string]any){
		func(m map[string]any) { delete(m, "actor") },
		func(m map[string]any) { m["version"] = 2 },
		func(m map[string]any) { m["more"] = true },
		func(m map[string]any) { m["now"] = "today" },
		func(m map[string]any) { m["evidence"] = "yes" },
		func(m map[string]any) { m["run"].(map[string]any)["mounts"] = nil },
		func(m map[string]any) { m["run"].(map[string]any)["limits"].(map[string]any)["memory"] = "512m" },
	} {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(decide(t, open(t), good()).Input()))
		if err != nil {
			t.Fatal(err)
		}
		change(v.(map[string]any))
		if schema.Validate(v) == nil {
			t.Errorf("accepted %v", v)
		}
	}
}

// OPA's own tools take the schema too: opa check --schema.
func TestSchemaWithOPA(t *testing.T) {
	doc, _ := schemaOf(t)
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var raw any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{`input.run.network == "host"`: true, `input.run.netwrk == "host"`: false} {
		set := ast.NewSchemaSet()
		set.Put(ast.SchemaRootRef, raw)
		c := ast.NewCompiler().WithSchemas(set)
		c.Compile(map[string]*ast.Module{"a.rego": ast.MustParseModule("package a\n\nx if " + text)})
		if c.Failed() == ok {
			t.Errorf("%s: %v", text, c.Errors)
		}
	}
}
