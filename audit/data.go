package audit

import (
	"encoding/json"
	"time"
)

// Image names an image by what was asked for and what it turned out to be.
type Image struct {
	Reference string `json:"reference,omitempty"`
	// Digest is the manifest's, "sha256:…", empty if it was never resolved.
	Digest string `json:"digest,omitempty"`
}

// Intent says that a plan is about to be launched, and why that was allowed.
type Intent struct {
	// Type is the record's: run.intent if empty, or another intent.
	Type Type `json:"-"`
	// Run, Actor and Plan become the record's common fields. Run and Plan
	// ("sha256:…" of the plan's bytes) are required.
	Run   string `json:"-"`
	Actor Actor  `json:"-"`
	Plan  string `json:"-"`

	// Point is the gate's entry: "run" unless something else asks.
	Point string `json:"point,omitempty"`
	// Container is the container's id; a container started again has several
	// runs, of which the first has its id.
	Container string `json:"container,omitempty"`
	// Exec is the id of an exec.intent's process, Purpose what it is for if
	// nobody asked for it: "health".
	Exec    string `json:"exec,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	Name    string `json:"name,omitempty"`
	Image   Image  `json:"image"`
	// User and Cwd are an exec.intent's: as whom, inside, and where.
	User string `json:"user,omitempty"`
	Cwd  string `json:"cwd,omitempty"`
	// Evidence is the verifier's summary: who signed, under which policies.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	// Decision is the policy's answer with its revision and reasons.
	Decision json.RawMessage `json:"decision,omitempty"`
	// Input is "sha256:…" of the policy input the decision was made on.
	Input string   `json:"input,omitempty"`
	Args  []string `json:"args,omitempty"`
	// Labels are the container's; Remove says that it is removed at its end.
	Labels map[string]string `json:"labels,omitempty"`
	Remove bool              `json:"remove,omitempty"`
	// IDBase is the first host id of the container's range of 65536.
	IDBase uint32 `json:"id_base,omitempty"`
	// EnvNames are the names of the environment variables; values never enter
	// the log.
	EnvNames []string `json:"env_names,omitempty"`
	// Mounted are the images mounted in it, each verified like Image.
	Mounted []Image `json:"mounted,omitempty"`
}

// Denied says that a request was refused and by what.
type Denied struct {
	// Stage is the verb that refused: resolve, verify, decide, seal, record,
	// launch.
	Stage  string `json:"stage,omitempty"`
	Class  string `json:"class,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	Point  string `json:"point,omitempty"`
	// Op is what was asked for, where the point alone does not say it.
	Op string `json:"op,omitempty"`
	// Container and Exec are set where one is asked about that is there.
	Container string `json:"container,omitempty"`
	Exec      string `json:"exec,omitempty"`
	Name      string `json:"name,omitempty"`
	Image     Image  `json:"image"`
	// Update is the number of a change of limits that was on record already.
	Update int `json:"update,omitempty"`
	// Decision and Input are set once a policy has answered.
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
	Args     []string        `json:"args,omitempty"`
	// ArgsCount and ArgsDigest (of the list as JSON) are set if Args is only
	// the beginning of what was asked for.
	ArgsCount  int    `json:"args_count,omitempty"`
	ArgsDigest string `json:"args_digest,omitempty"`
}

// Start says that the payload runs.
type Start struct {
	// PID is the payload's in the host's PID namespace, MonitorPID its
	// monitor's; 0 if not known.
	PID        int    `json:"pid"`
	MonitorPID int    `json:"monitor_pid,omitempty"`
	Cgroup     string `json:"cgroup,omitempty"`
	// Decision and Input are those of a start that is a request of its own.
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
}

// ExecProcess says that another process was started in a running container.
type ExecProcess struct {
	Exec string `json:"exec"`
	// PID is in the host's PID namespace.
	PID int `json:"pid"`
}

// ExecEnd says how such a process ended. What it wrote is not kept: it went to
// who asked, and only its size and digest are on record.
type ExecEnd struct {
	Exec   string `json:"exec"`
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	// Error is set if it could not be executed, or ended for a reason of ours.
	Error      string  `json:"error,omitempty"`
	DurationMS int64   `json:"duration_ms"`
	Stdout     Written `json:"stdout"`
	Stderr     Written `json:"stderr"`
}

// Written is how much went through a stream, and the SHA-256 of it, in hex.
type Written struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`
}

// OOM says that the kernel killed processes of the run for want of memory.
type OOM struct {
	// Kills is the number of kills so far, Limit the memory limit in bytes.
	Kills int64 `json:"kills"`
	Limit int64 `json:"limit,omitempty"`
}

// DeniedSyscalls says which system calls were refused to the run.
type DeniedSyscalls struct {
	Syscalls []DeniedSyscall `json:"syscalls"`
}

// DeniedSyscall is one of them, by the kernel's name.
type DeniedSyscall struct {
	Name  string    `json:"name"`
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Usage is what a run consumed.
type Usage struct {
	CPUNanos        int64 `json:"cpu_ns,omitempty"`
	CPUUserNanos    int64 `json:"cpu_user_ns,omitempty"`
	CPUSystemNanos  int64 `json:"cpu_system_ns,omitempty"`
	ThrottledNanos  int64 `json:"throttled_ns,omitempty"`
	MemoryPeakBytes int64 `json:"memory_peak_bytes,omitempty"`
	PIDsPeak        int64 `json:"pids_peak,omitempty"`
	PIDsRefused     int64 `json:"pids_refused,omitempty"`
	OOMKills        int64 `json:"oom_kills,omitempty"`
	ReadBytes       int64 `json:"read_bytes,omitempty"`
	WriteBytes      int64 `json:"write_bytes,omitempty"`
}

// Exit says how the payload ended.
type Exit struct {
	// Code is the exit status; Signal the signal that ended it, or 0.
	Code   int  `json:"code"`
	Signal int  `json:"signal,omitempty"`
	OOM    bool `json:"oom,omitempty"`
	// Error is set if the run ended for a reason of ours, not the payload's.
	Error      string `json:"error,omitempty"`
	DurationMS int64  `json:"duration_ms"`
	Usage      Usage  `json:"usage"`
}

// Lost says that a run ended without its monitor reporting it.
type Lost struct {
	// Phase is the last one known: created or running.
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Anchor binds an output log's content so far.
type Anchor struct {
	// Size is the number of chunks, Root the base64 RFC 6962 root over them.
	Size int64  `json:"size"`
	Root string `json:"root"`
	// Bytes were stored, of which Stdout and Stderr by stream; Dropped were
	// written by the payload and not stored.
	Bytes   int64 `json:"bytes"`
	Stdout  int64 `json:"stdout"`
	Stderr  int64 `json:"stderr"`
	Dropped int64 `json:"dropped,omitempty"`
}

// Seal binds a finished output log.
type Seal struct {
	// OutputRoot is the base64 RFC 6962 root over the Chunks chunks;
	// OutputSize is the size of the output log's file in bytes.
	OutputRoot string `json:"output_root"`
	OutputSize int64  `json:"output_size"`
	Chunks     int64  `json:"chunks"`
	// Bytes were stored, of which Stdout and Stderr by stream; Dropped were
	// written by the payload and not stored.
	Bytes      int64 `json:"bytes"`
	Stdout     int64 `json:"stdout"`
	Stderr     int64 `json:"stderr"`
	Dropped    int64 `json:"dropped,omitempty"`
	DurationMS int64 `json:"duration_ms,omitempty"`
}

// Anchor is the part of the seal that VerifyOutput checks.
func (s Seal) Anchor() Anchor {
	return Anchor{Size: s.Chunks, Root: s.OutputRoot, Bytes: s.Bytes, Stdout: s.Stdout, Stderr: s.Stderr, Dropped: s.Dropped}
}

// ContainerEvent is the data of the container.* records, which are about a
// container and not about one run of it.
type ContainerEvent struct {
	Container string `json:"container"`
	Name      string `json:"name,omitempty"`
	// Previous is what container.rename changed the name from.
	Previous string `json:"previous,omitempty"`
	Image    Image  `json:"image"`
	// Decision and Input are those of what was asked for, and allowed; Point is
	// set where the record's type does not say at which.
	Point    string          `json:"point,omitempty"`
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
	Args     []string        `json:"args,omitempty"`
	// Labels are container.create's.
	Labels map[string]string `json:"labels,omitempty"`
	// Signal is container.signal's, or the first that container.stop sends.
	Signal int `json:"signal,omitempty"`
	// Restart is the restart policy that container.update set.
	Restart string `json:"restart,omitempty"`
	// Health is what container.health found it to be now.
	Health string `json:"health,omitempty"`
	// Attach is the id of container.attach's and container.detach's client,
	// Streams what it gets.
	Attach  string   `json:"attach,omitempty"`
	Streams []string `json:"streams,omitempty"`
	// Limits are those of container.update and oci.update, by name: those that change, as they were
	// and as they are to be.
	Limits map[string][2]string `json:"limits,omitempty"`
	// Update is the number of a change of the container's limits: what
	// container.update and its end, container.updated or update.denied, share.
	Update int `json:"update,omitempty"`
	// Outcome is container.updated's: "made", or "not made" if who made it was
	// killed before.
	Outcome string `json:"outcome,omitempty"`
}

// ImageEvent is the data of the image.* records.
type ImageEvent struct {
	Image
	// From is the tag's source or the imported file; Registry the remote host.
	From     string `json:"from,omitempty"`
	Registry string `json:"registry,omitempty"`
	// Removed are the digests image.remove deleted.
	Removed []string `json:"removed,omitempty"`
	// KeyID is the key of image.sign and image.attest, Format the signature's
	// format. Issuer and Signer are the names in the certificate, if there is
	// one; PredicateType and Payload are what is attested, and its digest.
	KeyID         string `json:"key_id,omitempty"`
	Format        string `json:"format,omitempty"`
	Issuer        string `json:"issuer,omitempty"`
	Signer        string `json:"signer,omitempty"`
	PredicateType string `json:"predicate_type,omitempty"`
	Payload       string `json:"payload,omitempty"`
	// Decision and Input are image.fetch's.
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
}

// VolumeEvent is the data of the volume.* records, which come before what they
// say: a volume that is not there after a volume.create was never made.
type VolumeEvent struct {
	Name   string            `json:"name"`
	Driver string            `json:"driver"`
	Labels map[string]string `json:"labels,omitempty"`
	// Container is the one it is made or removed for, if any.
	Container string `json:"container,omitempty"`
}

// TrustEvent is the data of the trust.* and key.generate records.
type TrustEvent struct {
	Name  string `json:"name,omitempty"`
	Glob  string `json:"glob,omitempty"`
	KeyID string `json:"key_id,omitempty"`
	Path  string `json:"path,omitempty"`
}

// WitnessEvent is the data of witness.conflict records.
type WitnessEvent struct {
	Witness string `json:"witness"`
	Cause   string `json:"cause"`
}

// PolicyEvent is the data of policy.change records.
type PolicyEvent struct {
	Revision string `json:"revision,omitempty"`
	Previous string `json:"previous,omitempty"`
	Level    string `json:"level,omitempty"`
	// Change is what was done: one of the Policy… constants; Bundle and Key are
	// what it was done to. Revision is the bundle's own then.
	Change string          `json:"change,omitempty"`
	Bundle json.RawMessage `json:"bundle,omitempty"`
	Key    json.RawMessage `json:"key,omitempty"`
}

// The changes of a policy that are recorded.
const (
	// PolicyBundle is a bundle that comes into force; PolicyUnsafeRollback one
	// that does so though a newer one did before; PolicyUnsafeRemove one that
	// is given up.
	PolicyBundle         = "bundle"
	PolicyUnsafeRollback = "unsafe-rollback"
	PolicyUnsafeRemove   = "unsafe-remove"
	// PolicyKeyAdd and PolicyKeyRemove are about whose bundles are believed.
	PolicyKeyAdd    = "key-add"
	PolicyKeyRemove = "key-remove"
)

// Genesis is the data of the log.genesis record.
type Genesis struct {
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
}

// Recovered is the data of a log.recovered record.
type Recovered struct {
	// Reason is "torn" (an interrupted write) or "flush" (a failed one).
	Reason  string `json:"reason"`
	Segment string `json:"segment"`
	// Offset is where the Bytes bytes began that are not part of the log.
	Offset int64 `json:"offset"`
	Bytes  int64 `json:"bytes"`
	// SHA256 is their digest, hex, and Evidence the file that keeps them.
	SHA256   string `json:"sha256"`
	Evidence string `json:"evidence,omitempty"`
}

// Copy is the data of the container.copy records: container.copy says that a
// copy is about to begin and why that was allowed, container.copied how it
// ended, container.copy_denied is a Denied.
type Copy struct {
	Container string `json:"container"`
	Name      string `json:"name,omitempty"`
	// Copy is the id that the two records share.
	Copy string `json:"copy"`
	// Direction is "in" or "out", Path the one in the container, as asked for.
	Direction string `json:"direction"`
	Path      string `json:"path"`
	Archive   bool   `json:"archive,omitempty"`
	Image     Image  `json:"image"`
	// Evidence, Decision and Input are container.copy's.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
	// Entries and Bytes are container.copied's: how many files and how much of
	// their content; SHA256 is the digest, in hex, of what went over.
	Entries int64  `json:"entries,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	// Left counts what was left out, or changed while it was read.
	Left  int64  `json:"left,omitempty"`
	Error string `json:"error,omitempty"`
}
