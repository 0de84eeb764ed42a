package policy

// OCI is what a caller of ward-oci asks for, beyond what Run says. It is empty
// at other points. The caller is the input's actor: the parent of ward-oci, as
// the kernel describes it.
type OCI struct {
	// Op is "create", "exec", "start", "update", "pause" or "resume", and for
	// callers other than root "kill" or "delete". Run describes the container:
	// with the process that an exec adds, with the limits that an update asks
	// for. Of its limits 0 is none; a swap of -1 is all there is.
	Op string `json:"op"`
	// ID is the container's name, Bundle its directory.
	ID     string `json:"id"`
	Bundle string `json:"bundle"`
	// SpecDigest is "sha256:…" of config.json, or of the process of an exec.
	SpecDigest  string            `json:"spec_digest"`
	Annotations map[string]string `json:"annotations"`
	// Namespaces are those of its own (an empty path) and those it joins; what
	// is not listed it shares with its caller.
	Namespaces []OCINamespace `json:"namespaces"`
	// SharedPID says that it has no PID namespace of its own, so that the
	// kernel does not end it with its monitor.
	SharedPID bool `json:"shared_pid"`
	// Rootfs is the path of its root file system.
	Rootfs string `json:"rootfs"`
	// Hooks are the programs that run outside of it, or in it, on its account.
	Hooks []string `json:"hooks"`
	// Inheritable and Ambient are its further capability sets.
	Inheritable []string `json:"inheritable"`
	Ambient     []string `json:"ambient"`
}

// OCINamespace is one namespace of a specification.
type OCINamespace struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// fill turns absent lists and maps into empty ones.
func (o *OCI) fill() {
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	if o.Namespaces == nil {
		o.Namespaces = []OCINamespace{}
	}
	for _, l := range []*[]string{&o.Hooks, &o.Inheritable, &o.Ambient} {
		if *l == nil {
			*l = []string{}
		}
	}
}
