package engine

import (
	"cmp"
	"fmt"
	"os"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// PullPolicy says when Run asks a registry.
type PullPolicy string

// The pull policies, spelled as Docker spells them.
const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// Request is what somebody asked for, before anything was looked up or
// decided. Zero values mean "the default", and the default is always the
// tighter choice.
type Request struct {
	// Actor is who asks, set at the front door from the kernel's word.
	// It is not kept with a container: each start has its own.
	Actor audit.Actor `json:"-"`
	// Image is a reference, an image id or a prefix of one.
	Image string
	// Pull defaults to PullMissing.
	Pull PullPolicy

	Name     string
	Hostname string
	// Entrypoint replaces the image's when not nil; then Args alone follow.
	Entrypoint []string
	Args       []string
	// Env holds KEY=VALUE, stronger than the image's.
	Env        []string
	WorkingDir string
	// User is as in Docker's -u: user[:group], names or numbers.
	User   string
	Labels map[string]string
	// Groups are further groups, by name or number.
	Groups []string
	// Domainname is the NIS domain.
	Domainname string
	// Sysctls are kernel settings by name; Devices devices of the host.
	Sysctls map[string]string
	Devices []DeviceRequest
	// Hosts are further lines of /etc/hosts, as NAME:ADDRESS.
	Hosts    []string
	Resolver sandbox.Resolver

	// Resources are its limits; container update changes them.
	Resources

	Mounts []sandbox.Mount
	// VolumesFrom names containers whose mounts it gets too: NAME[:ro].
	VolumesFrom []string
	// Anonymous are the volumes among Mounts that nobody named; the engine
	// fills it in. They go with the container if it is asked to take them.
	Anonymous []string
	CapAdd    []string
	CapDrop   []string
	// Writable asks for a writable root file system.
	Writable bool
	// Seccomp is a profile's name; empty means "default". With SeccompFile, the
	// content of a profile in Docker's form, it is the file's name.
	Seccomp     string
	SeccompFile []byte `json:",omitempty"`
	// AllowNewPrivs asks to leave no_new_privs off; the floor refuses it.
	AllowNewPrivs bool
	// Network defaults to "none".
	Network sandbox.Network
	// TCPBind and TCPConnect are the ports of the host's network that may be
	// bound to and connected to; sandbox.AnyPort alone is all.
	TCPBind    []string `json:",omitempty"`
	TCPConnect []string `json:",omitempty"`
	// LandlockOff asks to do without Landlock.
	LandlockOff bool `json:",omitempty"`
	// StopSignal replaces the image's; a name or a number.
	StopSignal string
	// StopTimeout is how many seconds stop waits; nil is ten.
	StopTimeout *int `json:",omitempty"`
	// Log says how much of its output is kept.
	Log LogRequest
	// Restart says when it is started again after its end.
	Restart RestartPolicy
	// Health changes the image's health check or, with a test in the image
	// format's form (CMD or CMD-SHELL first), replaces it.
	Health *HealthCheck `json:",omitempty"`
	// NoHealth switches off the image's health check.
	NoHealth bool

	// Stdin passes the caller's standard input on; StdinOpen keeps the payload's
	// open when a client's ends.
	Stdin     bool
	StdinOpen bool `json:",omitempty"`
	// Terminal gives it a terminal of this size in place of pipes.
	Terminal *sandbox.Terminal `json:",omitempty"`
	// Init starts ward's own init before the command.
	Init bool `json:",omitempty"`
	// Remove forgets the container when it has ended. Its records stay.
	Remove bool
	// Detached runs have no standard streams of the caller's.
	Detached bool
}

// LogRequest is Docker's --log-driver and --log-opt. Output is always kept in
// ward's own form, which verifies against the audit log; the driver says how
// much of it.
type LogRequest struct {
	// Driver is "json-file" (the default), "local" or "none".
	Driver string
	// MaxSize and MaxFiles rotate; zero is the driver's default: json-file keeps
	// the first sandbox.DefaultOutput bytes, local the last 5 files of 20 MB.
	MaxSize  int64
	MaxFiles int
}

// apply sets the limits of the output.
func (r LogRequest) apply(l *sandbox.Limits) error {
	switch r.Driver {
	case "", "json-file":
		if r.MaxSize == 0 && r.MaxFiles > 1 {
			return fault.New(fault.Invalid, "run.log-opt", "max-file needs max-size", "give --log-opt max-size too")
		}
		if r.MaxSize != 0 {
			l.OutputFile, l.OutputFiles = r.MaxSize, cmp.Or(r.MaxFiles, 1)
		}
	case "local":
		l.OutputFile, l.OutputFiles = cmp.Or(r.MaxSize, 20_000_000), cmp.Or(r.MaxFiles, 5)
	case "none":
		l.Output = 0
	default:
		return fault.New(fault.Invalid, "run.log-driver", fmt.Sprintf("the log driver %.64q is not there", r.Driver), "use json-file, local or none")
	}
	return nil
}

// Stdio are the caller's standard streams; nil means none.
type Stdio struct{ In, Out, Err *os.File }
