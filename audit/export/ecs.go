package export

import (
	"strconv"
	"strings"

	"github.com/ward-project/ward/audit"
)

// ecsVersion is the version of the Elastic Common Schema that events are
// written in.
const ecsVersion = "8.11.0"

// ecs writes e in the Elastic Common Schema, with field sets as objects.
func ecs(e *Event, whole bool) []byte {
	category, typ := e.ecsKind()
	kind := "event"
	if e.severity() >= 3 {
		kind = "alert"
	}
	outcome := "success"
	switch {
	case e.Decision == "indeterminate":
		outcome = "unknown"
	case e.failed():
		outcome = "failure"
	}
	ev := (&object{}).str("kind", kind).raw("category", list(quote(category))).raw("type", list(quote(typ))).str("action", string(e.Type)).str("outcome", outcome).
		str("id", e.ID).num("sequence", e.Index).str("provider", "ward").str("module", "ward").str("dataset", "ward.audit").str("code", e.Rule).str("reason", e.Cause).
		num("severity", int64(e.severity()))
	if e.DurationMS > 0 {
		ev.num("duration", min(e.DurationMS, 1<<40)*1e6)
	}
	ward := (&object{}).str("origin", e.Origin).num("index", e.Index).str("leaf_hash", e.LeafHash).num("tree_size", e.TreeSize).str("run", e.Run).str("plan", e.Plan).
		str("decision", e.Decision).str("class", e.Class).str("stage", e.Stage).str("remedy", e.Remedy).num("loginuid", int64(e.Actor.LoginUID))
	switch {
	case !whole:
		ward.num("record_bytes", int64(len(e.Leaf)))
	case e.verbatim():
		ev.str("original", string(e.Leaf))
	default:
		ward.raw("record_base64", base64JSON(e.Leaf))
	}
	o := (&object{}).str("@timestamp", e.Time.UTC().Format(timeNano)).str("message", e.message()).
		obj("ecs", (&object{}).str("version", ecsVersion)).obj("event", ev).
		obj("host", (&object{}).str("hostname", e.host()).str("name", e.host()).obj("boot", (&object{}).str("id", e.Boot))).
		obj("user", (&object{}).str("id", decimal(int64(e.Actor.UID)))).
		obj("process", e.ecsProcess())
	if c := e.ocsfContainer(); len(c.b) > 0 || e.Image != (audit.Image{}) {
		img := (&object{}).str("name", e.Image.Reference).obj("hash", (&object{}).strs("all", e.Image.Digest))
		o.obj("container", (&object{}).str("id", e.container()).str("name", e.Name).str("runtime", "ward").obj("image", img))
	}
	if e.Rule != "" {
		o.obj("rule", (&object{}).str("id", e.Rule).str("name", e.Rule).str("category", e.Class))
	}
	return o.obj("ward", ward).done()
}

// ecsProcess is who asked, and for what runs in a container that process.
func (e *Event) ecsProcess() *object {
	asked := (&object{}).num("pid", int64(e.Actor.PID)).str("executable", e.Actor.Exe).str("name", base(e.Actor.Exe))
	switch e.Type {
	case audit.RunStart, audit.ExecStart, audit.RunExit, audit.ExecExit:
		p := (&object{}).str("entity_id", orElse(e.Exec, e.Run))
		if e.PID > 0 {
			p.num("pid", int64(e.PID))
		}
		if e.Code != nil {
			p.num("exit_code", int64(*e.Code))
		}
		return p.obj("parent", asked)
	}
	return asked
}

// ecsKind is the event's category and type, of the schema's closed lists.
func (e *Event) ecsKind() (category, typ string) {
	area, verb, _ := strings.Cut(string(e.Type), ".")
	typ = "info"
	switch {
	case e.Decision != "" && e.Decision != "allow":
		typ = "denied"
	case e.Decision == "allow":
		typ = "allowed"
	case verb == "start":
		typ = "start"
	case verb == "exit" || verb == "stop" || verb == "lost" || verb == "seal":
		typ = "end"
	case verb == "create" || verb == "add" || verb == "pull" || verb == "import" || verb == "generate" || verb == "genesis":
		typ = "creation"
	case verb == "remove":
		typ = "deletion"
	case verb == "rename" || verb == "update" || verb == "change" || verb == "tag" || verb == "sign":
		typ = "change"
	}
	switch area {
	case "trust", "key", "policy":
		return "configuration", typ
	case "image", "gate":
		return "package", typ
	case "log":
		return "database", typ
	}
	return "process", typ
}

// host is where it was recorded; never empty, as some schemas need one.
func (e *Event) host() string { return orElse(e.Host, "unknown") }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// base is the last element of a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
