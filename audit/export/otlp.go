package export

import (
	"encoding/json"
	"fmt"
)

// otlpBody is an ExportLogsServiceRequest in OTLP's JSON encoding, in which
// 64-bit integers are strings. Attributes follow OpenTelemetry's names where
// there are any.
func otlpBody(o Options, ms []message) []byte {
	var resources [][]byte
	for i := 0; i < len(ms); {
		host := ms[i].host()
		var records [][]byte
		for ; i < len(ms) && ms[i].host() == host; i++ {
			records = append(records, otlpRecord(o, ms[i]))
		}
		resources = append(resources, (&object{}).
			raw("resource", (&object{}).raw("attributes", list(attribute("service.name", "ward"), attribute("host.name", host))).done()).
			raw("scopeLogs", list((&object{}).obj("scope", (&object{}).str("name", "ward.audit")).raw("logRecords", list(records...)).done())).done())
	}
	return (&object{}).raw("resourceLogs", list(resources...)).done()
}

func otlpRecord(_ Options, m message) []byte {
	// OCSF's 1 to 4 as INFO, INFO2, WARN, ERROR.
	number, text := []int{9, 9, 10, 13, 17}[m.severity()], []string{"INFO", "INFO", "INFO2", "WARN", "ERROR"}[m.severity()]
	var attrs [][]byte
	for _, a := range [][2]string{
		{"log.record.uid", m.ID}, {"ward.type", string(m.Type)}, {"ward.origin", m.Origin},
		{"ward.leaf_hash", m.LeafHash}, {"ward.run", m.Run}, {"ward.plan", m.Plan}, {"ward.decision", m.Decision}, {"ward.rule", m.Rule}, {"ward.class", m.Class},
		{"container.id", m.container()}, {"container.name", m.Name}, {"container.image.name", m.Image.Reference}, {"container.image.id", m.Image.Digest},
		{"user.id", decimal(int64(m.Actor.UID))},
		{"process.executable.path", m.Actor.Exe},
	} {
		if a[1] != "" {
			attrs = append(attrs, attribute(a[0], a[1]))
		}
	}
	for _, a := range []struct {
		key string
		n   int64
	}{{"ward.index", m.Index}, {"ward.tree_size", m.TreeSize}, {"ward.loginuid", int64(m.Actor.LoginUID)}, {"process.pid", int64(m.Actor.PID)}} {
		attrs = append(attrs, (&object{}).str("key", a.key).obj("value", (&object{}).str("intValue", decimal(a.n))).done())
	}
	at := decimal(m.Time.UnixNano())
	return (&object{}).str("timeUnixNano", at).str("observedTimeUnixNano", at).num("severityNumber", int64(number)).str("severityText", text).
		str("eventName", "ward."+string(m.Type)).obj("body", (&object{}).str("stringValue", string(m.body))).raw("attributes", list(attrs...)).done()
}

func attribute(key, v string) []byte {
	return (&object{}).str("key", key).obj("value", (&object{}).raw("stringValue", quote(v))).done()
}

// otlpAccepted looks for a partial success: the receiver has dropped records
// and would drop them again.
func otlpAccepted(body []byte, ms []message) error {
	var a struct {
		PartialSuccess struct {
			Rejected json.Number `json:"rejectedLogRecords"`
			Message  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("the answer is not OTLP's: %w", err)
	}
	if r := a.PartialSuccess.Rejected.String(); r != "" && r != "0" {
		return refused("%s of %d records rejected: %s", clip(r, 20), len(ms), clip(plain(a.PartialSuccess.Message), 300))
	}
	return nil
}
