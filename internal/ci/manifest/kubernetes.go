package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// templates says where each kind of object keeps its Pod.
var templates = map[string][]string{
	"Pod": {}, "PodTemplate": {"template"}, "Deployment": {"spec", "template"}, "StatefulSet": {"spec", "template"}, "DaemonSet": {"spec", "template"},
	"ReplicaSet": {"spec", "template"}, "ReplicationController": {"spec", "template"}, "Job": {"spec", "template"},
	"CronJob": {"spec", "jobTemplate", "spec", "template"},
}

// podless are the kinds of Kubernetes' own groups of which no object runs a
// container. An object of any other kind may be a template of an operator's.
var podless = strings.Fields(`Namespace Service ConfigMap Secret ServiceAccount Endpoints EndpointSlice Event LimitRange ResourceQuota
	PersistentVolume PersistentVolumeClaim StorageClass VolumeAttributesClass CSIDriver Ingress IngressClass NetworkPolicy Role RoleBinding
	ClusterRole ClusterRoleBinding HorizontalPodAutoscaler PodDisruptionBudget PriorityClass RuntimeClass Lease CustomResourceDefinition`)

// ownGroups are the API groups whose kinds those are.
var ownGroups = strings.Fields(`apps batch autoscaling policy networking.k8s.io rbac.authorization.k8s.io storage.k8s.io scheduling.k8s.io
	discovery.k8s.io coordination.k8s.io node.k8s.io events.k8s.io apiextensions.k8s.io`)

// object reads one Kubernetes object, or a list of them.
func (r *reader) object(top members, where string, depth int) error {
	if depth > 4 {
		return r.errorf(0, "%s: lists are nested too deeply", where)
	}
	kind, line, err := r.member(top, "kind")
	if err != nil {
		return err
	}
	version, _, err := r.member(top, "apiVersion")
	if err != nil {
		return err
	}
	if strings.HasSuffix(kind, "List") {
		return r.items(top, where, line, depth)
	}
	name := kind + "/" + r.objectName(top)
	group, _, grouped := strings.Cut(version, "/")
	own := !grouped || slices.Contains(ownGroups, group)
	if own && slices.Contains(podless, kind) {
		return nil
	}
	way, ok := templates[kind]
	if !own || !ok {
		c := Container{Kind: Kubernetes, Name: name, Line: line, K8s: &k8s{Kind: kind}}
		c.unmapped("kind", "kind", line, fmt.Sprintf("what an object of kind %.100q (%.100q) runs is not known here", kind, version))
		return r.add(c)
	}
	meta, pod := top, top
	for _, step := range way {
		e, ok := pod.get(step)
		if !ok || r.isNull(e.value) {
			return r.errorf(line, "%s has no %s", name, strings.Join(way, "."))
		}
		if pod, err = r.mapping(e.value); err != nil {
			return err
		}
	}
	return r.pod(pod, name, kind, meta, line)
}

func (r *reader) items(top members, where string, line, depth int) error {
	e, ok := top.get("items")
	if !ok {
		return r.errorf(line, "%s is a list without items", where)
	}
	ns, err := r.list(e.value)
	if err != nil {
		return err
	}
	for i, n := range ns {
		ms, err := r.mapping(n)
		if err != nil {
			return err
		}
		r.from, r.doc = n, nil
		if err := r.object(ms, fmt.Sprintf("%s item %d", where, i+1), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// member is a text that has to be there.
func (r *reader) member(m members, key string) (string, int, error) {
	e, ok := m.get(key)
	if !ok {
		return "", 0, r.errorf(0, "an object has no %s", key)
	}
	s, n, err := r.scalar(e.value)
	if err != nil {
		return "", 0, err
	}
	return s, n.Line, nil
}

// optional is a text that may be there.
func (r *reader) optional(m members, key string) (string, error) {
	e, ok := m.get(key)
	if !ok || r.isNull(e.value) {
		return "", nil
	}
	s, _, err := r.scalar(e.value)
	return s, err
}

func (r *reader) objectName(top members) string {
	return cmp.Or(r.metadata(top, "name"), r.metadata(top, "generateName"), "?")
}

func (r *reader) metadata(top members, key string) string {
	e, ok := top.get("metadata")
	if !ok {
		return ""
	}
	ms, err := r.mapping(e.value)
	if err != nil {
		return ""
	}
	s, _ := r.optional(ms, key)
	return s
}

// pod reads the containers of one Pod.
func (r *reader) pod(tmpl members, name, kind string, meta members, line int) error {
	e, ok := tmpl.get("spec")
	if !ok {
		return r.errorf(line, "%s: the Pod has no spec", name)
	}
	spec, err := r.mapping(e.value)
	if err != nil {
		return err
	}
	p := &pod{reader: r, name: name, facts: k8s{Operation: "CREATE", Kind: kind, Namespace: r.metadata(meta, "namespace"), Name: r.metadata(meta, "name")}}
	if err := p.read(spec); err != nil {
		return err
	}
	found := 0
	for _, list := range []struct{ key, role string }{{"initContainers", "init"}, {"containers", "container"}, {"ephemeralContainers", "ephemeral"}} {
		e, ok := spec.get(list.key)
		if !ok || r.isNull(e.value) {
			continue
		}
		ns, err := r.list(e.value)
		if err != nil {
			return err
		}
		for i, n := range ns {
			ms, err := r.mapping(n)
			if err != nil {
				return err
			}
			m, err := r.resolve(n)
			if err != nil {
				return err
			}
			if err := p.container(ms, list.role, fmt.Sprintf("%s[%d]", list.key, i), m.Line); err != nil {
				return err
			}
			found++
		}
	}
	if found == 0 {
		return r.errorf(e.line, "%s: the Pod has no containers", name)
	}
	return nil
}
