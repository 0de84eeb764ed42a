package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
)

// Event is what happened to something, in the Docker Engine API's form
// (GET /events, API 1.52). Types beyond Docker's are "gate", "policy" and
// "audit".
type Event struct {
	Type     string     `json:"Type"`
	Action   string     `json:"Action"`
	Actor    EventActor `json:"Actor"`
	Scope    string     `json:"scope"`
	Time     int64      `json:"time"`
	TimeNano int64      `json:"timeNano"`
}

// EventActor is what an event is about.
type EventActor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"`
}

// Events calls fn for every event between since and until, oldest first, and
// then for each as it comes until until is over or ctx ends. They are read
// from the audit log: what is on record has its event, also after a restart.
func (e *Engine) Events(ctx context.Context, since, until time.Time, fn func(Event) error) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	over := errors.New("over")
	t := &timeline{runs: map[string]subject{}, stopping: map[string]bool{}, commands: map[string]string{}}
	err := audit.Follow(ctx, e.layout.Audit(), 0, func(en audit.Entry) error {
		for _, ev := range t.events(en) {
			if en.Time.After(until) {
				return over
			}
			if en.Time.Before(since) {
				continue
			}
			ev.Scope, ev.Time, ev.TimeNano = "local", en.Time.Unix(), en.Time.UnixNano()
			if err := fn(ev); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || errors.Is(err, over) {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.Unrecorded, "audit.read", err, "see ward audit verify")
}

// subject is what the records of a run do not repeat.
type subject struct {
	container, name, image string
	labels                 map[string]string
	remove, started        bool
}

// timeline turns records into events. It remembers the runs that have not
// ended, and no others.
type timeline struct {
	runs     map[string]subject
	stopping map[string]bool
	// commands are those of processes started in containers, by exec id.
	commands map[string]string
}

// details are the fields of records that events are made of.
type details struct {
	Container, Name, Previous, Health, Rule, Cause, Stage, Exec, Driver, Direction, Path string
	// Reference and Digest are an image record's, Image another's.
	Reference, Digest string
	Image             audit.Image
	Labels            map[string]string
	Args              []string
	Remove            bool
	Signal, Code      int
	DurationMS        int64 `json:"duration_ms"`
}

func (t *timeline) events(en audit.Entry) []Event {
	var d details
	if json.Unmarshal(en.Data, &d) != nil {
		d = details{} // a record of another version still has its event
	}
	kind, action, _ := strings.Cut(string(en.Type), ".")
	switch kind {
	case "run":
		return t.ofRun(en, d, action)
	case "exec":
		return t.ofExec(en, d, action)
	case "container":
		if action == "copy_denied" {
			return t.ofExec(en, d, "denied")
		}
		return t.ofContainer(d, action)
	case "update":
		return t.ofExec(en, d, "denied")
	case "volume":
		if action == "remove" {
			action = "destroy"
		}
		return one("volume", action, d.Name, map[string]string{"driver": cmp.Or(d.Driver, "local")})
	case "image":
		switch action {
		case "remove":
			action = "delete"
		case "fetch":
			return one("gate", "allow", d.Reference, map[string]string{"image": d.Reference})
		case "pull_denied":
			return one("gate", "deny", d.Image.Reference, map[string]string{"image": d.Image.Reference, "stage": d.Stage, "rule": d.Rule, "cause": d.Cause})
		}
		return one("image", action, cmp.Or(d.Digest, d.Reference), map[string]string{"name": d.Reference})
	case "log":
		return one("audit", action, strconv.FormatInt(en.Index, 10), map[string]string{})
	default:
		return one("policy", string(en.Type), d.Name, map[string]string{})
	}
}

func one(kind, action, id string, attributes map[string]string) []Event {
	return []Event{{Type: kind, Action: action, Actor: EventActor{ID: id, Attributes: attributes}}}
}

// container is an event of the container s, with attributes in pairs.
func (s subject) event(action string, pairs ...string) Event {
	a := map[string]string{}
	for k, v := range s.labels {
		a[k] = v
	}
	a["image"], a["name"] = s.image, s.name
	for i := 0; i+1 < len(pairs); i += 2 {
		a[pairs[i]] = pairs[i+1]
	}
	return one("container", action, s.container, a)[0]
}

func (t *timeline) ofRun(en audit.Entry, d details, action string) []Event {
	s, known := t.runs[en.Run]
	switch action {
	case "intent":
		s = subject{container: cmp.Or(d.Container, en.Run), name: d.Name, image: d.Image.Reference, labels: d.Labels, remove: d.Remove}
		t.runs[en.Run] = s
		out := one("gate", "allow", en.Run, map[string]string{"container": s.container, "name": s.name, "image": s.image, "digest": d.Image.Digest})
		if s.container == en.Run { // one that "create" made has its event
			out = append(out, s.event("create"))
		}
		return out
	case "denied":
		delete(t.runs, en.Run)
		return one("gate", "deny", en.Run, map[string]string{"name": d.Name, "image": d.Image.Reference, "digest": d.Image.Digest,
			"stage": d.Stage, "rule": d.Rule, "cause": d.Cause})
	case "start":
		s.started = true
		t.runs[en.Run] = s
		return []Event{s.event("start")}
	case "oom":
		return []Event{s.event("oom")}
	case "exit", "lost":
		delete(t.runs, en.Run)
		if !known || !s.started {
			return nil
		}
		if action == "lost" {
			d.Code = lostCode
		}
		out := []Event{s.event("die", "exitCode", strconv.Itoa(d.Code), "execDuration", strconv.FormatInt(d.DurationMS/1000, 10))}
		if t.stopping[s.container] {
			delete(t.stopping, s.container)
			out = append(out, s.event("stop"))
		}
		if s.remove {
			out = append(out, s.event("destroy"))
		}
		return out
	}
	return nil // anchors, seals and counts are the run's own affair
}

func (t *timeline) ofExec(en audit.Entry, d details, action string) []Event {
	s := t.runs[en.Run]
	switch action {
	case "intent":
		command := strings.Join(d.Args, " ")
		t.commands[d.Exec] = command
		return []Event{s.event("exec_create: "+command, "execID", d.Exec)}
	case "start":
		return []Event{s.event("exec_start: "+t.commands[d.Exec], "execID", d.Exec)}
	case "exit":
		delete(t.commands, d.Exec)
		return []Event{s.event("exec_die", "execID", d.Exec, "exitCode", strconv.Itoa(d.Code))}
	case "denied":
		return one("gate", "deny", en.Run, map[string]string{"name": s.name, "image": s.image, "stage": d.Stage, "rule": d.Rule, "cause": d.Cause})
	}
	return nil
}

func (t *timeline) ofContainer(d details, action string) []Event {
	s := subject{container: d.Container, name: d.Name, image: d.Image.Reference, labels: d.Labels}
	switch action {
	case "signal":
		return []Event{s.event("kill", "signal", strconv.Itoa(d.Signal))}
	case "stop":
		t.stopping[s.container] = true
		return []Event{s.event("kill", "signal", strconv.Itoa(d.Signal))}
	case "detach": // a record of the monitor's, which knows no names
		for _, r := range t.runs {
			if r.container == s.container {
				s = r
			}
		}
	case "health":
		return []Event{s.event("health_status: " + d.Health)}
	case "remove":
		return []Event{s.event("destroy")}
	case "copied", "updated":
		return nil // its beginning has the event
	case "copy": // Docker's words
		return []Event{s.event(map[string]string{"in": "extract-to-dir", "out": "archive-path"}[d.Direction], "path", d.Path)}
	case "rename":
		for run, r := range t.runs {
			if r.container == s.container {
				r.name = s.name
				t.runs[run] = r
			}
		}
		return []Event{s.event("rename", "oldName", "/"+d.Previous)}
	}
	return []Event{s.event(action)}
}
