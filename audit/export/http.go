package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func init() {
	schemes["http"], schemes["https"] = httpBatch, httpBatch
	schemes["otlp+http"], schemes["otlp+https"] = httpBatch, httpBatch
}

// httpStyle is how a collector wants its events, and how it says that it has
// them.
type httpStyle struct {
	path        string // if the URL has none
	contentType string
	auth        string // before a token
	body        func(o Options, ms []message) []byte
	// accepted looks into an answer of 2xx; nil believes it.
	accepted func(body []byte, ms []message) error
}

var httpStyles = map[string]httpStyle{
	"ndjson":  {"/", "application/x-ndjson", "Bearer ", func(_ Options, ms []message) []byte { return lines(ms) }, nil},
	"hec":     {"/services/collector/event", "application/json", "Splunk ", hecBody, hecAccepted},
	"elastic": {"/_bulk", "application/x-ndjson", "ApiKey ", elasticBody, elasticAccepted},
	"loki":    {"/loki/api/v1/push", "application/json", "Bearer ", lokiBody, nil},
	"otlp":    {"/v1/logs", "application/json", "Bearer ", otlpBody, otlpAccepted},
}

type httpSink struct {
	client *http.Client
	url    string
	style  httpStyle
	o      Options
}

const (
	httpPatience = 30 * time.Second
	// maxAnswer is how much of an answer is read: a bulk request of the largest
	// batch has one line for each event.
	maxAnswer = 8 << 20
)

func httpBatch(d *Destination, u *url.URL, o Options) error {
	scheme, isOTLP := strings.CutPrefix(u.Scheme, "otlp+")
	name := o.HTTPStyle
	if isOTLP {
		name = "otlp"
	}
	if name == "" {
		name = "ndjson"
	}
	style, ok := httpStyles[name]
	if !ok {
		return fmt.Errorf("%w: no HTTP style %.32q; there are %s", ErrConfig, name, strings.Join(slices.Sorted(maps.Keys(httpStyles)), ", "))
	}
	if name == "elastic" && o.Format.text {
		return fmt.Errorf("%w: Elasticsearch takes JSON: use format ecs", ErrConfig)
	}
	if name == "ndjson" && o.Format.Name == "cloudevents" {
		style.contentType, style.body = "application/cloudevents-batch+json", func(_ Options, ms []message) []byte { return array(ms) }
	}
	if name == "ndjson" && o.Format.text {
		style.contentType = o.Format.ContentType
	}
	if u.Host == "" {
		return fmt.Errorf("%w: %.200q names no host", ErrConfig, d.Name)
	}
	to := *u
	to.Scheme = scheme
	if to.Path == "" || to.Path == "/" {
		to.Path = style.path
	}
	client, err := httpClient(&to, o)
	if err != nil {
		return err
	}
	d.open = func(json.RawMessage) (sink, error) {
		return &httpSink{client: client, url: to.String(), style: style, o: o}, nil
	}
	return nil
}

// httpClient verifies, follows no redirection (it would take the records and
// the token elsewhere), and speaks without TLS to this host alone.
func httpClient(u *url.URL, o Options) (*http.Client, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 2, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: httpPatience, MaxResponseHeaderBytes: 64 << 10}
	if u.Scheme == "https" {
		c, err := o.clientTLS("")
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig, t.ForceAttemptHTTP2 = c, true
	} else {
		if err := clearOnly(u); err != nil {
			return nil, err
		}
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				err = onLoopback(c)
			}
			return c, err
		}
	}
	return &http.Client{Transport: t, Timeout: httpPatience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

func (s *httpSink) send(ctx context.Context, ms []message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(s.style.body(s.o, ms)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", s.style.contentType)
	req.Header.Set("User-Agent", "ward")
	if t := s.o.Token; t != "" {
		if !strings.Contains(t, " ") { // else it is the whole header
			t = s.style.auth + t
		}
		req.Header.Set("Authorization", t)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // the URL is said already
		}
		if errors.Is(err, errNotLoopback) {
			return refused("%w", err)
		}
		return handshakeError(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return statusError(resp, body)
	}
	if s.style.accepted != nil {
		return s.style.accepted(body, ms)
	}
	return nil
}

// statusError says whether asking again can help.
func statusError(resp *http.Response, body []byte) error {
	err := fmt.Errorf("HTTP %d: %s", resp.StatusCode, clip(plain(strings.TrimSpace(string(body))), 300))
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if n, perr := strconv.Atoi(resp.Header.Get("Retry-After")); perr == nil && n > 0 {
			return later{err, time.Duration(min(n, 3600)) * time.Second}
		}
		return err
	}
	return refused("%w", err)
}

func (*httpSink) state() json.RawMessage { return nil }
func (s *httpSink) close() error         { s.client.CloseIdleConnections(); return nil }

// array is the events as a JSON array.
func array(ms []message) []byte {
	var items [][]byte
	for _, m := range ms {
		items = append(items, m.body)
	}
	return list(items...)
}

// value is an event as a JSON value: text as a string.
func value(o Options, m message) []byte {
	if o.Format.text {
		return quote(string(m.body))
	}
	return m.body
}

func hecBody(o Options, ms []message) []byte {
	var b bytes.Buffer
	for _, m := range ms {
		b.Write((&object{}).raw("time", fmt.Appendf(nil, "%.6f", float64(m.Time.UnixMicro())/1e6)).str("host", m.host()).str("source", "ward").
			str("sourcetype", "ward:"+o.Format.Name).raw("event", value(o, m)).
			obj("fields", (&object{}).str("ward_id", m.ID).str("ward_type", string(m.Type)).str("ward_leaf_hash", m.LeafHash)).done())
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// hecAccepted: code 0 is success. Splunk answers 200 with nothing else, but
// what stands between may not.
func hecAccepted(body []byte, _ []message) error {
	var a struct {
		Code *int   `json:"code"`
		Text string `json:"text"`
	}
	if json.Unmarshal(body, &a) != nil || a.Code == nil {
		return fmt.Errorf("the answer is not a collector's: %s", clip(plain(string(body)), 200))
	}
	if *a.Code != 0 {
		return refused("code %d: %s", *a.Code, clip(plain(a.Text), 200))
	}
	return nil
}

// elasticBody creates documents, and never replaces one: the same id again is
// a conflict, which is as good as an acknowledgement.
func elasticBody(o Options, ms []message) []byte {
	var b bytes.Buffer
	for _, m := range ms {
		b.Write((&object{}).obj("create", (&object{}).str("_index", o.Index).str("_id", m.ID)).done())
		b.WriteByte('\n')
		b.Write(m.body)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// elasticAccepted reads the answer event by event: one that fails does not
// show in the status.
func elasticAccepted(body []byte, ms []message) error {
	var a struct {
		Items []map[string]struct {
			Status int             `json:"status"`
			Error  json.RawMessage `json:"error"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &a); err != nil || len(a.Items) != len(ms) {
		return fmt.Errorf("the answer is about %d events, %d were sent (%v)", len(a.Items), len(ms), err)
	}
	var again error
	for i, item := range a.Items {
		for _, r := range item {
			switch {
			case r.Status/100 == 2, r.Status == http.StatusConflict:
			case r.Status == http.StatusTooManyRequests, r.Status/100 == 5:
				again = fmt.Errorf("%s: status %d", ms[i].ID, r.Status)
			default:
				return refused("%s: status %d: %s", ms[i].ID, r.Status, clip(plain(string(r.Error)), 300))
			}
		}
		if len(item) != 1 {
			return fmt.Errorf("the answer does not say what became of %s", ms[i].ID)
		}
	}
	return again
}

// lokiBody is one stream for each host, its lines in order. What has many
// values is structured metadata and no label.
func lokiBody(_ Options, ms []message) []byte {
	var hosts []string
	byHost := map[string][][]byte{}
	for _, m := range ms {
		h := m.host()
		if _, ok := byHost[h]; !ok {
			hosts = append(hosts, h)
		}
		meta := (&object{}).str("id", m.ID).str("type", string(m.Type)).str("run", m.Run).str("decision", m.Decision).str("rule", m.Rule).str("leaf_hash", m.LeafHash)
		byHost[h] = append(byHost[h], list(quote(decimal(m.Time.UnixNano())), quote(string(m.body)), meta.done()))
	}
	var streams [][]byte
	for _, h := range hosts {
		streams = append(streams, (&object{}).obj("stream", (&object{}).str("job", "ward").str("host", h)).raw("values", list(byHost[h]...)).done())
	}
	return (&object{}).raw("streams", list(streams...)).done()
}
