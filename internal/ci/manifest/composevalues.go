package manifest

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// valueOf reads one value with its variables put in.
func (s *service) valueOf(n *yaml.Node, use func(v string, line int) error) error {
	v, m, err := s.scalar(n)
	if err != nil {
		return err
	}
	if v, err = interpolate(v, s.opt.Lookup, 0); err != nil {
		return s.errorf(m.Line, "%v", err)
	}
	return use(v, m.Line)
}

func (s *service) value(e entry, use func(v string, line int) error) error {
	return s.valueOf(e.value, use)
}

// values reads a list of values, or one.
func (s *service) values(e entry, use func(v string, line int) error) error {
	n, err := s.resolve(e.value)
	if err != nil {
		return err
	}
	if n.Kind == yaml.ScalarNode {
		return s.valueOf(n, use)
	}
	ns, err := s.list(n)
	if err != nil {
		return err
	}
	for _, n := range ns {
		if err := s.valueOf(n, use); err != nil {
			return err
		}
	}
	return nil
}

// pairs reads a mapping, or a list of what a mapping would be, as KEY=VALUE. A
// key without a value is the key alone.
func (s *service) pairs(e entry, sep string, use func(kv string, line int) error) error {
	n, err := s.resolve(e.value)
	if err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		return s.values(e, use)
	}
	ms, err := s.mapping(n)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if s.isNull(m.value) {
			if err := use(m.key, m.line); err != nil {
				return err
			}
			continue
		}
		if v, err := s.resolve(m.value); err == nil && v.Kind == yaml.SequenceNode { // extra_hosts: several addresses
			err := s.values(m, func(v string, line int) error { return use(m.key+sep+v, line) })
			if err != nil {
				return err
			}
			continue
		}
		if err := s.value(m, func(v string, line int) error { return use(m.key+sep+v, line) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) boolValue(e entry, use func(bool)) error {
	return s.value(e, func(v string, line int) error {
		if v != "true" && v != "false" {
			return s.errorf(line, "%s: %.40q is not true or false", e.key, v)
		}
		use(v == "true")
		return nil
	})
}

// fields reads a mapping whose members are each read by the function of their
// name; one without is unmapped.
func (s *service) fields(e entry, path string, read map[string]func(entry) error) error {
	ms, err := s.mapping(e.value)
	if err != nil {
		return err
	}
	for _, m := range ms {
		f, ok := read[m.key]
		switch {
		case s.isNull(m.value) || strings.HasPrefix(m.key, "x-"):
		case ok && f != nil:
			if err := f(m); err != nil {
				return err
			}
		case !ok:
			s.c.unmapped(m.key, path+"."+m.key, m.line, "no run of ward has this")
		}
	}
	return nil
}

// as is a function that reads one value as an option.
func (s *service) as(flag string) func(entry) error {
	return func(e entry) error {
		return s.value(e, func(v string, line int) error { s.c.flag(flag, v, line); return nil })
	}
}

func (s *service) ulimits(e entry) error {
	ms, err := s.mapping(e.value)
	if err != nil {
		return err
	}
	for _, m := range ms {
		n, err := s.resolve(m.value)
		if err != nil {
			return err
		}
		if n.Kind == yaml.ScalarNode {
			err = s.value(m, func(v string, line int) error { s.c.flag("ulimit", m.key+"="+v, line); return nil })
		} else {
			var soft, hard string
			err = s.fields(m, s.path+".ulimits."+m.key, map[string]func(entry) error{
				"soft": func(e entry) error { return s.value(e, func(v string, _ int) error { soft = v; return nil }) },
				"hard": func(e entry) error { return s.value(e, func(v string, _ int) error { hard = v; return nil }) },
			})
			s.c.flag("ulimit", m.key+"="+soft+":"+hard, m.line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *service) logging(e entry) error {
	return s.fields(e, s.path+".logging", map[string]func(entry) error{
		"driver": s.as("log-driver"),
		"options": func(o entry) error {
			return s.pairs(o, "=", func(kv string, line int) error { s.c.flag("log-opt", kv, line); return nil })
		},
	})
}

// deploy is what a swarm or another platform would do; its limits are limits.
func (s *service) deploy(e entry) error {
	path := s.path + ".deploy"
	limits := map[string]func(entry) error{"cpus": s.as("cpus"), "memory": s.as("memory"), "pids": s.as("pids-limit")}
	reservations := map[string]func(entry) error{"cpus": nil, "memory": s.as("memory-reservation")}
	return s.fields(e, path, map[string]func(entry) error{
		"mode": nil, "replicas": nil, "labels": nil, "update_config": nil, "rollback_config": nil, "restart_policy": nil, "placement": nil, "endpoint_mode": nil,
		"resources": func(r entry) error {
			return s.fields(r, path+".resources", map[string]func(entry) error{
				"limits":       func(l entry) error { return s.fields(l, path+".resources.limits", limits) },
				"reservations": func(l entry) error { return s.fields(l, path+".resources.reservations", reservations) },
			})
		},
	})
}

func (s *service) blkio(e entry) error {
	device := func(flag, amount string) func(entry) error {
		return func(l entry) error {
			ns, err := s.list(l.value)
			if err != nil {
				return err
			}
			for _, n := range ns {
				var dev, much string
				err := s.fields(entry{key: l.key, line: n.Line, value: n}, s.path+".blkio_config."+l.key, map[string]func(entry) error{
					"path": func(e entry) error { return s.value(e, func(v string, _ int) error { dev = v; return nil }) },
					amount: func(e entry) error { return s.value(e, func(v string, _ int) error { much = v; return nil }) },
				})
				if err != nil {
					return err
				}
				s.c.flag(flag, dev+":"+much, n.Line)
			}
			return nil
		}
	}
	return s.fields(e, s.path+".blkio_config", map[string]func(entry) error{
		"weight": s.as("blkio-weight"), "weight_device": device("blkio-weight-device", "weight"),
		"device_read_bps": device("device-read-bps", "rate"), "device_write_bps": device("device-write-bps", "rate"),
		"device_read_iops": device("device-read-iops", "rate"), "device_write_iops": device("device-write-iops", "rate"),
	})
}

func (s *service) devices(e entry) error {
	ns, err := s.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		m, err := s.resolve(n)
		if err != nil {
			return err
		}
		if m.Kind == yaml.ScalarNode {
			err = s.valueOf(m, s.device)
		} else {
			var src, dst, perm string
			set := func(to *string) func(entry) error {
				return func(e entry) error { return s.value(e, func(v string, _ int) error { *to = v; return nil }) }
			}
			err = s.fields(entry{key: e.key, line: m.Line, value: m}, s.path+".devices", map[string]func(entry) error{"source": set(&src), "target": set(&dst), "permissions": set(&perm)})
			if err == nil {
				err = s.device(strings.TrimRight(src+":"+dst+":"+perm, ":"), m.Line)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *service) device(v string, line int) error {
	if !strings.HasPrefix(v, "/") {
		s.c.unmapped("devices", s.path+".devices", line, fmt.Sprintf("%.100q names no path of a device", v))
		return nil
	}
	s.c.flag("device", v, line)
	return nil
}
