package sandbox

import (
	"fmt"

	"github.com/ward-project/ward/internal/fault"
)

// OCIPlanVersion is the version of OCIPlan's encoding. A launcher refuses any
// other.
const OCIPlanVersion = 2

// Bounds of an OCI request, in bytes: the specification as it was read, and
// the plan around it, in which it is a JSON string.
const (
	MaxOCISpec = 4 << 20
	MaxOCIPlan = 12 << 20
)

// OCIOp is what an OCI plan asks for.
type OCIOp string

// The operations that start something and so need a plan that is on record.
const (
	// OCICreate makes a container and stops before its payload.
	OCICreate OCIOp = "create"
	// OCIExec starts another process in a running container.
	OCIExec OCIOp = "exec"
)

// OCIPlan is what the gate has decided about one request of an OCI runtime's
// caller. What the container is like is the caller's specification, byte for
// byte as the gate read and judged it; everything else is the gate's.
type OCIPlan struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
	Op      OCIOp  `json:"op"`
	// Run is the id of the container's records: 64 lower-case hex digits.
	Run string `json:"run"`
	// Exec is the id of the process that OCIExec starts, or "".
	Exec string `json:"exec"`
	// ID is the container's name, as its caller gave it.
	ID string `json:"id"`
	// StateDir is the container's directory below the runtime's --root.
	StateDir string `json:"state_dir"`
	Bundle   string `json:"bundle"`
	// Spec is the text of config.json; for OCIExec, of the process.
	Spec string `json:"spec"`
	// Rootfs is where the root file system of OCICreate is, and Sources what
	// each of its mounts shows of the host ("" for one that shows nothing of
	// it), as policy judged them: with all links followed.
	Rootfs  string   `json:"rootfs"`
	Sources []string `json:"sources"`
	// Digest is the verified image's, "sha256:…", or empty.
	Digest string `json:"digest"`

	SystemdCgroup bool `json:"systemd_cgroup"`
	NoPivot       bool `json:"no_pivot"`
	NoNewKeyring  bool `json:"no_new_keyring"`
	// SharedPID says that policy allowed a container without a PID namespace
	// of its own: the kernel then does not end it with its monitor.
	SharedPID bool `json:"shared_pid"`
	// PreserveFDs is how many of the caller's descriptors from 3 on go along.
	PreserveFDs int `json:"preserve_fds"`
	// ConsoleSocket and PidfdSocket are paths of the caller's sockets, PIDFile
	// of the file that gets the process id; empty is none.
	ConsoleSocket string `json:"console_socket"`
	PidfdSocket   string `json:"pidfd_socket"`
	PIDFile       string `json:"pid_file"`
	// SubCgroups and IgnorePaused belong to OCIExec.
	SubCgroups   []string `json:"sub_cgroups"`
	IgnorePaused bool     `json:"ignore_paused"`

	AuditDir string `json:"audit_dir"`
	// Keep are ward's own directories, which no container gets to see.
	Keep []string `json:"keep"`
}

// Encode returns the plan's one canonical encoding, as Plan.Encode does.
func (p OCIPlan) Encode() ([]byte, error) {
	if len(p.Spec) > MaxOCISpec {
		return nil, fault.New(fault.Invalid, "plan.size",
			fmt.Sprintf("the specification has %d bytes and %d are allowed", len(p.Spec), MaxOCISpec), "ask for less in one container")
	}
	return encode(p.normal(), MaxOCIPlan)
}

// DecodeOCIPlan reads an encoded plan: exactly what Encode writes.
func DecodeOCIPlan(b []byte) (OCIPlan, error) {
	p, err := decode(b, MaxOCIPlan, OCIPlan.normal)
	if err == nil {
		err = readable(p.Version, OCIPlanVersion)
	}
	if err != nil {
		return OCIPlan{}, err
	}
	return p, nil
}

func (p OCIPlan) normal() OCIPlan {
	p.SubCgroups, p.Keep, p.Sources = list(p.SubCgroups), list(p.Keep), list(p.Sources)
	return p
}
