package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/ci/manifest"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// gateFile is one file that is asked about.
type gateFile struct {
	name       string
	text       []byte
	opt        manifest.Options
	containers []manifest.Container
}

// readGateFile reads a file, or standard input for "-".
func readGateFile(name string) (*gateFile, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, invalid("ci.file", err.Error(), "name a readable file, or - for standard input")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, manifest.MaxFile+1))
	if err != nil {
		return nil, invalid("ci.file", err.Error(), "name a readable file, or - for standard input")
	}
	lookup, err := variables(filepath.Join(filepath.Dir(name), ".env"))
	if err != nil {
		return nil, err
	}
	g := &gateFile{name: name, text: text, opt: manifest.Options{Lookup: lookup, Platform: "linux/" + runtime.GOARCH}}
	g.containers, err = manifest.Read(name, text, g.opt)
	return g, err
}

// variables are the environment's and, weaker, those of compose's .env beside
// the file.
func variables(dotEnv string) (func(string) (string, bool), error) {
	file := map[string]string{}
	b, err := os.ReadFile(dotEnv)
	if err == nil {
		file, err = manifest.DotEnv(dotEnv, b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Invalid, "ci.file", err, "make it readable, or remove it")
	}
	return func(name string) (string, bool) {
		if v, ok := os.LookupEnv(name); ok {
			return v, true
		}
		v, ok := file[name]
		return v, ok
	}, nil
}

// ask turns a container of a file into the question whether ward run, with the
// options that mean the same, would be let in. What run refuses is refused.
func ask(c manifest.Container) question {
	q := question{line: c.Line, container: &c}
	q.CI, q.K8s = policy.CI{Kind: c.Kind, File: c.File, Name: c.Name}, c.K8s
	q.Unmapped, q.Unknowns, q.Document = c.Unmapped, slices.Clone(c.Unknowns), c.Document
	err := q.read(c)
	q.Image, q.Actor = c.Image, audit.Caller()
	if err == nil && c.Image == "" {
		err = fault.New(fault.Denied, "ci.unmapped", c.Unmapped[len(c.Unmapped)-1].Why, "name an image, or leave it out of what is asked about")
	}
	q.Refused = err
	return q
}

// read fills the request as ward run fills it from its command line.
func (q *question) read(c manifest.Container) error {
	var f runFlags
	cmd := &cobra.Command{Use: "run"}
	f.register(cmd)
	for _, fl := range c.Flags {
		switch {
		case fl.Name == "fact-security-opt":
			q.SecurityOpt = append(q.SecurityOpt, fl.Value)
			continue
		case fl.Name == "device" && !here(fl.Value):
			d, err := parseDevice(fl.Value)
			if err != nil {
				return err
			}
			q.addDevice(d)
			continue
		}
		q.equivalent = append(q.equivalent, "--"+fl.Name+"="+fl.Value)
		if cmd.Flags().Lookup(fl.Name) == nil {
			return fault.New(fault.Invalid, "flag.unsupported", fmt.Sprintf("line %d: ward run has no --%s", fl.Line, fl.Name), "take it out of the file")
		}
		if err := cmd.Flags().Set(fl.Name, fl.Value); err != nil {
			return fault.New(fault.Invalid, "flag.value", fmt.Sprintf("line %d: --%s %.100q: %v", fl.Line, fl.Name, fl.Value, err), "correct the file")
		}
	}
	req, err := f.request(cmd.Flags(), append([]string{c.Image}, c.Args...))
	if err != nil {
		return err
	}
	if c.Entrypoint != nil && (len(c.Entrypoint) > 0 || c.Kind == manifest.Compose) {
		req.Entrypoint = c.Entrypoint
	}
	for _, b := range c.Binds {
		req.Mounts = append(req.Mounts, q.bind(b))
	}
	for _, v := range c.Volumes {
		req.Mounts = append(req.Mounts, sandbox.Mount{Type: sandbox.MountVolume, Name: v.Name, Target: v.Target, ReadOnly: v.ReadOnly, Exec: true})
	}
	q.Request = req
	return nil
}

// here says whether this host has the device.
func here(spec string) bool {
	path, _, _ := strings.Cut(spec, ":")
	_, err := os.Stat(path)
	return err == nil
}

// addDevice makes a fact of a device that this host does not have.
func (q *question) addDevice(d engine.DeviceRequest) {
	fact := policy.Device{Source: filepath.Clean(d.Source), Target: d.Target, Access: d.Access}
	if fact.Target == "" {
		fact.Target = fact.Source
	}
	if fact.Access == "" {
		fact.Access = "rw"
	}
	q.Devices = append(q.Devices, fact)
	q.unknown("run.devices")
}

// bind is a path of the host: resolved as run resolves it where this host has
// it, and as written, which is not all there is to know, where it does not.
func (q *question) bind(b manifest.Bind) sandbox.Mount {
	m := sandbox.Mount{Type: sandbox.MountBind, Source: filepath.Clean(b.Source), Target: b.Target, ReadOnly: b.ReadOnly, Exec: true}
	abs, err := filepath.Abs(m.Source)
	if err == nil {
		m.Source = abs
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		q.unknown("run.mounts")
		return m
	}
	m.Source = abs
	return m
}

func (q *question) unknown(fact string) {
	if !slices.Contains(q.Unknowns, fact) {
		q.Unknowns = append(q.Unknowns, fact)
	}
}

// lineFlags says which options a reason is about, by a part of its code, so
// that a report can point at the line.
var lineFlags = [][2]string{
	{"capabilities", "cap-add"}, {"host-namespaces", "network"}, {"sysctls", "sysctl"}, {"devices", "device"}, {"limits-memory", "memory"},
	{"limits-swap", "memory-swap"}, {"limits-pids", "pids-limit"}, {"limits-cpus", "cpus"}, {"limits-cpu_shares", "cpu-shares"},
	{"privilege-escalation", "security-opt"}, {"seccomp", "security-opt"}, {"security-opt", "security-opt"},
	{"apparmor", "fact-security-opt"}, {"selinux", "fact-security-opt"},
}

// lineOf is the line that a reason is about, or 0 for the image's.
func (q question) lineOf(code, msg string) int {
	if q.container == nil {
		return 0
	}
	for _, u := range q.container.Unmapped {
		if strings.HasPrefix(msg, fmt.Sprintf("%s (line %d):", u.Path, u.Line)) {
			return u.Line
		}
	}
	if strings.HasSuffix(code, "host-path") && len(q.container.Binds) > 0 {
		for _, b := range q.container.Binds {
			if strings.Contains(msg, b.Target) {
				return b.Line
			}
		}
	}
	for _, lf := range lineFlags {
		if !strings.Contains(code, lf[0]) {
			continue
		}
		for _, fl := range q.container.Flags {
			if fl.Name == lf[1] && (lf[1] != "cap-add" || strings.Contains(msg, strings.TrimPrefix(fl.Value, "CAP_"))) {
				return fl.Line
			}
		}
	}
	return 0
}
