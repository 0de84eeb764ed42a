package export

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ward-project/ward/audit"
)

// Event is a record as the formats see it: what most receivers want to search
// for, taken out of the record's data.
type Event struct {
	audit.Committed
	// ID is the same whenever and wherever the record is exported:
	// "ward:ORIGIN/INDEX".
	ID, Origin string
	// LeafHash is the record's RFC 6962 leaf hash, in hex.
	LeafHash string
	// Decision is allow, deny, invalid or indeterminate; empty where nothing
	// was decided.
	Decision string
	detail
}

// detail is what records of several types have in their data, by its name.
type detail struct {
	Container  string          `json:"container"`
	Name       string          `json:"name"`
	Exec       string          `json:"exec"`
	Image      audit.Image     `json:"image"`
	Reference  string          `json:"reference"`
	Digest     string          `json:"digest"`
	Point      string          `json:"point"`
	Stage      string          `json:"stage"`
	Class      string          `json:"class"`
	Rule       string          `json:"rule"`
	Cause      string          `json:"cause"`
	Remedy     string          `json:"remedy"`
	Outcome    string          `json:"outcome"`
	PID        int             `json:"pid"`
	Code       *int            `json:"code"`
	Signal     int             `json:"signal"`
	OOM        bool            `json:"oom"`
	Error      string          `json:"error"`
	Reason     string          `json:"reason"`
	DurationMS int64           `json:"duration_ms"`
	Decided    json.RawMessage `json:"decision"`
}

// newEvent takes a record apart. Data that is not as expected, of a type yet
// to come perhaps, leaves fields empty: the record itself goes along.
func newEvent(origin string, c audit.Committed) *Event {
	e := &Event{Committed: c, Origin: origin, ID: fmt.Sprintf("ward:%s/%d", origin, c.Index), LeafHash: hex.EncodeToString(c.Hash[:])}
	if json.Unmarshal(c.Data, &e.detail) != nil {
		// One field of another type must not take the others along.
		e.detail = lenient(c.Data)
	}
	if e.Image == (audit.Image{}) {
		e.Image = audit.Image{Reference: e.Reference, Digest: e.Digest}
	}
	for _, s := range []*string{&e.Container, &e.Name, &e.Exec, &e.Image.Reference, &e.Image.Digest, &e.Point, &e.Stage, &e.Class, &e.Rule, &e.Cause, &e.Remedy, &e.Outcome, &e.Error, &e.Reason} {
		*s = clip(*s, 1024) // of all of it there is the record
	}
	e.Decision = decision(c.Type, e.Outcome, len(e.Decided) > 0)
	return e
}

// lenient reads field by field.
func lenient(data []byte) detail {
	var m map[string]json.RawMessage
	var d detail
	if json.Unmarshal(data, &m) != nil {
		return d
	}
	for k, v := range m {
		one, err := json.Marshal(map[string]json.RawMessage{k: v})
		if err != nil {
			continue
		}
		if next := d; json.Unmarshal(one, &next) == nil {
			d = next
		}
	}
	return d
}

// decision says what was decided, by the record's type alone but for the
// gate's answers, which say it themselves.
func decision(t audit.Type, outcome string, decided bool) string {
	s := string(t)
	switch {
	case t == audit.GateDecision:
		return outcome
	case strings.HasSuffix(s, ".denied"), strings.HasSuffix(s, "_denied"):
		return "deny"
	case strings.HasSuffix(s, ".intent"), decided:
		return "allow"
	}
	return ""
}

// severity is how much a record matters, as in OCSF: 1 informational, 2 low,
// 3 medium, 4 high.
func (e *Event) severity() int {
	switch {
	case e.Type == audit.LogRecovered:
		return 4
	case e.Decision != "" && e.Decision != "allow", e.Type == audit.RunOOM, e.Type == audit.RunLost:
		return 3
	case e.Type == audit.RunDeniedSyscalls, e.Type == audit.TrustAdd, e.Type == audit.TrustRemove, e.Type == audit.PolicyChange:
		return 2
	}
	return 1
}

// failed says whether what the record is about did not succeed.
func (e *Event) failed() bool {
	return e.Decision != "" && e.Decision != "allow" || e.Error != "" || e.Type == audit.RunLost || e.Type == audit.RunOOM
}

// message is a short sentence for people.
func (e *Event) message() string {
	var b strings.Builder
	b.WriteString(string(e.Type))
	if e.Decision != "" && e.Decision != "allow" {
		fmt.Fprintf(&b, " %s by %s: %s", e.Decision, e.Rule, e.Cause)
	}
	if e.Name != "" {
		b.WriteString(" " + e.Name)
	}
	if e.Image.Reference != "" {
		b.WriteString(" " + e.Image.Reference)
	}
	if e.Code != nil {
		fmt.Fprintf(&b, " code %d", *e.Code)
	}
	if s := e.Error + e.Reason; s != "" {
		b.WriteString(": " + s)
	}
	return clip(b.String(), 1000)
}

// verbatim says whether the record's exact bytes can stand in a line of JSON:
// only who holds the log's key can make one that cannot.
func (e *Event) verbatim() bool {
	return utf8.Valid(e.Leaf) && !strings.ContainsFunc(string(e.Leaf), control) && json.Valid(e.Leaf)
}

// control is a character that ends a line, or drives a terminal.
func control(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029
}

// clip cuts s to about n bytes and says so.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// plain is s as one line of valid text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if control(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
