package manifest

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ward-project/ward/policy"
)

// service reads one service of a compose file.
type service struct {
	*reader
	c    *Container
	top  *project
	path string
}

// project is what a compose file says outside of its services.
type project struct {
	volumes  map[string]entry
	unmapped []policy.Unmapped
}

// compose reads a compose file. Every service is read, also those of profiles
// that are not active: which are is not the file's to say.
func (r *reader) compose(top members) error {
	p, err := r.project(top)
	if err != nil {
		return err
	}
	e, _ := top.get("services")
	services, err := r.mapping(e.value)
	if err != nil {
		return err
	}
	for _, s := range services {
		if strings.HasPrefix(s.key, "x-") {
			continue
		}
		if err := r.service(p, s); err != nil {
			return err
		}
	}
	return nil
}

// project reads the top level.
func (r *reader) project(top members) (*project, error) {
	p := &project{volumes: map[string]entry{}}
	note := func(e entry, why string) {
		p.unmapped = append(p.unmapped, policy.Unmapped{Name: e.key, Path: e.key, Line: e.line, Why: why})
	}
	for _, e := range top {
		switch {
		case e.key == "services" || e.key == "version" || e.key == "name" || e.key == "secrets" || e.key == "configs" || strings.HasPrefix(e.key, "x-"):
			// secrets and configs count where a service uses them.
		case r.isNull(e.value):
		case e.key == "volumes":
			vs, err := r.mapping(e.value)
			if err != nil {
				return nil, err
			}
			for _, v := range vs {
				p.volumes[v.key] = v
			}
		case e.key == "networks":
			ns, err := r.mapping(e.value)
			if err != nil {
				return nil, err
			}
			if n, ok := ns.get("default"); ok {
				p.unmapped = append(p.unmapped, policy.Unmapped{Name: "networks", Path: "networks.default", Line: n.line, Why: "the network of every service is changed"})
			}
		default:
			note(e, "it is not known here what this adds to the services")
		}
	}
	return p, nil
}

func (r *reader) service(p *project, e entry) error {
	c := &Container{Kind: Compose, Name: "services." + e.key, Line: e.line, Unmapped: append([]policy.Unmapped(nil), p.unmapped...)}
	s := &service{r, c, p, "services." + e.key}
	ms, err := r.mapping(e.value)
	if err != nil {
		return err
	}
	if !ms.has("read_only") {
		c.flag("read-only", "false", e.line) // compose's default
	}
	if !ms.has("network_mode") && !ms.has("networks") {
		c.Unknowns = append(c.Unknowns, "run.network")
	}
	for _, m := range ms {
		if err := s.field(m); err != nil {
			return err
		}
	}
	if c.Image == "" && !ms.has("extends") {
		c.unmapped("image", s.path+".image", e.line, "the service names no image that could be verified")
	}
	return r.add(*c)
}

// harmless are the fields that ask for nothing a policy judges: about names,
// order, texts, and the book-keeping of compose.
var harmless = map[string]bool{
	"attach": true, "depends_on": true, "develop": true, "expose": true, "profiles": true, "pull_refresh_after": true, "restart": true,
	"scale": true, "stop_grace_period": true, "tty": true, "label_file": true,
	// A health check is another process in the container; ward asks for it at
	// point exec when it comes.
	"healthcheck": true,
}

// single are the fields of one value that are an option of run.
var single = map[string]string{
	"user": "user", "working_dir": "workdir", "hostname": "hostname", "domainname": "domainname", "container_name": "name", "stop_signal": "stop-signal",
	"pids_limit": "pids-limit", "mem_limit": "memory", "memswap_limit": "memory-swap", "mem_reservation": "memory-reservation",
	"cpus": "cpus", "cpu_shares": "cpu-shares", "cpu_quota": "cpu-quota", "cpu_period": "cpu-period", "cpuset": "cpuset-cpus",
	"shm_size": "shm-size", "oom_score_adj": "oom-score-adj", "mem_swappiness": "memory-swappiness",
}

// several are the fields that are a list, or one value, of an option of run.
var several = map[string]string{
	"cap_add": "cap-add", "cap_drop": "cap-drop", "group_add": "group-add", "dns": "dns", "dns_search": "dns-search", "dns_opt": "dns-option", "tmpfs": "tmpfs",
}

// pairs are the fields that are a mapping, or a list of NAME=VALUE.
var pairs = map[string]string{"environment": "env", "labels": "label", "sysctls": "sysctl"}

// switches are the fields of true or false that are an option of run.
var switches = map[string]string{"init": "init", "stdin_open": "interactive", "oom_kill_disable": "oom-kill-disable", "read_only": "read-only"}

// field reads one field of a service.
func (s *service) field(e entry) error {
	path := s.path + "." + e.key
	if harmless[e.key] || strings.HasPrefix(e.key, "x-") || s.isNull(e.value) {
		return nil
	}
	if flag, ok := single[e.key]; ok {
		return s.value(e, func(v string, line int) error { s.c.flag(flag, v, line); return nil })
	}
	if flag, ok := several[e.key]; ok {
		return s.values(e, func(v string, line int) error { s.c.flag(flag, v, line); return nil })
	}
	if flag, ok := pairs[e.key]; ok {
		return s.pairs(e, "=", func(kv string, line int) error { s.c.flag(flag, kv, line); return nil })
	}
	if flag, ok := switches[e.key]; ok {
		return s.boolValue(e, func(on bool) { s.c.flag(flag, fmt.Sprint(on), e.line) })
	}
	if read, ok := special()[e.key]; ok {
		return read(s, e)
	}
	s.c.unmapped(e.key, path, e.line, "no run of ward has this")
	return nil
}

// special are the fields with a form of their own.
func special() map[string]func(*service, entry) error {
	return map[string]func(*service, entry) error{
		"image": (*service).image, "command": (*service).command, "entrypoint": (*service).entrypoint, "env_file": (*service).envFile,
		"network_mode": (*service).networkMode, "networks": (*service).networks, "ports": (*service).ports, "volumes": (*service).volumes,
		"extra_hosts": (*service).extraHosts, "security_opt": (*service).securityOpt, "devices": (*service).devices, "ulimits": (*service).ulimits,
		"logging": (*service).logging, "deploy": (*service).deploy, "pull_policy": (*service).pullPolicy, "platform": (*service).platform,
		"privileged": (*service).privileged, "blkio_config": (*service).blkio,
		"cgroup": onlyIf("private"), "ipc": onlyIf("private", "none"), "isolation": onlyIf("default"), "uts": onlyIf(), "pid": onlyIf(), "userns_mode": onlyIf(),
	}
}

// onlyIf is a field that asks for nothing where it has one of these values.
func onlyIf(values ...string) func(*service, entry) error {
	return func(s *service, e entry) error {
		return s.value(e, func(v string, line int) error {
			for _, ok := range values {
				if v == ok {
					return nil
				}
			}
			s.c.unmapped(e.key, s.path+"."+e.key, line, fmt.Sprintf("%.100q is something no run of ward has", v))
			return nil
		})
	}
}

func (s *service) image(e entry) error {
	return s.value(e, func(v string, _ int) error {
		n, err := s.resolve(e.value)
		if err != nil {
			return err
		}
		s.c.Image, s.c.Line, s.c.at = v, n.Line, placeOf(n)
		return nil
	})
}

func (s *service) privileged(e entry) error {
	return s.boolValue(e, func(on bool) {
		if on {
			s.c.unmapped(e.key, s.path+"."+e.key, e.line, "all capabilities, all devices and no filter: no run of ward has that")
		}
	})
}

func (s *service) command(e entry) (err error) {
	if s.c.Args, err = s.argv(e); err == nil && len(s.c.Args) == 0 {
		s.c.unmapped(e.key, s.path+"."+e.key, e.line, "an empty command takes the image's away, and no run of ward does that")
	}
	return err
}

func (s *service) entrypoint(e entry) (err error) {
	s.c.Entrypoint, err = s.argv(e)
	return err
}

// argv is a list, or a text that is split as a shell splits it. An empty one
// takes the image's away.
func (s *service) argv(e entry) ([]string, error) {
	out := []string{}
	n, err := s.resolve(e.value)
	if err != nil {
		return nil, err
	}
	if n.Kind != yaml.ScalarNode {
		err := s.values(e, func(v string, _ int) error { out = append(out, v); return nil })
		return out, err
	}
	err = s.value(e, func(v string, line int) error {
		ws, err := words(v)
		if err != nil {
			return s.errorf(line, "%v", err)
		}
		out = append(out, ws...)
		return nil
	})
	return out, err
}

func (s *service) envFile(e entry) error {
	n, err := s.resolve(e.value)
	if err != nil {
		return err
	}
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, item := range list {
		m, err := s.resolve(item)
		if err != nil {
			return err
		}
		if m.Kind == yaml.MappingNode {
			s.c.unmapped(e.key, s.path+"."+e.key, m.Line, "the long form is not read here; write the file's name alone")
			continue
		}
		if err := s.valueOf(item, func(v string, line int) error { s.c.flag("env-file", s.beside(v), line); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// beside is a path as the file means it.
func (s *service) beside(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(s.dir, p)
}

func (s *service) networkMode(e entry) error {
	return s.value(e, func(v string, line int) error {
		if v == "none" || v == "host" {
			s.c.flag("network", v, line)
			return nil
		}
		s.c.unmapped(e.key, s.path+"."+e.key, line, fmt.Sprintf("%.100q is a network that no run of ward has", v))
		return nil
	})
}

func (s *service) networks(e entry) error {
	s.c.unmapped(e.key, s.path+"."+e.key, e.line, "a run of ward has no networks but none and host")
	return nil
}

func (s *service) ports(e entry) error {
	ns, err := s.list(e.value)
	if err == nil && len(ns) > 0 {
		s.c.unmapped(e.key, s.path+"."+e.key, e.line, "a run of ward publishes no ports")
	}
	return err
}

func (s *service) extraHosts(e entry) error {
	return s.pairs(e, "=", func(kv string, line int) error {
		// NAME=ADDRESS is compose's, NAME:ADDRESS both compose's and run's.
		if k, v, ok := strings.Cut(kv, "="); ok {
			kv = k + ":" + v
		}
		s.c.flag("add-host", kv, line)
		return nil
	})
}

func (s *service) securityOpt(e entry) error {
	return s.values(e, func(v string, line int) error {
		k, file, ok := strings.Cut(strings.Replace(v, ":", "=", 1), "=")
		if ok && k == "seccomp" && file != "default" && file != "builtin" && file != "unconfined" {
			v = "seccomp=" + s.beside(file)
		}
		s.c.flag("security-opt", v, line)
		return nil
	})
}

func (s *service) pullPolicy(e entry) error {
	return s.value(e, func(v string, line int) error {
		if v == "build" {
			s.c.unmapped(e.key, s.path+"."+e.key, line, "the image is built where it runs: there is nothing to verify")
		}
		return nil
	})
}

func (s *service) platform(e entry) error {
	return s.value(e, func(v string, line int) error {
		if v != s.opt.Platform {
			s.c.unmapped(e.key, s.path+"."+e.key, line, fmt.Sprintf("images are judged for %s, not for %.64q", s.opt.Platform, v))
		}
		return nil
	})
}
