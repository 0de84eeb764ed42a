package manifest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ward-project/ward/policy"
)

type k8s = policy.K8s

// pod is what holds for all containers of a Pod.
type pod struct {
	*reader
	name     string
	facts    k8s
	unmapped []policy.Unmapped
	flags    []Flag
	// security is spec.securityContext, volumes the Pod's by name.
	security context
	volumes  map[string]podVolume
}

// podVolume is one volume of a Pod; path is a hostPath's.
type podVolume struct{ kind, path string }

// context is a securityContext, of a Pod or of a container; nil is unsaid.
type context struct {
	user, group                     string
	nonRoot, escalation, privileged *bool
	readOnly                        *bool
	seccomp, apparmor, procMount    string
	seLinux                         []string
	add, drop                       []string
	dropsAll                        bool
	hostProcess                     bool
	seccompLine, line, privilegedAt int
}

// podFields ask for nothing that a policy judges: where and when it runs, its
// names, how it ends.
var podFields = strings.Fields(`containers initContainers ephemeralContainers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds
	dnsPolicy dnsConfig nodeSelector nodeName serviceAccountName serviceAccount automountServiceAccountToken imagePullSecrets hostname subdomain
	affinity schedulerName tolerations hostAliases priorityClassName priority readinessGates enableServiceLinks preemptionPolicy overhead
	topologySpreadConstraints setHostnameAsFQDN hostUsers schedulingGates shareProcessNamespace`)

func (p *pod) note(name, path string, line int, why string) {
	p.unmapped = append(p.unmapped, policy.Unmapped{Name: name, Path: path, Line: line, Why: why})
}

// read reads what the Pod says for all its containers.
func (p *pod) read(spec members) (err error) {
	p.volumes = map[string]podVolume{}
	for _, e := range spec {
		if slices.Contains(podFields, e.key) || p.isNull(e.value) {
			continue
		}
		switch e.key {
		case "hostNetwork":
			p.facts.HostNetwork, err = p.boolean(e.value)
		case "hostPID":
			p.facts.HostPID, err = p.boolean(e.value)
		case "hostIPC":
			p.facts.HostIPC, err = p.boolean(e.value)
		case "securityContext":
			p.security, err = p.context(e, "spec.securityContext", p.note)
		case "volumes":
			err = p.readVolumes(e)
		case "os":
			err = p.system(e)
		default:
			p.note(e.key, "spec."+e.key, e.line, "it is not known here what this adds to the containers")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pod) system(e entry) error {
	ms, err := p.mapping(e.value)
	if err != nil {
		return err
	}
	name, err := p.optional(ms, "name")
	if err == nil && name != "linux" {
		p.note("os", "spec.os", e.line, fmt.Sprintf("images are judged for linux, not for %.64q", name))
	}
	return err
}

func (p *pod) readVolumes(e entry) error {
	ns, err := p.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		ms, err := p.mapping(n)
		if err != nil {
			return err
		}
		var name string
		v := podVolume{}
		for _, m := range ms {
			if m.key == "name" {
				if name, _, err = p.scalar(m.value); err != nil {
					return err
				}
				continue
			}
			if v.kind != "" {
				return p.errorf(m.line, "a volume is both %s and %.64s", v.kind, m.key)
			}
			v.kind = m.key
			if m.key == "hostPath" {
				hp, err := p.mapping(m.value)
				if err != nil {
					return err
				}
				if v.path, err = p.optional(hp, "path"); err != nil {
					return err
				}
				if !path.IsAbs(v.path) {
					return p.errorf(m.line, "hostPath %.200q is no absolute path", v.path)
				}
			}
		}
		if v.kind == "" {
			v.kind = "emptyDir" // as the API server completes it
		}
		if _, twice := p.volumes[name]; twice || name == "" {
			return p.errorf(n.Line, "the volume %.100q has no name of its own", name)
		}
		p.volumes[name] = v
		if !slices.Contains(p.facts.VolumeTypes, v.kind) {
			p.facts.VolumeTypes = append(p.facts.VolumeTypes, v.kind)
		}
	}
	return nil
}

// containerFields ask for nothing that a policy judges.
var containerFields = strings.Fields(`imagePullPolicy terminationMessagePath terminationMessagePolicy stdin stdinOnce tty resizePolicy restartPolicy
	restartPolicyRules targetContainerName`)

// podContainer reads one container of a Pod.
type podContainer struct {
	*pod
	c    *Container
	path string
	k    *k8s
	own  context
}

func (p *pod) container(ms members, role, where string, line int) error {
	facts := p.facts
	facts.Role = role
	var err error
	if facts.Container, err = p.optional(ms, "name"); err != nil {
		return err
	}
	c := &Container{Kind: Kubernetes, Name: strings.TrimSpace(p.name + " " + facts.Container), Line: line, K8s: &facts,
		Unmapped: slices.Clone(p.unmapped), Unknowns: []string{"k8s.user", "run.limits.pids"}}
	x := &podContainer{p, c, "spec." + where, &facts, context{}}
	for _, e := range ms {
		if slices.Contains(containerFields, e.key) || e.key == "name" || p.isNull(e.value) {
			continue
		}
		if err := x.field(e); err != nil {
			return err
		}
	}
	x.settle(line)
	if c.Image == "" {
		c.unmapped("image", x.path+".image", line, "the container names no image that could be verified")
	}
	return p.add(*c)
}

func (x *podContainer) field(e entry) (err error) {
	at := x.path + "." + e.key
	switch e.key {
	case "image":
		n, err := x.resolve(e.value)
		if err != nil {
			return err
		}
		x.c.Image, _, err = x.scalar(n)
		x.c.Line, x.c.at = n.Line, placeOf(n)
		return err
	case "command":
		x.c.Entrypoint, err = x.texts(e.value)
	case "args":
		x.c.Args, err = x.texts(e.value)
	case "workingDir":
		return x.text(e, func(v string) { x.c.flag("workdir", v, e.line) })
	case "env":
		return x.env(e)
	case "envFrom":
		x.c.Unknowns = append(x.c.Unknowns, "run.env_names")
	case "ports":
		return x.ports(e)
	case "resources":
		return x.resources(e)
	case "volumeMounts":
		return x.mounts(e)
	case "livenessProbe", "readinessProbe", "startupProbe", "lifecycle":
		return x.probe(e.value, 0)
	case "securityContext":
		x.own, err = x.context(e, at, x.c.unmapped)
	default:
		x.c.unmapped(e.key, at, e.line, "it is not known here what this does")
	}
	return err
}

func (p *pod) text(e entry, use func(string)) error {
	v, _, err := p.scalar(e.value)
	if err == nil {
		use(v)
	}
	return err
}

func (p *pod) texts(n *yaml.Node) ([]string, error) {
	ns, err := p.list(n)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, n := range ns {
		v, _, err := p.scalar(n)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// env takes the names; values are not part of what is decided about.
func (x *podContainer) env(e entry) error {
	ns, err := x.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		ms, err := x.mapping(n)
		if err != nil {
			return err
		}
		name, line, err := x.member(ms, "name")
		if err != nil {
			return err
		}
		x.c.flag("env", name+"=", line)
	}
	return nil
}

func (x *podContainer) ports(e entry) error {
	ns, err := x.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		ms, err := x.mapping(n)
		if err != nil {
			return err
		}
		v, err := x.optional(ms, "hostPort")
		if err != nil {
			return err
		}
		if v == "" {
			continue
		}
		port, err := strconv.Atoi(v)
		if err != nil {
			return x.errorf(n.Line, "hostPort %.40q is no number", v)
		}
		x.k.HostPorts = append(slices.Clone(x.k.HostPorts), port)
	}
	return nil
}

// probe looks for hosts in a probe or a hook.
func (x *podContainer) probe(n *yaml.Node, depth int) error {
	m, err := x.resolve(n)
	if err != nil || m.Kind != yaml.MappingNode || depth > 4 {
		return err
	}
	ms, err := x.mapping(m)
	if err != nil {
		return err
	}
	for _, e := range ms {
		if e.key == "host" {
			err = x.text(e, func(v string) { x.k.ProbeHosts = append(slices.Clone(x.k.ProbeHosts), v) })
		} else {
			err = x.probe(e.value, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *podContainer) resources(e entry) error {
	ms, err := x.mapping(e.value)
	if err != nil {
		return err
	}
	for _, m := range ms {
		switch {
		case m.key == "requests" || x.isNull(m.value):
		case m.key == "limits":
			ls, err := x.mapping(m.value)
			if err != nil {
				return err
			}
			for _, l := range ls {
				v, _, err := x.scalar(l.value)
				if err != nil {
					return err
				}
				if err := x.limit(l.key, v, l.line); err != nil {
					return err
				}
			}
		default:
			x.c.unmapped(m.key, x.path+".resources."+m.key, m.line, "it is not known here what this gives to the container")
		}
	}
	return nil
}

func (x *podContainer) limit(name, v string, line int) error {
	n, ok := quantity(v)
	switch {
	case name == "ephemeral-storage":
	case !ok && (name == "cpu" || name == "memory"):
		return x.errorf(line, "%.64q is no amount of %s", v, name)
	case name == "memory":
		x.c.flag("memory", strconv.FormatInt(int64(n), 10), line)
	case name == "cpu":
		x.c.flag("cpus", strconv.FormatFloat(n, 'f', -1, 64), line)
	default:
		x.c.unmapped("limits", x.path+".resources.limits."+name, line, "a device or other resource of the node")
	}
	return nil
}

// quantity reads Kubernetes' amounts: 500m, 1.5, 128Mi, 1G.
func quantity(s string) (float64, bool) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	f, err := strconv.ParseFloat(digits, 64)
	scale, known := map[string]float64{"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50}[s[len(digits):]]
	f *= scale
	return f, err == nil && known && f >= 0 && f < 1<<60
}

func (x *podContainer) mounts(e entry) error {
	ns, err := x.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		ms, err := x.mapping(n)
		if err != nil {
			return err
		}
		name, line, err := x.member(ms, "name")
		if err != nil {
			return err
		}
		target, _, err := x.member(ms, "mountPath")
		if err != nil {
			return err
		}
		ro := false
		for _, m := range ms {
			switch m.key {
			case "name", "mountPath", "subPath", "subPathExpr", "recursiveReadOnly":
			case "readOnly":
				if ro, err = x.boolean(m.value); err != nil {
					return err
				}
			case "mountPropagation":
				v, _, err := x.scalar(m.value)
				if err != nil {
					return err
				}
				if v != "None" {
					x.c.unmapped("mountPropagation", x.path+".volumeMounts", m.line, "mounts would pass between the node and the container")
				}
			default:
				x.c.unmapped(m.key, x.path+".volumeMounts."+m.key, m.line, "it is not known here what this does")
			}
		}
		v, ok := x.volumes[name]
		switch {
		case !ok && strings.HasPrefix(x.name, "StatefulSet/"):
			v.kind = "persistentVolumeClaim" // of volumeClaimTemplates
		case !ok:
			return x.errorf(line, "the Pod has no volume %.100q", name)
		}
		if !path.IsAbs(target) {
			return x.errorf(line, "mountPath %.200q is no absolute path", target)
		}
		if v.kind == "hostPath" {
			x.c.Binds = append(x.c.Binds, Bind{Source: path.Clean(v.path), Target: path.Clean(target), ReadOnly: ro, Line: line})
			continue
		}
		x.c.Volumes = append(x.c.Volumes, Volume{Type: "volume", Name: name, Target: path.Clean(target), ReadOnly: ro})
	}
	return nil
}
