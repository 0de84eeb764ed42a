package sandbox

// OCIName is the name (argument zero) under which ward-launch works for
// ward-oci. libcontainer hands it on to the container's init.
const OCIName = "ward-oci"

// The commands of ward-launch under that name.
const (
	// OCICommandLaunch makes what a plan on record says.
	OCICommandLaunch = "oci"
	// OCICommandMonitor and OCICommandWatch are the monitor before and after
	// it has given up its privileges.
	OCICommandMonitor = "oci-monitor"
	OCICommandWatch   = "oci-watch"
	// OCICommandOperate is a request about a container that is there.
	OCICommandOperate = "oci-operate"
)

// The descriptors of ward-launch as an OCI runtime's launcher; 0, 1 and 2 are
// the caller's, because they become the payload's. What is not given is the
// null device.
const (
	// FDOCIMonitor is a pidfd of the monitor, FDOCIHandover the launcher's end
	// of its socket to it (for the monitor itself: the monitor's end).
	FDOCIMonitor = FDControl + 1 + iota
	FDOCIHandover
	// FDOCIConsole is the socket that gets the terminal's master.
	FDOCIConsole
	// FDOCILog is the log file of the caller.
	FDOCILog
	// FDOCIExtra is the first of the descriptors that go to the payload.
	FDOCIExtra
)

// OCIHandover is what the launcher tells the monitor of a container, together
// with a pidfd of its first process.
type OCIHandover struct {
	PID int `json:"pid"`
	// Exec is the id of a process that was added, or "" for the first one.
	Exec string `json:"exec,omitempty"`
	// Announced says that the process is not there yet, and Index what place
	// in the log its intent, for this run, has.
	Announced bool              `json:"announced,omitempty"`
	Index     int64             `json:"index,omitempty"`
	Run       string            `json:"run,omitempty"`
	Cgroups   map[string]string `json:"cgroups"`
	Memory    int64             `json:"memory,omitempty"`
}

// OCIRequest is a request about a container that exists; it starts nothing
// that a plan has not let in.
type OCIRequest struct {
	Op OCIVerb `json:"op"`
	// Root is the runtime's --root, ID the container.
	Root string `json:"root"`
	ID   string `json:"id"`
	// Run, if it is set, is the run that was decided about: another container
	// under that name is left alone.
	Run string `json:"run,omitempty"`

	Signal int  `json:"signal,omitempty"`
	All    bool `json:"all,omitempty"`
	Force  bool `json:"force,omitempty"`
	// Format and Quiet belong to list and ps, Args to ps and spec.
	Format string   `json:"format,omitempty"`
	Quiet  bool     `json:"quiet,omitempty"`
	Args   []string `json:"args,omitempty"`
	// Stats asks events for one report, else for one every Interval.
	Stats    bool  `json:"stats,omitempty"`
	Interval int64 `json:"interval,omitempty"`
	// Resources is the JSON text of update.
	Resources string `json:"resources,omitempty"`
	L3Cache   string `json:"l3_cache,omitempty"`
	MemBw     string `json:"mem_bw,omitempty"`
	Rootless  bool   `json:"rootless,omitempty"`
}

// OCIVerb is what an OCIRequest asks for.
type OCIVerb string

// The verbs on containers that exist, as the OCI command line spells them.
const (
	OCIStart    OCIVerb = "start"
	OCIState    OCIVerb = "state"
	OCIKill     OCIVerb = "kill"
	OCIDelete   OCIVerb = "delete"
	OCIList     OCIVerb = "list"
	OCIPs       OCIVerb = "ps"
	OCIPause    OCIVerb = "pause"
	OCIResume   OCIVerb = "resume"
	OCIUpdate   OCIVerb = "update"
	OCIEvents   OCIVerb = "events"
	OCIFeatures OCIVerb = "features"
	OCISpec     OCIVerb = "spec"
)

// OCIStateDir is where, below the directory of a container, libcontainer has
// its own.
const OCIStateDir = "state"
