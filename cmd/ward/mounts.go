package main

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/sandbox"
)

func (f *runFlags) allMounts(req *engine.Request) error {
	for _, group := range []struct {
		specs []string
		parse func(string) (sandbox.Mount, error)
	}{{f.volumes, parseVolume}, {f.mounts, parseMount}, {f.tmpfs, parseTmpfs}} {
		for _, spec := range group.specs {
			m, err := group.parse(spec)
			if err != nil {
				return err
			}
			req.Mounts = append(req.Mounts, m)
		}
	}
	return nil
}

func badMount(spec, why string) error {
	return invalid("run.mount", fmt.Sprintf("mount %.128q: %s", spec, why), "see ward run --help")
}

// parseVolume reads -v SOURCE:TARGET[:OPTIONS].
func parseVolume(spec string) (sandbox.Mount, error) {
	parts := strings.Split(spec, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return sandbox.Mount{}, badMount(spec, "want SOURCE:TARGET[:ro]; volumes without a source are not there yet")
	}
	if !strings.HasPrefix(parts[0], "/") && !strings.HasPrefix(parts[0], ".") {
		return sandbox.Mount{}, badMount(spec, "named volumes are not there yet; give an absolute source")
	}
	m := sandbox.Mount{Type: sandbox.MountBind, Source: parts[0], Target: parts[1], Exec: true}
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			switch o {
			case "ro":
				m.ReadOnly = true
			case "rw":
			case "noexec":
				m.Exec = false
			default:
				return m, badMount(spec, fmt.Sprintf("option %q is not there yet", o))
			}
		}
	}
	return finishMount(spec, m)
}

// parseMount reads --mount key=value,…
func parseMount(spec string) (sandbox.Mount, error) {
	m := sandbox.Mount{Exec: true, Type: "volume"} // Docker's default type
	for _, kv := range strings.Split(spec, ",") {
		k, v, has := strings.Cut(kv, "=")
		var err error
		switch strings.ToLower(k) {
		case "type":
			m.Type = sandbox.MountType(v)
		case "source", "src":
			m.Source = v
		case "target", "destination", "dst":
			m.Target = v
		case "readonly", "ro":
			m.ReadOnly = true
			if has {
				m.ReadOnly, err = strconv.ParseBool(v)
			}
		case "tmpfs-size":
			m.Size, err = units.RAMInBytes(v)
		case "tmpfs-mode":
			m.Mode, err = mode(v)
		default:
			return m, badMount(spec, fmt.Sprintf("%q is not there yet", k))
		}
		if err != nil {
			return m, badMount(spec, err.Error())
		}
	}
	if m.Type != sandbox.MountBind && m.Type != sandbox.MountTmpfs {
		return m, badMount(spec, fmt.Sprintf("type %q is not there yet; use bind or tmpfs", m.Type))
	}
	if m.Type == sandbox.MountTmpfs {
		m.Exec = false
	}
	return finishMount(spec, m)
}

// parseTmpfs reads --tmpfs TARGET[:OPTIONS].
func parseTmpfs(spec string) (sandbox.Mount, error) {
	target, opts, _ := strings.Cut(spec, ":")
	m := sandbox.Mount{Type: sandbox.MountTmpfs, Target: target}
	for _, o := range strings.FieldsFunc(opts, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(o, "=")
		var err error
		switch k {
		case "ro":
			m.ReadOnly = true
		case "exec":
			m.Exec = true
		case "rw", "noexec", "nosuid", "nodev":
		case "size":
			m.Size, err = units.RAMInBytes(v)
		case "mode":
			m.Mode, err = mode(v)
		default:
			err = fmt.Errorf("option %q is not there yet", k)
		}
		if err != nil {
			return m, badMount(spec, err.Error())
		}
	}
	return finishMount(spec, m)
}

func mode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o1777 {
		return 0, fmt.Errorf("%q is not an octal mode up to 1777", s)
	}
	return uint32(n), nil
}

// finishMount makes both ends absolute. A bind's source is resolved here,
// once: what policy decides about is what will be mounted.
func finishMount(spec string, m sandbox.Mount) (sandbox.Mount, error) {
	if !path.IsAbs(m.Target) {
		return m, badMount(spec, "the target must be an absolute path")
	}
	m.Target = path.Clean(m.Target)
	if m.Type == sandbox.MountTmpfs {
		if m.Source != "" {
			return m, badMount(spec, "a tmpfs has no source")
		}
		if m.Size == 0 {
			m.Size = sandbox.TmpfsSize
		}
		if m.Mode == 0 {
			m.Mode = 0o1777
		}
		return m, nil
	}
	if m.Size != 0 || m.Mode != 0 {
		return m, badMount(spec, "only a tmpfs has a size and a mode")
	}
	src, err := filepath.Abs(m.Source)
	if err == nil {
		src, err = filepath.EvalSymlinks(src)
	}
	if err != nil {
		return m, badMount(spec, err.Error())
	}
	m.Source = src
	return m, nil
}
