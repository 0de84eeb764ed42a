package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/ward-project/ward/internal/fault"
)

// InputVersion is the version of Input's form. It grows only when a field
// changes its meaning or goes away; docs/schema/policy-input-v1.json is its
// published schema.
const InputVersion = 1

// maxInput bounds the encoded input. Argument lists of a run are bounded by
// the kernel at 2 MiB; a decision about more than this is not worth making.
const maxInput = 2 << 20

// Input is everything a policy may look at: plain data, complete, the final
// values of the run. Decide fills Version; the caller fills the rest.
type Input struct {
	Version int `json:"version"`
	// Point is where in ward's life the question is asked: one of the Point
	// constants.
	Point string `json:"point"`
	// Now is the only clock a policy has.
	Now   time.Time `json:"now"`
	Actor Actor     `json:"actor"`
	Image Image     `json:"image"`
	// Evidence is what verification found, as verify.Evidence marshals itself;
	// empty means nothing was verified.
	Evidence json.RawMessage `json:"evidence"`
	// Predicates are those of the attestations in Evidence, by digest. Decide
	// puts each in its place, as its attestation's "predicate".
	Predicates map[string]json.RawMessage `json:"-"`
	Run        Run                        `json:"run"`
	OCI        OCI                        `json:"oci"`
	Exec       Exec                       `json:"exec"`
	Cp         Cp                         `json:"cp"`
	Attach     Attach                     `json:"attach"`
	Restart    Restart                    `json:"restart"`
	Pull       Pull                       `json:"pull"`
	Build      Build                      `json:"build"`
	CI         CI                         `json:"ci"`
	K8s        K8s                        `json:"k8s"`
	Host       Host                       `json:"host"`
	// Document is what the request was read from, where that is a document: a
	// Kubernetes object, a compose file, a Dockerfile's instructions; else null.
	Document json.RawMessage `json:"document"`
	// Unknowns names members of the input that are not known at this point
	// ("host.memory") and therefore empty.
	Unknowns []string `json:"unknowns"`
	// Unmapped are the fields of the document that have no equivalent in the
	// input: what they would do is not judged, so the shipped rules deny each.
	Unmapped []Unmapped `json:"unmapped"`
}

// Unmapped is one field of a document that has no equivalent in the input.
type Unmapped struct {
	// Name is the field's own ("ports"), Path where it stands
	// ("services.web.ports"), Line its line in the file.
	Name string `json:"name"`
	Path string `json:"path"`
	Line int    `json:"line"`
	// Why says what it would do, or what of it is not known.
	Why string `json:"why"`
}

// Actor is who asks, read from the kernel at the front door.
type Actor struct {
	UID uint32 `json:"uid"`
	// LoginUID is the audit login uid; 4294967295 where none was set.
	LoginUID uint32 `json:"loginuid"`
	PID      int    `json:"pid"`
	Exe      string `json:"exe"`
	TTY      string `json:"tty"`
}

// Run is the final specification: what will be applied, not what was asked.
type Run struct {
	Name     string   `json:"name"`
	Hostname string   `json:"hostname"`
	Args     []string `json:"args"`
	// EnvNames are the names of the environment's variables. Values are left
	// out: they hold secrets, and inputs are kept.
	EnvNames []string `json:"env_names"`
	Cwd      string   `json:"cwd"`
	User     User     `json:"user"`
	// Capabilities are all the process will hold ("CAP_CHOWN").
	Capabilities []string `json:"capabilities"`
	NoNewPrivs   bool     `json:"no_new_privs"`
	// ReadOnly says that the root file system is mounted read-only.
	ReadOnly bool `json:"read_only"`
	// Init says that ward's own init runs before the command.
	Init bool `json:"init"`
	// Network is "none" or "host".
	Network string  `json:"network"`
	Mounts  []Mount `json:"mounts"`
	Limits  Limits  `json:"limits"`
	// Sysctls are kernel settings of the container's own namespaces, Devices
	// those of the host's it may use.
	Sysctls []Sysctl `json:"sysctls"`
	Devices []Device `json:"devices"`
	Seccomp Seccomp  `json:"seccomp"`
	// Landlock is what the kernel's Landlock adds.
	Landlock Landlock `json:"landlock"`
	// SecurityOpt are the --security-opt values as given.
	SecurityOpt   []string          `json:"security_opt"`
	Labels        map[string]string `json:"labels"`
	MaskedPaths   []string          `json:"masked_paths"`
	ReadonlyPaths []string          `json:"readonly_paths"`
	// Requested is what the user asked for beyond the defaults.
	Requested Requested `json:"requested"`
}

// User is the identity of the first process, inside the container.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Mount is one mount on top of the fixed ones.
type Mount struct {
	// Type is "bind", "tmpfs", "volume" or "image".
	Type string `json:"type"`
	// Name is a volume's name, or the full reference of a mounted image.
	Name string `json:"name"`
	// Source is a bind's host path, absolute, symbolic links resolved.
	Source string `json:"source"`
	// Checksum is a mounted image's digest. Verified says that it was verified
	// under the trust policies, as the image that runs was.
	Checksum string `json:"checksum"`
	Verified bool   `json:"verified"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
	// Exec says that programs may be executed from it.
	Exec bool `json:"exec"`
}

// Sysctl is one kernel setting.
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Device is one device of the host.
type Device struct {
	// Source is its path on the host, symbolic links resolved; Target its name
	// inside; Access "r", "w" or "rw".
	Source string `json:"source"`
	Target string `json:"target"`
	Access string `json:"access"`
}

// Limits are always finite; zero or less means "not limited" and is denied
// (but for Swap, where zero means no swap).
type Limits struct {
	// Memory is in bytes; Swap is what may be swapped on top of it.
	Memory int64 `json:"memory"`
	Swap   int64 `json:"swap"`
	PIDs   int64 `json:"pids"`
	// CPUs is processor time per time: 1.5 is one and a half processors.
	CPUs float64 `json:"cpus"`

	// The rest may be zero or empty, which is the kernel's default.

	// Reservation is memory, in bytes, and Shm the size of /dev/shm.
	Reservation int64 `json:"reservation"`
	Shm         int64 `json:"shm"`
	// CPUShares and IOWeight are weights against ward's other containers.
	CPUShares uint64 `json:"cpu_shares"`
	IOWeight  uint64 `json:"io_weight"`
	// CPUSet and MemSet are lists like "0-2,7".
	CPUSet string    `json:"cpu_set"`
	MemSet string    `json:"mem_set"`
	IO     []IOLimit `json:"io"`
	// OOMScoreAdj is from 0 to 1000.
	OOMScoreAdj int      `json:"oom_score_adj"`
	Ulimits     []Ulimit `json:"ulimits"`
}

// IOLimit is what holds at one block device; zero is no limit.
type IOLimit struct {
	// Device is its path on the host, symbolic links resolved.
	Device    string `json:"device"`
	Weight    uint64 `json:"weight"`
	ReadBPS   uint64 `json:"read_bps"`
	WriteBPS  uint64 `json:"write_bps"`
	ReadIOPS  uint64 `json:"read_iops"`
	WriteIOPS uint64 `json:"write_iops"`
}

// Ulimit is one limit of each process ("RLIMIT_NOFILE").
type Ulimit struct {
	Type string `json:"type"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Seccomp names the system-call filter; "unconfined" is none.
type Seccomp struct {
	// Profile is "default", or "custom" for one from a file.
	Profile string `json:"profile"`
	// Digest names its meaning.
	Digest string `json:"digest"`
	// Narrows says that it provably allows nothing that the default does not;
	// Extra names the calls of which it may allow more.
	Narrows bool     `json:"narrows"`
	Extra   []string `json:"extra"`
}

// Landlock is what the kernel's Landlock adds, and why not all of it does.
type Landlock struct {
	// ABI is the kernel's version of it; 0 is none.
	ABI int `json:"abi"`
	// Paths says that no file is opened but beneath the container's own "/";
	// AbstractSockets that those of the host's network are out of reach; TCP
	// that on the host's network only the ports of the lists are allowed.
	Paths           bool `json:"paths"`
	AbstractSockets bool `json:"abstract_sockets"`
	TCP             bool `json:"tcp"`
	// TCPBind and TCPConnect are ports that are asked for; "*" is all.
	TCPBind    []string `json:"tcp_bind"`
	TCPConnect []string `json:"tcp_connect"`
	// Missing is empty if nothing is missing, else "off" (asked for),
	// "CAP_SYS_PTRACE" (which does not go with it), "kernel" or "oci".
	Missing string `json:"missing"`
}

// Requested is the part of the request that asks for more or less than the
// defaults, as written; the final values are in Run.
type Requested struct {
	CapAdd  []string `json:"cap_add"`
	CapDrop []string `json:"cap_drop"`
	Network string   `json:"network"`
	User    string   `json:"user"`
}

// Host is the machine the container will run on.
type Host struct {
	Kernel string `json:"kernel"`
	// Cgroup is "v1", "hybrid" or "v2".
	Cgroup   string `json:"cgroup"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Rootless bool   `json:"rootless"`
	// Memory is the host's total, in bytes; CPUs its usable processors. The
	// shipped limits are measured against them: zero denies every run.
	Memory int64 `json:"memory"`
	CPUs   int   `json:"cpus"`
}

// encode returns the one JSON form of the input: what is evaluated, digested
// and kept. Lists are never null, so that a policy can count on them.
func (in Input) encode() ([]byte, []Span, error) {
	refuse := func(format string, args ...any) ([]byte, []Span, error) {
		return nil, nil, invalidInput(format, args...)
	}
	if in.Version != 0 && in.Version != InputVersion {
		return refuse("version %d is not %d", in.Version, InputVersion)
	}
	in.Version = InputVersion
	if _, known := decisionFiles[in.Point]; !known {
		return refuse("point %q is not one this version decides", in.Point)
	}
	if in.Now.IsZero() {
		return refuse("it has no time")
	}
	in.Now = in.Now.UTC()
	if len(in.Evidence) == 0 {
		in.Evidence = json.RawMessage("null")
	}
	for _, m := range in.Run.Mounts {
		// A grant is about a directory, never about where ".." leads from it.
		if m.Type == "bind" && (!path.IsAbs(m.Source) || path.Clean(m.Source) != m.Source) {
			return refuse("bind source %q is not a clean absolute path", m.Source)
		}
	}
	in.fill()
	evidence, spans, err := place(in.Evidence, in.Predicates)
	if err == nil {
		err = in.Image.believe(evidence)
	}
	if err != nil {
		return refuse("evidence: %v", err)
	}
	if len(spans) > 0 {
		in.Evidence = json.RawMessage("null") // until all else is checked
	}
	b, err := json.Marshal(in)
	if err != nil {
		return refuse("%v", err) // NaN or infinite cpus, broken evidence
	}
	text, plain := b, b
	if len(spans) > 0 {
		// Nothing before it is anybody else's JSON: in a string its quotes would
		// be escaped.
		const gap = `,"evidence":`
		at := bytes.Index(b, []byte(gap+`null,"run":{`)) + len(gap)
		for i := range spans {
			spans[i].At += at
		}
		text = slices.Concat(b[:at], evidence, b[at+len("null"):])
		plain = without(text, spans)
	}
	if len(plain) > maxInput {
		return refuse("%d bytes are more than %d", len(plain), maxInput)
	}
	// encoding/json writes U+FFFD for bytes that are not UTF-8: the policy
	// would then judge another path or argument than the kernel gets.
	if !utf8.Valid(plain) || hasReplaced(plain) {
		return refuse("it holds text that is not UTF-8")
	}
	return text, spans, nil
}

// fill turns absent lists and maps into empty ones.
func (in *Input) fill() {
	in.fillPoints()
	in.Image.fill()
	r := &in.Run
	for _, l := range []*[]string{
		&r.Args, &r.EnvNames, &r.Capabilities, &r.SecurityOpt, &r.Seccomp.Extra, &r.MaskedPaths,
		&r.ReadonlyPaths, &r.Requested.CapAdd, &r.Requested.CapDrop, &r.Landlock.TCPBind, &r.Landlock.TCPConnect,
	} {
		if *l == nil {
			*l = []string{}
		}
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	if r.User.Groups == nil {
		r.User.Groups = []uint32{}
	}
	if r.Limits.IO == nil {
		r.Limits.IO = []IOLimit{}
	}
	if r.Limits.Ulimits == nil {
		r.Limits.Ulimits = []Ulimit{}
	}
	if r.Sysctls == nil {
		r.Sysctls = []Sysctl{}
	}
	if r.Devices == nil {
		r.Devices = []Device{}
	}
	if r.Mounts == nil {
		r.Mounts = []Mount{}
	}
}

// hasReplaced reports whether encoding/json replaced invalid UTF-8 in b: it
// then wrote the escape \ufffd, while a real U+FFFD is written as it is. An
// even number of backslashes before it are escaped backslashes.
func hasReplaced(b []byte) bool {
	for i := 0; ; {
		j := bytes.Index(b[i:], []byte(`\ufffd`))
		if j < 0 {
			return false
		}
		at, n := i+j, 0
		for at-n > 0 && b[at-n-1] == '\\' {
			n++
		}
		if n%2 == 0 {
			return true
		}
		i = at + 1
	}
}

func invalidInput(format string, args ...any) error {
	return fault.New(fault.Invalid, "policy.input", "policy input: "+fmt.Sprintf(format, args...),
		"change the request: policy decides only about what it can read exactly")
}
