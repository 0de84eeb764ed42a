package export

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/ward-project/ward/audit"
)

// ocsfVersion is the version of the Open Cybersecurity Schema Framework that
// events are written in.
const ocsfVersion = "1.9.0"

// ocsfClass is an event class and one of its activities.
type ocsfClass struct{ category, class, activity int }

// The classes, by their numbers in the schema.
const (
	ocsfBase       = 0
	ocsfProcess    = 1007
	ocsfLog        = 1008
	ocsfFinding    = 2004
	ocsfEntity     = 3004
	ocsfLifecycle  = 6002
	ocsfAPI        = 6003
	ocsfOther      = 99
	ocsfCategories = 1000
)

// ocsfClasses says what each type of record is. A type that is not here is a
// base event: true, if less telling.
var ocsfClasses = map[audit.Type][2]int{
	audit.LogGenesis: {ocsfLog, 6}, audit.LogRecovered: {ocsfLog, ocsfOther},
	audit.RunStart: {ocsfProcess, 1}, audit.ExecStart: {ocsfProcess, 1}, audit.RunExit: {ocsfProcess, 2}, audit.ExecExit: {ocsfProcess, 2},
	// Not "process launched": it is a request that was decided about.
	audit.RunIntent: {ocsfAPI, 1}, audit.OCIIntent: {ocsfAPI, 1}, audit.ExecIntent: {ocsfAPI, 1}, audit.GateDecision: {ocsfAPI, 2},
	audit.RunOOM: {ocsfFinding, 1}, audit.RunDeniedSyscalls: {ocsfFinding, 1},
	audit.RunLost: {ocsfLifecycle, 4}, audit.RunAnchor: {ocsfLifecycle, ocsfOther}, audit.RunSeal: {ocsfLifecycle, ocsfOther},
	audit.ContainerCreate: {ocsfLifecycle, 1}, audit.ContainerRemove: {ocsfLifecycle, 2}, audit.ContainerStop: {ocsfLifecycle, 4},
	audit.ContainerUnpause: {ocsfLifecycle, 6}, audit.ContainerPause: {ocsfLifecycle, 7},
	audit.ContainerRename: {ocsfLifecycle, 8}, audit.ContainerUpdate: {ocsfLifecycle, 8}, audit.OCIUpdate: {ocsfLifecycle, 8},
	audit.ContainerSignal: {ocsfLifecycle, ocsfOther}, audit.ContainerHealth: {ocsfLifecycle, ocsfOther},
	audit.ContainerAttach: {ocsfAPI, ocsfOther}, audit.ContainerDetach: {ocsfAPI, ocsfOther},
	audit.ContainerCopy: {ocsfAPI, ocsfOther}, audit.ContainerCopied: {ocsfAPI, ocsfOther},
	audit.ImageFetch: {ocsfAPI, 2}, audit.ImagePull: {ocsfAPI, 1}, audit.ImageImport: {ocsfAPI, 1}, audit.ImageTag: {ocsfAPI, 3},
	audit.ImageSign: {ocsfAPI, 3}, audit.ImagePush: {ocsfAPI, ocsfOther}, audit.ImageRemove: {ocsfAPI, 4},
	audit.VolumeCreate: {ocsfAPI, 1}, audit.VolumeRemove: {ocsfAPI, 4},
	audit.TrustAdd: {ocsfEntity, 1}, audit.TrustRemove: {ocsfEntity, 4}, audit.KeyGenerate: {ocsfEntity, 1}, audit.PolicyChange: {ocsfEntity, 3},
}

func (e *Event) ocsfClass() ocsfClass {
	c, ok := ocsfClasses[e.Type]
	switch {
	case e.Decision != "" && e.Decision != "allow":
		c = [2]int{ocsfFinding, 1} // where people look for what was refused
	case !ok:
		c = [2]int{ocsfBase, ocsfOther}
	}
	return ocsfClass{c[0] / ocsfCategories, c[0], c[1]}
}

// ocsf writes e in the Open Cybersecurity Schema Framework.
func ocsf(e *Event, whole bool) []byte {
	c := e.ocsfClass()
	profiles := []string{"host", "container"}
	if e.Decision != "" {
		profiles = append(profiles, "security_control")
	}
	o := (&object{}).num("class_uid", int64(c.class)).num("category_uid", int64(c.category)).num("activity_id", int64(c.activity)).
		num("type_uid", int64(c.class*100+c.activity))
	if c.activity == ocsfOther {
		o.str("activity_name", string(e.Type))
	}
	o.num("time", e.Time.UnixMilli()).num("severity_id", int64(e.severity())).str("message", e.message())
	o.obj("metadata", (&object{}).str("version", ocsfVersion).
		obj("product", (&object{}).str("name", "ward").str("vendor_name", "ward")).
		str("uid", e.ID).str("original_event_uid", e.ID).str("event_code", string(e.Type)).num("sequence", e.Index).str("log_name", e.Origin).str("log_provider", "ward").
		str("original_time", e.Time.UTC().Format(timeNano)).str("correlation_uid", e.Run).strs("profiles", profiles...))
	o.obj("actor", (&object{}).obj("process", (&object{}).num("pid", int64(e.Actor.PID)).str("path", e.Actor.Exe).str("name", base(e.Actor.Exe))).
		obj("user", (&object{}).str("uid", decimal(int64(e.Actor.UID))).str("uid_alt", decimal(int64(e.Actor.LoginUID)))))
	o.obj("device", (&object{}).str("hostname", e.host()).num("type_id", 1).str("boot_uid", e.Boot).obj("container", e.ocsfContainer()))
	e.ocsfOutcome(o)
	e.ocsfOfClass(o, c)
	if e.Decision != "" {
		e.ocsfControl(o)
	}
	ward := (&object{}).str("origin", e.Origin).num("index", e.Index).str("leaf_hash", e.LeafHash).num("tree_size", e.TreeSize).str("run", e.Run).
		str("plan", e.Plan).str("decision", e.Decision).str("rule", e.Rule).str("class", e.Class).str("remedy", e.Remedy).str("exec", e.Exec).
		num("loginuid", int64(e.Actor.LoginUID))
	if whole && e.verbatim() {
		sum := sha256.Sum256(e.Leaf)
		o.str("raw_data", string(e.Leaf)).num("raw_data_size", int64(len(e.Leaf))).
			obj("raw_data_hash", (&object{}).num("algorithm_id", 3).str("value", hex.EncodeToString(sum[:])))
	} else if whole {
		ward.raw("record_base64", base64JSON(e.Leaf))
	} else {
		ward.num("record_bytes", int64(len(e.Leaf)))
	}
	return o.obj("unmapped", (&object{}).obj("ward", ward)).done()
}

// ocsfContainer needs an id, or is left out.
func (e *Event) ocsfContainer() *object {
	o := &object{}
	id := e.container()
	if id == "" {
		return o
	}
	o.str("uid", id).str("name", e.Name).str("runtime", "ward")
	if e.Image.Digest != "" {
		o.obj("image", (&object{}).str("name", e.Image.Reference).str("uid", e.Image.Digest))
	}
	return o
}

// container is the container's id: for runs, of which the first has its
// container's, the run's if the record names no other.
func (e *Event) container() string {
	if e.Container != "" {
		return e.Container
	}
	return e.Run
}

func (e *Event) ocsfOutcome(o *object) {
	switch {
	case e.failed():
		o.num("status_id", 2).str("status_code", e.Rule).str("status_detail", clip(e.Cause+e.Error, 1000))
	case e.Type == "run.denied_syscalls":
	default:
		o.num("status_id", 1)
	}
}

// ocsfOfClass adds what the class asks for.
func (e *Event) ocsfOfClass(o *object, c ocsfClass) {
	resource := (&object{}).str("name", orElse(e.Image.Reference, e.Name)).str("uid", orElse(e.Image.Digest, e.container()))
	if len(resource.b) == 0 {
		resource.str("name", string(e.Type))
	}
	switch c.class {
	case ocsfProcess:
		p := (&object{}).str("uid", orElse(e.Exec, orElse(e.Run, e.ID)))
		if e.PID > 0 {
			p.num("pid", int64(e.PID))
		}
		o.obj("process", p.obj("container", e.ocsfContainer()))
		if e.Code != nil {
			o.num("exit_code", int64(*e.Code))
		}
	case ocsfLog:
		o.str("log_name", e.Origin).str("log_provider", "ward")
	case ocsfFinding:
		o.obj("finding_info", (&object{}).str("uid", e.ID).str("title", orElse(e.Rule, string(e.Type))).str("desc", e.message()).strs("types", string(e.Type)))
		o.raw("is_alert", []byte("true")).raw("resources", list(resource.done()))
	case ocsfEntity:
		o.obj("entity", (&object{}).str("name", orElse(e.Name, string(e.Type))).str("type", strings.SplitN(string(e.Type), ".", 2)[0]))
	case ocsfLifecycle:
		o.obj("app", (&object{}).str("name", orElse(e.Name, e.Image.Reference)).str("uid", orElse(e.container(), e.ID)))
	case ocsfAPI:
		o.obj("api", (&object{}).str("operation", string(e.Type)).obj("service", (&object{}).str("name", "ward")))
		o.obj("src_endpoint", (&object{}).str("hostname", e.host())).raw("resources", list(resource.done()))
	}
}

// ocsfControl says what was decided, and by which rule.
func (e *Event) ocsfControl(o *object) {
	action, disposition := int64(2), int64(2)
	switch e.Decision {
	case "allow":
		action, disposition = 1, 1
	case "indeterminate":
		action, disposition = 2, 27 // refused, for an error
	}
	o.num("action_id", action).num("disposition_id", disposition)
	if e.Rule != "" {
		o.obj("policy", (&object{}).str("uid", e.Rule))
	}
}
