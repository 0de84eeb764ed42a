package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// defaultCapabilities are those that a Kubernetes runtime gives to a container
// that says nothing, and that the Pod Security Standards' baseline takes no
// offence at; restricted wants them dropped.
var defaultCapabilities = strings.Fields(`AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT`)

// context reads a securityContext. What no run has goes to note.
func (p *pod) context(e entry, at string, note func(name, path string, line int, why string)) (context, error) {
	c := context{line: e.line}
	ms, err := p.mapping(e.value)
	if err != nil {
		return c, err
	}
	set := func(to **bool, m entry) error {
		v, err := p.boolean(m.value)
		*to = &v
		return err
	}
	for _, m := range ms {
		if p.isNull(m.value) {
			continue
		}
		switch m.key {
		case "fsGroup", "fsGroupChangePolicy", "supplementalGroupsPolicy", "seLinuxChangePolicy":
		case "runAsUser":
			err = p.text(m, func(v string) { c.user = v })
		case "runAsGroup":
			err = p.text(m, func(v string) { c.group = v })
		case "runAsNonRoot":
			err = set(&c.nonRoot, m)
		case "privileged":
			c.privilegedAt = m.line
			err = set(&c.privileged, m)
		case "allowPrivilegeEscalation":
			err = set(&c.escalation, m)
		case "readOnlyRootFilesystem":
			err = set(&c.readOnly, m)
		case "procMount":
			err = p.text(m, func(v string) { c.procMount = v })
		case "supplementalGroups":
			err = p.groups(m)
		case "sysctls":
			err = p.sysctls(m)
		case "capabilities":
			err = p.capabilities(m, &c)
		case "seccompProfile":
			c.seccompLine = m.line
			c.seccomp, err = p.profile(m)
		case "appArmorProfile":
			c.apparmor, err = p.profile(m)
		case "seLinuxOptions":
			err = p.seLinux(m, &c)
		case "windowsOptions":
			err = p.windows(m, &c)
		default:
			note(m.key, at+"."+m.key, m.line, "it is not known here what this does")
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (p *pod) groups(e entry) error {
	gs, err := p.texts(e.value)
	for _, g := range gs {
		p.flags = append(p.flags, Flag{"group-add", g, e.line})
	}
	return err
}

func (p *pod) sysctls(e entry) error {
	ns, err := p.list(e.value)
	if err != nil {
		return err
	}
	for _, n := range ns {
		ms, err := p.mapping(n)
		if err != nil {
			return err
		}
		name, line, err := p.member(ms, "name")
		if err != nil {
			return err
		}
		v, _, err := p.member(ms, "value")
		if err != nil {
			return err
		}
		p.flags = append(p.flags, Flag{"sysctl", name + "=" + v, line})
	}
	return nil
}

func (p *pod) capabilities(e entry, c *context) error {
	ms, err := p.mapping(e.value)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if p.isNull(m.value) {
			continue
		}
		l, err := p.texts(m.value)
		if err != nil {
			return err
		}
		switch m.key {
		case "add":
			c.add = l
		case "drop":
			c.drop = l
			c.dropsAll = slices.ContainsFunc(l, func(s string) bool { return strings.EqualFold(s, "ALL") })
		default:
			return p.errorf(m.line, "capabilities have no %.64q", m.key)
		}
	}
	return nil
}

// profile reads {type, localhostProfile}.
func (p *pod) profile(e entry) (string, error) {
	ms, err := p.mapping(e.value)
	if err != nil {
		return "", err
	}
	kind, _, err := p.member(ms, "type")
	if err != nil {
		return "", err
	}
	local, err := p.optional(ms, "localhostProfile")
	if kind == "Localhost" {
		kind = "localhost/" + local
	}
	return kind, err
}

func (p *pod) seLinux(e entry, c *context) error {
	ms, err := p.mapping(e.value)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if err := p.text(m, func(v string) { c.seLinux = append(c.seLinux, "label="+m.key+":"+v) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *pod) windows(e entry, c *context) error {
	ms, err := p.mapping(e.value)
	if err != nil {
		return err
	}
	if h, ok := ms.get("hostProcess"); ok {
		c.hostProcess, err = p.boolean(h.value)
	}
	return err
}

// settle turns what the Pod and the container say into options of run. What
// neither says is what a node does then, which is not always what a run does:
// privileges can be gained, capabilities are held, and there is no filter.
func (x *podContainer) settle(line int) {
	pod, own, c := x.security, x.own, x.c
	at := cmp.Or(own.line, pod.line, line)
	c.Flags = append(c.Flags, x.flags...)
	if user := cmp.Or(own.user, pod.user); user != "" {
		if group := cmp.Or(own.group, pod.group); group != "" {
			user += ":" + group
		}
		c.flag("user", user, at)
		x.k.RunAsRoot = user == "0" || strings.HasPrefix(user, "0:")
	}
	x.k.RunAsNonRoot = either(own.nonRoot, pod.nonRoot)
	x.k.Privileged, x.k.HostProcess = either(own.privileged, nil), own.hostProcess || pod.hostProcess
	x.k.ProcMount = own.procMount
	if own.escalation == nil || *own.escalation {
		c.flag("security-opt", "no-new-privileges=false", at)
	}
	c.flag("read-only", fmt.Sprint(either(own.readOnly, nil)), at)
	if !own.dropsAll {
		for _, name := range defaultCapabilities {
			if !slices.ContainsFunc(own.drop, func(d string) bool { return strings.TrimPrefix(strings.ToUpper(d), "CAP_") == name }) {
				c.flag("cap-add", name, at)
			}
		}
	}
	for _, name := range own.add {
		c.flag("cap-add", name, at)
	}
	switch profile := cmp.Or(own.seccomp, pod.seccomp); profile {
	case "RuntimeDefault":
	case "", "Unconfined":
		c.flag("security-opt", "seccomp=unconfined", cmp.Or(own.seccompLine, pod.seccompLine, at))
	default:
		c.unmapped("seccompProfile", x.path+".securityContext.seccompProfile", cmp.Or(own.seccompLine, pod.seccompLine, at), "what the node's own profile allows is not known here")
	}
	x.confined(cmp.Or(own.apparmor, pod.apparmor), at)
	labels := own.seLinux
	if labels == nil {
		labels = pod.seLinux
	}
	for _, l := range labels {
		c.option(l, at)
	}
	if x.k.HostNetwork {
		c.flag("network", "host", at)
	} else {
		c.Unknowns = append(c.Unknowns, "run.network")
	}
}

func (x *podContainer) confined(profile string, line int) {
	switch {
	case profile == "" || profile == "RuntimeDefault":
	case profile == "Unconfined":
		x.c.option("apparmor=unconfined", line)
	default:
		x.c.option("apparmor="+profile, line)
	}
}

// option is a security option that is a fact and no option of run: ward sets
// neither AppArmor profiles nor SELinux labels, and policy judges them.
func (c *Container) option(v string, line int) { c.flag("fact-security-opt", v, line) }

func either(a, b *bool) bool {
	if a == nil {
		a = b
	}
	return a != nil && *a
}
