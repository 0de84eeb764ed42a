package policy

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// inputTypes tells the compiler what an input looks like, so that a rule about
// input.run.netwrk is refused when the policy is opened: at run time it would
// be undefined, and a deny rule that is undefined denies nothing.
// docs/schema/policy-input-v1.json says the same and more, for people.
func inputTypes() *ast.SchemaSet {
	s := ast.NewSchemaSet()
	s.Put(ast.SchemaRootRef, typeOf(reflect.TypeFor[Input]()))
	return s
}

func typeOf(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{} // another package's; anything
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Struct:
		members := map[string]any{}
		for f := range t.Fields() {
			if name := f.Tag.Get("json"); name != "-" {
				members[name] = typeOf(f.Type)
			}
		}
		return map[string]any{"type": "object", "properties": members, "additionalProperties": false}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": typeOf(t.Elem())}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeOf(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	default: // what is left in Input is numbers, which a test asserts
		return map[string]any{"type": "number"}
	}
}
