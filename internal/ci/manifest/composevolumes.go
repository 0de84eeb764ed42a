package manifest

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

// volumes reads what a service mounts, in both forms.
func (s *service) volumes(e entry) error {
	ns, err := s.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		m, err := s.resolve(n)
		if err != nil {
			return err
		}
		if m.Kind == yaml.MappingNode {
			err = s.longVolume(m)
		} else {
			err = s.valueOf(m, s.shortVolume)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shortVolume is [SOURCE:]TARGET[:OPTIONS].
func (s *service) shortVolume(v string, line int) error {
	parts := strings.Split(v, ":")
	source := parts[0]
	if len(parts) > 1 && (strings.HasPrefix(source, "/") || strings.HasPrefix(source, ".") || strings.HasPrefix(source, "~")) {
		return s.shortBind(v, parts, line)
	}
	if len(parts) > 1 {
		if err := s.declared(source, line); err != nil {
			return err
		}
	}
	s.c.flag("volume", v, line)
	return nil
}

func (s *service) shortBind(v string, parts []string, line int) error {
	b := Bind{Source: parts[0], Target: parts[1], Line: line}
	if len(parts) > 3 {
		return s.errorf(line, "volume %.200q has too many colons", v)
	}
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			switch o {
			case "ro":
				b.ReadOnly = true
			case "rw", "private", "rprivate":
			default:
				s.c.unmapped("volumes", s.path+".volumes", line, fmt.Sprintf("option %.64q of %.200q is something no run of ward has", o, v))
			}
		}
	}
	return s.bind(b)
}

// bind notes a path of the host.
func (s *service) bind(b Bind) error {
	if strings.HasPrefix(b.Source, "~") {
		s.c.unmapped("volumes", s.path+".volumes", b.Line, fmt.Sprintf("whose home %.200q is below is not known here", b.Source))
		return nil
	}
	b.Source = s.beside(b.Source)
	if !path.IsAbs(b.Target) {
		return s.errorf(b.Line, "the target %.200q is no absolute path", b.Target)
	}
	b.Target = path.Clean(b.Target)
	s.c.Binds = append(s.c.Binds, b)
	return nil
}

// declared looks at the declaration of a named volume, which can say that it
// is a directory of the host after all.
func (s *service) declared(name string, line int) error {
	d, ok := s.top.volumes[name]
	if !ok {
		return s.errorf(line, "the volume %.100q is not declared", name)
	}
	if s.isNull(d.value) {
		return nil
	}
	return s.fields(d, "volumes."+name, map[string]func(entry) error{
		"name": nil, "labels": nil, "external": nil,
		"driver": func(e entry) error {
			return s.value(e, func(v string, line int) error {
				if v != "local" {
					s.c.unmapped("driver", "volumes."+name+".driver", line, fmt.Sprintf("a run of ward has no volumes of driver %.100q", v))
				}
				return nil
			})
		},
	})
}

// longVolume is the form with type, source, target.
func (s *service) longVolume(n *yaml.Node) error {
	at := s.path + ".volumes"
	var kind, source, target, size, mode, subpath, propagation string
	ro, nocopy := false, false
	set := func(to *string) func(entry) error {
		return func(e entry) error { return s.value(e, func(v string, _ int) error { *to = v; return nil }) }
	}
	flag := func(to *bool) func(entry) error {
		return func(e entry) error { return s.boolValue(e, func(on bool) { *to = on }) }
	}
	within := func(name string, read map[string]func(entry) error) func(entry) error {
		return func(e entry) error { return s.fields(e, at+"."+name, read) }
	}
	err := s.fields(entry{key: "volumes", line: n.Line, value: n}, at, map[string]func(entry) error{
		"type": set(&kind), "source": set(&source), "target": set(&target), "read_only": flag(&ro), "consistency": nil,
		"bind":   within("bind", map[string]func(entry) error{"propagation": set(&propagation), "create_host_path": nil}),
		"volume": within("volume", map[string]func(entry) error{"nocopy": flag(&nocopy), "subpath": set(&subpath), "labels": nil}),
		"tmpfs":  within("tmpfs", map[string]func(entry) error{"size": set(&size), "mode": set(&mode)}),
	})
	if err != nil {
		return err
	}
	if propagation != "" && propagation != "private" && propagation != "rprivate" {
		s.c.unmapped("volumes", at, n.Line, fmt.Sprintf("mounts would pass between the host and the container (%.64q)", propagation))
	}
	spec := []string{"type=" + kind, "target=" + target}
	switch kind {
	case "bind":
		return s.bind(Bind{Source: source, Target: target, ReadOnly: ro, Line: n.Line})
	case "volume":
		if source != "" {
			if err := s.declared(source, n.Line); err != nil {
				return err
			}
			spec = append(spec, "source="+source)
		}
		if nocopy {
			spec = append(spec, "volume-nocopy")
		}
		if subpath != "" {
			spec = append(spec, "volume-subpath="+subpath)
		}
	case "tmpfs":
		if size != "" {
			spec = append(spec, "tmpfs-size="+size)
		}
		if mode != "" {
			spec = append(spec, "tmpfs-mode="+mode)
		}
	default:
		s.c.unmapped("volumes", at, n.Line, fmt.Sprintf("a mount of type %.64q is something no file can ask for here", kind))
		return nil
	}
	if ro {
		spec = append(spec, "readonly")
	}
	for i, f := range spec {
		if strings.ContainsAny(f, ",\"\n") {
			spec[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
	}
	s.c.flag("mount", strings.Join(spec, ","), n.Line)
	return nil
}
