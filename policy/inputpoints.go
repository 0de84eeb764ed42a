package policy

import "encoding/json"

// Restart is the start of a container that ran before, beyond what Run says.
// It is empty at other points.
type Restart struct {
	// By is "keeper" for a start that its restart policy asks for, "user" for
	// one by hand.
	By string `json:"by"`
	// Count is how often the keeper has started it since somebody did.
	Count int `json:"count"`
	// ExitCode is that of its last run.
	ExitCode int `json:"exit_code"`
}

// Pull is an image that is to be fetched, before a byte of it is: of Image
// only the names are known. It is empty at other points.
type Pull struct {
	// For is "pull" when somebody asks for the image, "run" when a start needs it.
	For string `json:"for"`
	// Platform is the one asked for, or empty.
	Platform string `json:"platform"`
}

// Build is a step of a build. It is empty at other points.
type Build struct {
	// Step is "from" for an image that the build takes in (Image and Evidence
	// are that image's, Run is empty) or "run" for a command that the build
	// runs in one, which Run describes.
	Step string `json:"step"`
	// Dockerfile is the file's name, Stage the stage's, Target what is built.
	Dockerfile string `json:"dockerfile"`
	Stage      string `json:"stage"`
	Target     string `json:"target"`
	// ArgNames are the names of the build's arguments; values are left out.
	ArgNames []string `json:"arg_names"`
}

// CI is where a gate in a pipeline found what it asks about, at point ci, or at
// point k8s for an object in a file. It is empty elsewhere.
type CI struct {
	// Kind is "image", "compose" or "k8s"; File the file, Name the service or
	// the container in it.
	Kind string `json:"kind"`
	File string `json:"file"`
	Name string `json:"name"`
}

// K8s is what a Pod asks for that no run of ward's own can, one container at a
// time; Run describes the rest. It is empty at other points.
type K8s struct {
	// Operation is "CREATE" or "UPDATE"; Kind is the object's ("Deployment").
	Operation string `json:"operation"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Container is the container's name, Role "container", "init" or "ephemeral".
	Container string `json:"container"`
	Role      string `json:"role"`
	// User and Groups are the API server's for who asks.
	User   string   `json:"user"`
	Groups []string `json:"groups"`

	Privileged  bool `json:"privileged"`
	HostNetwork bool `json:"host_network"`
	HostPID     bool `json:"host_pid"`
	HostIPC     bool `json:"host_ipc"`
	// HostProcess is Windows' kind of privileged container.
	HostProcess bool `json:"host_process"`
	// HostPorts are ports of the node that the container takes.
	HostPorts []int `json:"host_ports"`
	// ProbeHosts are the hosts that probes and lifecycle hooks name.
	ProbeHosts []string `json:"probe_hosts"`
	// ProcMount is "Default" or "Unmasked"; empty is Default.
	ProcMount string `json:"proc_mount"`
	// RunAsNonRoot says that the kubelet refuses to start it as root.
	RunAsNonRoot bool `json:"run_as_non_root"`
	// RunAsRoot says that it names the user 0.
	RunAsRoot bool `json:"run_as_root"`
	// VolumeTypes are those of the Pod's volumes ("hostPath", "emptyDir").
	VolumeTypes []string `json:"volume_types"`
}

// fillPoints turns what is absent in the sections of the points into empty.
func (in *Input) fillPoints() {
	in.OCI.fill()
	in.Exec.fill()
	for _, l := range []*[]string{&in.Build.ArgNames, &in.K8s.Groups, &in.K8s.ProbeHosts, &in.K8s.VolumeTypes, &in.Unknowns} {
		if *l == nil {
			*l = []string{}
		}
	}
	if in.Unmapped == nil {
		in.Unmapped = []Unmapped{}
	}
	if in.K8s.HostPorts == nil {
		in.K8s.HostPorts = []int{}
	}
	if len(in.Document) == 0 {
		in.Document = json.RawMessage("null")
	}
}
