package export

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ward-project/ward/audit"
)

// recorded is a record of a type as it would come from the log.
func recorded(typ audit.Type, run string, data any) *Event {
	d, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	leaf := fmt.Appendf(nil, `{"v":1,"type":%s,"time":"2026-11-28T03:04:05.123456789Z","host":"h1","run":%s,"actor":{},"data":%s}`, quote(string(typ)), quote(run), d)
	return newEvent("ward/h1/0123456789abcdef", audit.Committed{Hash: tlog.RecordHash(leaf), TreeSize: 1 << 40, Entry: audit.Entry{
		Index: 1<<40 - 1, Type: typ, Time: time.Date(2026, 11, 28, 3, 4, 5, 123456789, time.UTC), Boot: "b", Host: "h1", Run: run,
		Actor: audit.Actor{UID: 1000, LoginUID: 4294967295, PID: 4711, Exe: "/usr/bin/ward", TTY: "pts/1"}, Data: d, Leaf: leaf,
	}})
}

// everyType is one event of each type that has a class, and of some without,
// bare and with all the fields there are.
func everyType() []*Event {
	types := []audit.Type{audit.RunDenied, audit.ExecDenied, audit.UpdateDenied, audit.CopyDenied, audit.ImagePullDenied, "future.kind"}
	for t := range ocsfClasses {
		types = append(types, t)
	}
	slices.Sort(types)
	var all []*Event
	for _, t := range types {
		all = append(all, recorded(t, "", map[string]any{}), recorded(t, strings.Repeat("ab", 32), map[string]any{
			"container": "c1", "name": "web", "exec": "e1", "image": audit.Image{Reference: "r.example/a:1", Digest: testDigest}, "point": "run", "stage": "decide",
			"class": "denied", "rule": "policy.caps", "cause": "no", "remedy": "do", "outcome": "deny", "pid": 17, "code": 137, "signal": 9, "oom": true,
			"error": "broke", "duration_ms": 1500, "decision": map[string]any{"answer": map[string]any{}},
		}), recorded(t, "r1", nil))
	}
	return all
}

func schemaOf(t testing.TB, path string) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parsed(t testing.TB, b []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// Every event is valid in the class it says it has: required attributes, closed
// lists, nothing the class does not have.
func TestOCSFValidates(t *testing.T) {
	s := schemaOf(t, "testdata/ocsf.schema.json")
	classes := map[int]bool{}
	for _, e := range everyType() {
		for _, record := range []bool{true, false} {
			b := ocsf(e, record)
			if err := s.Validate(parsed(t, b)); err != nil {
				t.Errorf("%s: %v\n%s", e.Type, err, b)
			}
			classes[e.ocsfClass().class] = true
		}
	}
	if len(classes) != 7 {
		t.Errorf("classes tried: %v", classes)
	}
	bad := bytes.Replace(ocsf(everyType()[0], true), []byte(`"severity_id":`), []byte(`"severity":`), 1)
	if s.Validate(parsed(t, bad)) == nil {
		t.Error("the schema takes anything")
	}
}

// Every event is a CloudEvent by the specification's own schema, alone and in
// a batch, and its extensions have names that the specification allows.
func TestCloudEventsValidate(t *testing.T) {
	s := schemaOf(t, "testdata/cloudevents.schema.json")
	for _, e := range everyType() {
		for _, record := range []bool{true, false} {
			v := parsed(t, cloudEvent(e, record))
			if err := s.Validate(v); err != nil {
				t.Errorf("%s: %v", e.Type, err)
			}
			for k := range v.(map[string]any) {
				if len(k) > 20 || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789") != "" && k != "data_base64" {
					t.Errorf("attribute %q", k)
				}
			}
		}
	}
	broken := recorded("x", "", nil)
	broken.Leaf = []byte("{\"a\":\"\xff\"}")
	v := parsed(t, cloudEvent(broken, true)).(map[string]any)
	if err := s.Validate(v); err != nil || v["data_base64"] != "eyJhIjoi/yJ9" {
		t.Errorf("%v %v", err, v)
	}
	var batch []any
	if err := json.Unmarshal(array([]message{{body: cloudEvent(broken, true)}, {body: cloudEvent(broken, false)}}), &batch); err != nil || len(batch) != 2 {
		t.Error(err)
	}
}

// Every field is one of the schema's, of its type; lists are closed where the
// schema's are. Fields below "ward" are ward's own.
func TestECSFields(t *testing.T) {
	b, err := os.ReadFile("testdata/ecs_fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]string{}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		known[f[0]] = f[1:]
	}
	lists := map[string][]string{
		"event.kind":     {"alert", "event"},
		"event.outcome":  {"failure", "success", "unknown"},
		"event.category": {"configuration", "database", "package", "process"},
		"event.type":     {"allowed", "change", "creation", "deletion", "denied", "end", "info", "start"},
	}
	seen := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, v := range m {
				if path+k != "ward" {
					walk(strings.TrimPrefix(path+"."+k, "."), v)
				}
			}
			return
		}
		def, ok := known[path]
		if !ok {
			t.Errorf("no field %s in the schema", path)
			return
		}
		seen[path] = true
		values, isList := v.([]any)
		if !isList {
			values = []any{v}
		}
		if isList != (len(def) > 1) {
			t.Errorf("%s is %v", path, v)
		}
		for _, v := range values {
			if _, number := v.(json.Number); number != (def[0] == "long") {
				t.Errorf("%s of type %s is %T", path, def[0], v)
			}
			if l := lists[path]; l != nil && !slices.Contains(l, v.(string)) {
				t.Errorf("%s is %v", path, v)
			}
		}
	}
	for _, e := range everyType() {
		walk("", parsed(t, ecs(e, true)))
	}
	for f := range known {
		if !seen[f] {
			t.Errorf("%s was never written", f)
		}
	}
}

// parseCEF reads a line as the format's description says: seven fields behind
// unescaped pipes, then key=value with values up to the next key.
func parseCEF(t testing.TB, line string) (head []string, ext map[string]string) {
	t.Helper()
	rest, ok := strings.CutPrefix(line, "CEF:0|")
	if !ok {
		t.Fatalf("not CEF: %.200q", line)
	}
	var field strings.Builder
	i := 0
	for ; i < len(rest) && len(head) < 6; i++ {
		switch {
		case rest[i] == '\\':
			if i++; rest[i] != '\\' && rest[i] != '|' {
				t.Fatalf("escape in a header: %.200q", rest)
			}
			field.WriteByte(rest[i])
		case rest[i] == '|':
			head = append(head, field.String())
			field.Reset()
		default:
			field.WriteByte(rest[i])
		}
	}
	ext = map[string]string{}
	// A key begins the extension, or follows a space, and ends in an
	// unescaped "=".
	rest = rest[i:]
	var eq []int
	for i := 0; i < len(rest); i++ {
		if rest[i] == '\\' {
			i++
		} else if rest[i] == '=' {
			eq = append(eq, i)
		}
	}
	start := func(n int) int { return strings.LastIndexByte(rest[:eq[n]], ' ') + 1 }
	for n := range eq {
		end := len(rest)
		if n+1 < len(eq) {
			end = start(n+1) - 1
		}
		k := rest[start(n):eq[n]]
		if strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" || k == "" {
			t.Fatalf("key %q", k)
		}
		if _, again := ext[k]; again {
			t.Fatalf("key %q twice in %.300q", k, line)
		}
		ext[k] = strings.NewReplacer(`\\`, `\`, `\=`, `=`).Replace(rest[eq[n]+1 : end])
	}
	return head, ext
}

func TestCEFParses(t *testing.T) {
	for _, e := range everyType() {
		head, ext := parseCEF(t, string(cef(e, true)))
		if len(head) != 6 || head[0] != "ward" || head[3] != string(e.Type) || ext["externalId"] != e.ID || ext["cs5"] != e.LeafHash || ext["cs5Label"] != "leafHash" {
			t.Fatal(head, ext)
		}
		if n, err := strconv.Atoi(head[5]); err != nil || n < 0 || n > 10 {
			t.Fatal(head)
		}
		if ext["msg"] != string(e.Leaf) {
			t.Fatalf("%q\n%q", ext["msg"], e.Leaf)
		}
	}
	e := recorded(audit.RunDenied, "r", audit.Denied{Rule: "a=b|c", Cause: "x\\ y=z act=allow\nCEF:0|", Name: "\\"})
	if _, ext := parseCEF(t, string(cef(e, false))); ext["cs4"] != "a=b|c" || ext["act"] != "deny" || ext["reason"] != "x\\ y=z act=allow CEF:0|" || ext["flexString1"] != "\\" {
		t.Fatal(ext)
	}
}

func TestDecisions(t *testing.T) {
	for _, tt := range []struct {
		typ  audit.Type
		data any
		want string
	}{
		{audit.RunIntent, audit.Intent{}, "allow"}, {audit.OCIIntent, nil, "allow"}, {audit.RunDenied, audit.Denied{}, "deny"}, {audit.CopyDenied, nil, "deny"},
		{audit.ImagePullDenied, nil, "deny"}, {audit.RunDeniedSyscalls, nil, ""}, {audit.RunStart, audit.Start{}, ""}, {audit.ImageFetch, nil, ""},
		{audit.ImageFetch, map[string]any{"decision": map[string]any{}}, "allow"}, {audit.GateDecision, audit.Verdict{Outcome: "indeterminate"}, "indeterminate"},
		{audit.RunDenied, map[string]any{"decision": map[string]any{"allow": true}}, "deny"},
	} {
		if got := recorded(tt.typ, "", tt.data).Decision; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.typ, got, tt.want)
		}
	}
}

// Whatever stands in a record: each format writes one line of valid text with
// nothing in it that ends a line or drives a terminal, and each frame holds
// its message and nothing else.
func FuzzFormats(f *testing.F) {
	f.Add("run.denied", "web", "h1", "cause\n\r\x00\x1b[2J\u2028\u0085", "rule|=\\]\"", []byte(`{"a":1}`))
	f.Add("\xff\n<13>1", "\xed\xa0\x80", "a b\tc", "]", `\`, []byte("\xff\n"))
	f.Add("x", "", "", "", "", []byte(`{"a":"`+"\u2028\u009b"+`"}`))
	f.Fuzz(func(t *testing.T, typ, name, host, cause, rule string, leaf []byte) {
		data, err := json.Marshal(map[string]any{"name": name, "cause": cause, "rule": rule, "image": map[string]string{"reference": name, "digest": cause}, "error": rule})
		if err != nil {
			t.Skip()
		}
		ev := newEvent("ward/h/0", audit.Committed{Entry: audit.Entry{Type: audit.Type(typ), Run: name, Host: host, Plan: cause, Boot: rule,
			Actor: audit.Actor{Exe: name, TTY: host}, Data: data, Leaf: leaf, Time: time.Unix(1, 2)}, Hash: tlog.RecordHash(leaf)})
		for _, fm := range formats {
			for _, record := range []bool{true, false} {
				m := fm.form(ev, record, 0)
				if !utf8.Valid(m.body) || bytes.ContainsFunc(m.body, control) || len(m.body) == 0 {
					t.Fatalf("%s: %q", fm.Name, m.body)
				}
				if fm.text {
					if head, ext := parseCEF(t, string(m.body)); len(head) != 6 || ext["externalId"] != ev.ID {
						t.Fatalf("%q", m.body)
					}
				} else if !json.Valid(m.body) {
					t.Fatalf("%s: %q", fm.Name, m.body)
				}
				frame := syslogMessage(m)
				if !utf8.Valid(frame) || bytes.ContainsFunc(frame, control) || !bytes.HasSuffix(frame, append([]byte("] "), m.body...)) {
					t.Fatalf("%q", frame)
				}
				checkSyslog(t, string(frame), ev)
				checkJournal(t, journalEntry(m), m)
				o := Options{Format: fm, Index: "i"}
				for _, body := range [][]byte{hecBody(o, []message{m}), lokiBody(o, []message{m}), otlpBody(o, []message{m}), elasticBody(o, []message{m})} {
					for l := range bytes.Lines(body) {
						if l = bytes.TrimSuffix(l, []byte("\n")); !json.Valid(l) && !fm.text || bytes.ContainsFunc(l, control) {
							t.Fatalf("%s: %q", fm.Name, l)
						}
					}
				}
			}
		}
	})
}

// checkSyslog reads header and structured data as RFC 5424 says.
func checkSyslog(t testing.TB, s string, e *Event) {
	t.Helper()
	f := strings.SplitN(s, " ", 7)
	if len(f) != 7 || !strings.HasPrefix(f[0], "<1") || !strings.HasSuffix(f[0], ">1") || f[3] != "ward" || len(f[5]) > 32 {
		t.Fatalf("%.300q", s)
	}
	for _, name := range f[1:6] {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' }) {
			t.Fatalf("%.300q", s)
		}
	}
	rest, ok := strings.CutPrefix(f[6], "[ward@32473")
	params := 0
	for ok && strings.HasPrefix(rest, " ") {
		_, after, found := strings.Cut(rest, `="`)
		i := 0
		for ; found && i < len(after) && after[i] != '"'; i++ {
			if after[i] == '\\' {
				i++
			} else if after[i] == ']' {
				t.Fatalf("%.300q", s)
			}
		}
		if !found || i >= len(after) {
			t.Fatalf("%.300q", s)
		}
		rest, params = after[i+1:], params+1
	}
	if !ok || params < 2 || !strings.HasPrefix(rest, "] ") {
		t.Fatalf("%.300q", s)
	}
}

// checkJournal reads fields by their lengths, to the last byte.
func checkJournal(t testing.TB, b []byte, m message) {
	t.Helper()
	got := map[string]string{}
	for len(b) > 0 {
		name, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok || len(rest) < 9 || strings.Trim(string(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
			t.Fatalf("%.200q", b)
		}
		n := binary.LittleEndian.Uint64(rest)
		if rest = rest[8:]; n >= uint64(len(rest)) || rest[n] != '\n' {
			t.Fatalf("%.200q", b)
		}
		got[string(name)], b = string(rest[:n]), rest[n+1:]
	}
	if got["MESSAGE"] != string(m.body) || got["WARD_ID"] != m.ID || got["SYSLOG_IDENTIFIER"] != "ward" {
		t.Fatal(got)
	}
}
