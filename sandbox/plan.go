package sandbox

// PlanVersion is the version of Plan's encoding. A launcher refuses any other.
const PlanVersion = 5

// Build identifies the source this binary was built from. The gate writes its
// own into every plan and the launcher refuses a plan of another build, so an
// upgrade that replaced only one of the two programs fails at once and clearly.
// Set by the linker; "dev" otherwise.
var Build = "dev"

// Plan is everything about one container that the gate has decided, and all
// the launcher is told. It is plain data with no defaults: what is absent is
// off, and what must be present and is not makes the plan invalid.
type Plan struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
	// Container is the container's id, Run that of this start: 64 lower-case hex
	// digits each; "ward run" uses one id for both.
	Container string `json:"container"`
	Run       string `json:"run"`
	// Start counts the container's starts, from 1. A launcher refuses one that
	// is not above all that have been: an old receipt starts nothing again.
	Start    int    `json:"start"`
	Name     string `json:"name"`
	Hostname string `json:"hostname"`
	// Domainname is the NIS domain; empty leaves it unset.
	Domainname string `json:"domainname"`
	Image      Image  `json:"image"`

	Process Process `json:"process"`
	Root    Root    `json:"root"`
	Mounts  []Mount `json:"mounts"`
	IDMap   IDMap   `json:"id_map"`
	Network Network `json:"network"`
	Limits  Limits  `json:"limits"`
	Seccomp Seccomp `json:"seccomp"`
	// Landlock is as Landlocked makes it.
	Landlock Landlock `json:"landlock"`
	// Sysctls are sorted by name.
	Sysctls []Sysctl `json:"sysctls"`
	// Devices are those beside the ones every container has.
	Devices []Device `json:"devices"`
	// Hosts are further lines of /etc/hosts, Resolver is /etc/resolv.conf.
	Hosts    []HostName `json:"hosts"`
	Resolver Resolver   `json:"resolver"`
	// MaskedPaths are hidden, ReadonlyPaths made read-only; absolute, inside.
	MaskedPaths   []string `json:"masked_paths"`
	ReadonlyPaths []string `json:"readonly_paths"`
	Host          Host     `json:"host"`
}

// Image says what was verified. The launcher records it and does not use it.
type Image struct {
	Reference string `json:"reference"`
	// Digest is the manifest's, "sha256:…".
	Digest string `json:"digest"`
}

// Process is the first process of the container.
type Process struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Cwd  string   `json:"cwd"`
	// UID, GID and Groups are ids inside the container, already looked up.
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
	// Capabilities are permitted, effective and bounding ("CAP_CHOWN").
	// Inheritable and ambient sets are always empty (CVE-2022-29162).
	Capabilities []string `json:"capabilities"`
	NoNewPrivs   bool     `json:"no_new_privs"`
	Rlimits      []Rlimit `json:"rlimits"`
	// OOMScoreAdj makes the payload a likelier victim of a host short of
	// memory; 0 to 1000, never less than anybody else's.
	OOMScoreAdj int `json:"oom_score_adj"`
	// Stdin says whether the payload gets the caller's standard input; without
	// it, it reads end of file.
	Stdin bool `json:"stdin"`
	// StdinOpen keeps its input open when that of a client has ended, for the
	// next client. On a terminal it always stays open.
	StdinOpen bool `json:"stdin_open,omitempty"`
	// Init puts ward's own small init before the payload, as the container's
	// first process.
	Init bool `json:"init,omitempty"`
	// Terminal is what the payload gets in place of three pipes; nil is none.
	Terminal *Terminal `json:"terminal,omitempty"`
}

// Terminal is the size of a terminal in characters; zero leaves it unset.
type Terminal struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Rlimit is one resource limit; Type as in "RLIMIT_NOFILE".
type Rlimit struct {
	Type string `json:"type"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Root is the container's root file system.
type Root struct {
	// Layers are unpacked, immutable layer directories, lowest first.
	Layers []Layer `json:"layers"`
	// Writable gives the container a layer of its own under Host.ContainerDir;
	// otherwise the root is mounted read-only and nothing is kept.
	Writable bool `json:"writable"`
}

// Layer is one unpacked layer.
type Layer struct {
	DiffID string `json:"diff_id"`
	// Path is the host directory that holds it.
	Path string `json:"path"`
}

// Sysctl is a kernel setting of one of the container's own namespaces.
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Device is a device of the host that the container may use.
type Device struct {
	// Source is its path on the host, symbolic links resolved; Target its name
	// in the container's /dev.
	Source string `json:"source"`
	Target string `json:"target"`
	// Type is "c" or "b".
	Type  string `json:"type"`
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	// Access is "r", "w" or "rw". Making device nodes is never among it.
	Access string `json:"access"`
}

// HostName is a line of /etc/hosts.
type HostName struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Resolver is the container's /etc/resolv.conf. Without servers it is the
// host's on the host's network, and empty without a network.
type Resolver struct {
	Servers []string `json:"servers"`
	Search  []string `json:"search"`
	Options []string `json:"options"`
}

// IDMap is the container's own range: ids 0..Size-1 inside are Base.. outside,
// for users and groups alike.
type IDMap struct {
	Base uint32 `json:"base"`
	Size uint32 `json:"size"`
}

// Network is how the container is connected.
type Network string

// The networks this version knows.
const (
	// NetworkNone is a network namespace with loopback alone.
	NetworkNone Network = "none"
	// NetworkHost is the host's own network namespace.
	NetworkHost Network = "host"
)

// Host says where on the host this container's files are.
type Host struct {
	// ContainerDir holds plan, status, output log and writable layer.
	ContainerDir string `json:"container_dir"`
	// RuntimeDir is volatile: control socket and libcontainer's state.
	RuntimeDir string `json:"runtime_dir"`
	// AuditDir is the audit log the launcher records in.
	AuditDir string `json:"audit_dir"`
	// VolumeDir is where named volumes are kept; empty if the container may
	// have none.
	VolumeDir string `json:"volume_dir,omitempty"`
	// Keep are ward's own directories (state, run, configuration), which no bind
	// shows.
	Keep []string `json:"keep"`
}
