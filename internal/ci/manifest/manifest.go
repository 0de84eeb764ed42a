// Package manifest reads compose and Kubernetes files for the containers they
// would run, as options of ward run, and pins their images.
//
// It promises that nothing in such a file is passed over in silence: a field is
// an option, or known to ask for nothing that a policy judges, or named as
// unmapped. It opens no file and no socket, starts nothing, and is bounded in
// time and memory whatever it is given.
package manifest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// The kinds of file.
const (
	Compose    = "compose"
	Kubernetes = "k8s"
)

// MaxFile bounds a file, in bytes.
const MaxFile = 1 << 20

// Flag is one option of ward run that a field means.
type Flag struct {
	// Name is the option's, without dashes.
	Name, Value string
	// Line is the field's in the file.
	Line int
}

// Bind is a path of the host that a container would see.
type Bind struct {
	Source, Target string
	ReadOnly       bool
	Line           int
}

// Volume is something mounted that is no path of the host.
type Volume struct {
	// Type is "volume" or "tmpfs".
	Type, Name, Target string
	ReadOnly           bool
}

// Container is one container that a file would run.
type Container struct {
	Kind, File string
	// Name is what in the file: "services.web", "Deployment/web app".
	Name string
	// Image is its image with variables replaced, and Line where it stands.
	Image string
	Line  int
	// Entrypoint and Args replace the image's where they are not nil.
	Entrypoint, Args []string
	Flags            []Flag
	Binds            []Bind
	Volumes          []Volume
	// Unmapped are its fields that have no equivalent, Unknowns facts of a run
	// that the file does not say.
	Unmapped []policy.Unmapped
	Unknowns []string
	// K8s is what a Pod's container asks for beyond a run; nil in a compose file.
	K8s *policy.K8s
	// Document is the whole that it stands in, as JSON: the compose file as it is
	// written, or the Kubernetes object. Containers of one share it.
	Document json.RawMessage

	at place
}

// Options are what reading a file depends on beside its text.
type Options struct {
	// Lookup gives the value of a variable, for compose files.
	Lookup func(string) (string, bool)
	// Platform is the one that images are judged for, "linux/amd64".
	Platform string
}

// Read returns the containers of a file in the order in which they stand. The
// name is for messages, and the directory that relative paths start from. A
// file that cannot be read exactly is an error: fault.Invalid with its line.
func Read(name string, text []byte, opt Options) ([]Container, error) {
	docs, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	r := &reader{file: name, dir: filepath.Dir(name), opt: opt}
	if opt.Lookup == nil {
		r.opt.Lookup = func(string) (string, bool) { return "", false }
	}
	for i, d := range docs {
		top, err := r.mapping(d)
		if err != nil {
			return nil, err
		}
		r.from, r.doc = d, nil
		switch {
		case top.has("services") && len(docs) == 1:
			err = r.compose(top)
		case top.has("kind") && top.has("apiVersion"):
			err = r.object(top, fmt.Sprintf("document %d", i+1), 0)
		default:
			err = r.errorf(d.Line, "is neither a compose file (services) nor a Kubernetes object (apiVersion, kind)")
		}
		if err != nil {
			return nil, err
		}
	}
	if len(r.out) == 0 {
		return nil, r.errorf(0, "names no container: there is nothing to ask about")
	}
	return r.out, nil
}

// reader reads one file.
type reader struct {
	file, dir string
	opt       Options
	out       []Container
	// visits counts the nodes looked at, aliases followed included.
	visits int
	// from is the object or file whose containers are read, doc its JSON once
	// one was found, and shown how much JSON all containers have together.
	from  *yaml.Node
	doc   json.RawMessage
	shown int
}

func (r *reader) errorf(line int, format string, args ...any) error {
	return fileError(r.file, line, fmt.Sprintf(format, args...))
}

func fileError(file string, line int, msg string) error {
	where := file
	if line > 0 {
		where += ":" + strconv.Itoa(line)
	}
	return fault.New(fault.Invalid, "ci.file", where+": "+msg, "correct the file; nothing is said about any of it until then")
}

// maxContainers bounds how many containers a file may have.
const maxContainers = 1000

func (r *reader) add(c Container) error {
	if len(r.out) >= maxContainers {
		return r.errorf(c.Line, "more than %d containers in one file", maxContainers)
	}
	if r.doc == nil {
		doc, err := r.document(r.from)
		if err != nil {
			return err
		}
		r.doc = doc
	}
	if r.shown += len(r.doc); r.shown > maxAllDocuments {
		return r.errorf(c.Line, "has so many containers that judging each with the whole it stands in takes more than %d bytes; split the file", maxAllDocuments)
	}
	c.File, c.Document = r.file, r.doc
	r.out = append(r.out, c)
	return nil
}

// unmapped notes a field that has no equivalent.
func (c *Container) unmapped(name, path string, line int, why string) {
	c.Unmapped = append(c.Unmapped, policy.Unmapped{Name: name, Path: path, Line: line, Why: why})
}

func (c *Container) flag(name, value string, line int) {
	c.Flags = append(c.Flags, Flag{name, value, line})
}
