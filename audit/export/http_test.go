package export

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// endpoint is an HTTP receiver that answers as it is told to and keeps what it
// acknowledged, and what it took without saying so.
type endpoint struct {
	mu     sync.Mutex
	bodies [][]byte
	heads  []http.Header
	paths  []string
	calls  int
	answer func(call int, body []byte) (status int, head http.Header, answer string)
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls++
	status, head, answer := e.answer(e.calls, b)
	if status/100 == 2 || status == 0 {
		e.bodies, e.heads, e.paths = append(e.bodies, b), append(e.heads, r.Header), append(e.paths, r.URL.Path)
	}
	if status == 0 { // taken, and the answer lost
		panic(http.ErrAbortHandler)
	}
	for k := range head {
		w.Header().Set(k, head.Get(k))
	}
	w.WriteHeader(status)
	io.WriteString(w, answer)
}

func serve(t testing.TB, answer func(call int, body []byte) (int, http.Header, string)) (*endpoint, *httptest.Server) {
	t.Helper()
	e := &endpoint{answer: answer}
	s := httptest.NewUnstartedServer(e)
	s.Config.ErrorLog = nil
	s.Start()
	t.Cleanup(s.Close)
	return e, s
}

func always(status int, answer string) func(int, []byte) (int, http.Header, string) {
	return func(int, []byte) (int, http.Header, string) { return status, nil, answer }
}

// A receiver that is overloaded, gives up, and loses answers: nothing is
// missing, and what comes twice is the same.
func TestHTTPIsTriedAgain(t *testing.T) {
	_, dir := newLog(t, 300)
	e, s := serve(t, func(call int, _ []byte) (int, http.Header, string) {
		switch call % 5 {
		case 1:
			return 503, nil, "busy"
		case 2:
			return 0, nil, ""
		case 3:
			return 429, http.Header{"Retry-After": {"1"}}, ""
		}
		return 200, nil, ""
	})
	if err := once(t, job{Dir: dir, VKey: vkeyOf(t, dir), Name: "h", To: s.URL, Format: "jsonl", Batch: 90}); err != nil {
		t.Fatal(err)
	}
	origin, size := logSize(t, dir)
	if d := whole(t, origin, size, readNative(t, bytes.Join(e.bodies, nil))); d == 0 {
		t.Fatal("no answer was lost")
	}
}

// What would be refused again ends the export, says why, and moves nothing:
// mended, it goes on with the same record.
func TestHTTPRefusalStops(t *testing.T) {
	for name, answer := range map[string]func(int, []byte) (int, http.Header, string){
		"400": always(400, "bad \x1b[2J event"), "401": always(401, "no token"), "404": always(404, ""), "413": always(413, ""),
		"redirected": func(int, []byte) (int, http.Header, string) {
			return 307, http.Header{"Location": {"http://127.0.0.1:1/elsewhere"}}, ""
		},
	} {
		_, dir := newLog(t, 30)
		good := false
		e, s := serve(t, func(call int, b []byte) (int, http.Header, string) {
			if good || call == 1 {
				return 200, nil, ""
			}
			return answer(call, b)
		})
		j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "h", To: s.URL, Format: "jsonl", Batch: 10}
		err := once(t, j)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "records ") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", name, err)
		}
		if e.calls != 2 {
			t.Errorf("%s: asked %d times", name, e.calls)
		}
		good = true
		if err := once(t, j); err != nil {
			t.Fatal(err)
		}
		origin, size := logSize(t, dir)
		whole(t, origin, size, readNative(t, bytes.Join(e.bodies, nil)))
	}
}

// Elasticsearch answers 200 whatever became of each event.
func TestElastic(t *testing.T) {
	_, dir := newLog(t, 50)
	docs := map[string]string{}
	var order []sent
	_, s := serve(t, func(call int, body []byte) (int, http.Header, string) {
		lines := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
		var items []string
		for i := 0; i+1 < len(lines); i += 2 {
			var action struct {
				Create struct {
					Index string `json:"_index"`
					ID    string `json:"_id"`
				} `json:"create"`
			}
			var doc struct {
				Event struct{ ID string }
				Ward  struct {
					Hash string `json:"leaf_hash"`
				}
			}
			if json.Unmarshal(lines[i], &action) != nil || json.Unmarshal(lines[i+1], &doc) != nil || action.Create.ID != doc.Event.ID || action.Create.Index != "idx" {
				return 400, nil, "malformed"
			}
			status := 201
			switch _, there := docs[doc.Event.ID]; {
			case there:
				status = 409
			case call == 2 && i > 4: // overloaded in the middle
				status = 429
			default:
				docs[doc.Event.ID] = doc.Ward.Hash
				order = append(order, sent{doc.Event.ID, doc.Ward.Hash})
			}
			items = append(items, fmt.Sprintf(`{"create":{"status":%d}}`, status))
		}
		return 200, nil, `{"errors":true,"items":[` + strings.Join(items, ",") + `]}`
	})
	j := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "e", To: s.URL, Format: "ecs", Batch: 7, Options: Options{HTTPStyle: "elastic", Index: "idx"}}
	if err := once(t, j); err != nil {
		t.Fatal(err)
	}
	origin, size := logSize(t, dir)
	if d := whole(t, origin, size, order); d != 0 {
		t.Fatal(d)
	}
	for _, answer := range []string{`{"errors":true,"items":[{"create":{"status":400,"error":{"type":"mapper_parsing_exception"}}}]}`, `{"errors":false,"items":[]}`, `<html>`} {
		_, dir := newLog(t, 0)
		_, s := serve(t, always(200, answer))
		cfg, err := job{Dir: dir, VKey: vkeyOf(t, dir), Name: "e", To: s.URL, Format: "ecs", Options: Options{HTTPStyle: "elastic", Index: "idx"}}.config()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Patience = time.Millisecond
		if err := Run(t.Context(), cfg); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// Splunk's collector, Loki, CloudEvents in a batch, OpenTelemetry: where, as
// what, with which token, in which shape, and which answers are believed.
func TestHTTPStyles(t *testing.T) {
	for _, tt := range []struct {
		name, format, path, contentType, auth, good, bad string
		shape                                            string // in the body
	}{
		{"hec", "ocsf", "/services/collector/event", "application/json", "Splunk s3cret", `{"text":"Success","code":0}`, `{"text":"Invalid token","code":4}`, `"sourcetype":"ward:ocsf","event":{"class_uid"`},
		{"hec", "cef", "/services/collector/event", "application/json", "Splunk s3cret", `{"text":"Success","code":0}`, `OK`, `"event":"CEF:0|ward|`},
		{"loki", "jsonl", "/loki/api/v1/push", "application/json", "Bearer s3cret", "", "", `{"streams":[{"stream":{"job":"ward","host":"host-1.example"},"values":[["1`},
		{"ndjson", "cloudevents", "/", "application/cloudevents-batch+json", "Bearer s3cret", "", "", `[{"specversion":"1.0"`},
		{"otlp", "jsonl", "/v1/logs", "application/json", "Bearer s3cret", `{}`, `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no"}}`, `{"key":"log.record.uid","value":{"stringValue":"ward:`},
	} {
		t.Run(tt.name+" "+tt.format, func(t *testing.T) {
			_, dir := newLog(t, 20)
			e, s := serve(t, always(200, tt.good))
			j := job{Dir: dir, VKey: vkeyOf(t, dir), To: s.URL, Format: tt.format, Options: Options{HTTPStyle: tt.name, Token: "s3cret"}}
			if tt.name == "otlp" {
				j.To = "otlp+" + s.URL
			}
			if err := once(t, j); err != nil {
				t.Fatal(err)
			}
			if e.paths[0] != tt.path || e.heads[0].Get("Content-Type") != tt.contentType || e.heads[0].Get("Authorization") != tt.auth {
				t.Error(e.paths[0], e.heads[0])
			}
			if !bytes.Contains(e.bodies[0], []byte(tt.shape)) {
				t.Errorf("%.600s", e.bodies[0])
			}
			for d := json.NewDecoder(bytes.NewReader(e.bodies[0])); ; {
				var v any
				if err := d.Decode(&v); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if tt.bad == "" {
				return
			}
			e.answer = always(200, tt.bad)
			cfg, err := j.config()
			if err != nil {
				t.Fatal(err)
			}
			cfg.Patience = time.Millisecond
			if err := Run(t.Context(), cfg); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", tt.bad, err)
			}
		})
	}
}

// Who answers must be who was meant, and what goes over a network is
// encrypted: there is no way to say otherwise.
func TestReceiversAreVerified(t *testing.T) {
	_, dir := newLog(t, 3)
	e := &endpoint{answer: always(200, "")}
	s := httptest.NewTLSServer(e)
	defer s.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	good := job{Dir: dir, VKey: vkeyOf(t, dir), To: s.URL, Format: "jsonl", Options: Options{CA: ca}}
	if err := once(t, good); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		to, ca string
		want   error
	}{
		"unknown authority": {s.URL, "", ErrRefused}, "another name": {"https://localhost:" + port, ca, ErrRefused},
		"syslog, unknown authority": {"syslog+tls://127.0.0.1:" + port, "", ErrRefused}, "otlp, unknown authority": {"otlp+" + s.URL, "", ErrRefused},
		"no such file": {s.URL, ca + "x", ErrConfig}, "no certificate": {s.URL, "/dev/null", ErrConfig},
		"clear text": {"http://192.0.2.1/", ca, ErrConfig}, "clear text, by name": {"http://siem.example/", ca, ErrConfig},
		"clear syslog": {"syslog+tcp://192.0.2.1:514", ca, ErrConfig}, "clear otlp": {"otlp+http://192.0.2.1:4318", ca, ErrConfig},
		"password": {"https://me:secret@127.0.0.1:" + port, ca, ErrConfig}, "style": {s.URL, ca, nil},
	} {
		j := good
		j.To, j.Options.CA = tt.to, tt.ca
		if err := once(t, j); !errors.Is(err, tt.want) || err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if e.calls != 2 {
		t.Errorf("%d requests arrived", e.calls)
	}
}
