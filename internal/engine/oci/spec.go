package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// configFile is the specification's name in a bundle.
const configFile = "config.json"

// readBounded reads a caller's file once. It may be a pipe (podman's
// process.json, a shell's), but not be endless.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, sandbox.MaxOCISpec+1))
	if err != nil {
		return nil, err
	}
	if len(b) > sandbox.MaxOCISpec {
		return nil, fault.New(fault.Invalid, "oci.size", fmt.Sprintf("%s is larger than %d bytes", name, sandbox.MaxOCISpec), "ask for less in one container")
	}
	return b, nil
}

// readSpec reads the specification of a bundle: its exact bytes and what they
// mean. The bytes are what is judged, recorded and run; the file is not read
// again.
func readSpec(bundle string) ([]byte, *specs.Spec, error) {
	b, s, err := parseSpec(filepath.Join(bundle, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fault.Wrap(fault.Invalid, "oci.spec", fmt.Errorf("JSON specification file %s not found", configFile), "")
	}
	return b, s, err
}

func parseSpec(name string) ([]byte, *specs.Spec, error) {
	invalid := func(err error) error { return fault.Wrap(fault.Invalid, "oci.spec", err, "") }
	b, err := readBounded(name)
	if err != nil {
		return nil, nil, invalid(err)
	}
	var s *specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, nil, invalid(err)
	}
	if s == nil {
		return nil, nil, invalid(errors.New("config cannot be null"))
	}
	if err := checkProcess(s.Process); err != nil {
		return nil, nil, invalid(err)
	}
	if s.Root == nil {
		return nil, nil, invalid(errors.New("root must be specified"))
	}
	return b, s, nil
}

// checkProcess says of a process what cannot be, in the words callers know.
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process property must not be empty")
	case p.Cwd == "":
		//lint:ignore ST1005 the words callers know
		return errors.New("Cwd property must not be empty")
	case !filepath.IsAbs(p.Cwd):
		//lint:ignore ST1005 the words callers know
		return errors.New("Cwd must be an absolute path")
	case len(p.Args) == 0:
		return errors.New("args must not be empty")
	}
	return nil
}

// namespaces tells whether the container has a PID namespace of its own and
// what network it is in, in the policy's words.
func namespaces(s *specs.Spec) (sharedPID bool, network string) {
	sharedPID, network = true, "host"
	if s.Linux == nil {
		return sharedPID, network
	}
	for _, n := range s.Linux.Namespaces {
		switch {
		case n.Type == specs.PIDNamespace && n.Path == "":
			sharedPID = false
		case n.Type == specs.NetworkNamespace && n.Path == "":
			network = "none"
		case n.Type == specs.NetworkNamespace:
			network = n.Path
		}
	}
	return sharedPID, network
}

// capabilities are all that a process can hold, and those it would hand on.
func capabilities(p *specs.Process) (held, inheritable, ambient []string) {
	if p == nil || p.Capabilities == nil {
		return nil, nil, nil
	}
	c := p.Capabilities
	held = slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient)
	slices.Sort(held)
	return slices.Compact(held), c.Inheritable, c.Ambient
}

// hooks are the programs of all hooks.
func hooks(h *specs.Hooks) []string {
	if h == nil {
		return nil
	}
	var out []string
	//lint:ignore SA1019 prestart is deprecated, and still asked for
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
		for _, k := range list {
			out = append(out, k.Path)
		}
	}
	return out
}

// hostPath is where a path of a specification leads on the host.
func hostPath(bundle, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	path = filepath.Clean(path)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// sources are the paths of the host that mounts show, as policy sees them.
func sources(mounts []policy.Mount) []string {
	out := make([]string, len(mounts))
	for i, m := range mounts {
		if m.Type == "bind" {
			out[i] = m.Source
		}
	}
	return out
}

// isBind says whether a mount shows a path of the host.
func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func isReadOnly(m specs.Mount) bool {
	ro := false
	for _, o := range m.Options {
		ro = o == "ro" || o == "rro" || ro && o != "rw"
	}
	return ro
}

// envNames are the names alone: values hold secrets.
func envNames(env []string) []string {
	names := make([]string, len(env))
	for i, kv := range env {
		names[i], _, _ = strings.Cut(kv, "=")
	}
	return names
}

// Terminal says whether the payload of a bundle wants a terminal.
func Terminal(bundle string) (bool, error) {
	_, s, err := readSpec(bundle)
	if err != nil {
		return false, err
	}
	return s.Process.Terminal, nil
}
