package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzGateLine holds that a question that is understood is the one that any
// other reader of its JSON would see, and the only one.
func FuzzGateLine(f *testing.F) {
	for _, s := range []string{
		`{"image":"a"}`, `{"image":"a","id":"b"}`, `{"image":"a","image":"b"}`, `{"IMAGE":"a"}`, `{"image":"\u0061"}`, `{"image":"a","id":null}`,
		`{"image":{"image":"a"}}`, `{"image":"a"}{"image":"b"}`, `{"image":"a",}`, `{"image":"a"`, `{}`, `{{{{`, "{\"image\":\"\xff\"}", "plain:1", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		id, q, err := gateFlags{}.lineQuestion(line)
		if err != nil {
			return
		}
		if !strings.HasPrefix(string(line), "{") {
			if q.Image != string(line) || id != "" {
				t.Fatalf("%q was read as %q", line, q.Image)
			}
			return
		}
		var o map[string]string
		if err := json.Unmarshal(line, &o); err != nil || o["image"] != q.Image || o["id"] != id {
			t.Fatalf("%q was read as %q %q: %v", line, q.Image, id, err)
		}
	})
}
