package audit

import (
	"encoding/json"
	"time"
)

// Type names what a record is about. New types may appear; a reader must
// accept types it does not know.
type Type string

// The record types. Those beginning with "log." are written by the log alone,
// the intents by Intend alone.
const (
	LogGenesis   Type = "log.genesis"
	LogRecovered Type = "log.recovered"

	RunIntent Type = "run.intent"
	RunDenied Type = "run.denied"
	RunStart  Type = "run.start"
	RunOOM    Type = "run.oom"
	// RunDeniedSyscalls comes with run.exit if there was anything to say.
	RunDeniedSyscalls Type = "run.denied_syscalls"
	RunAnchor         Type = "run.anchor"
	RunExit           Type = "run.exit"
	RunLost           Type = "run.lost"
	RunSeal           Type = "run.seal"

	// A process in a container that runs, beside its first one.
	ExecIntent Type = "exec.intent"
	ExecDenied Type = "exec.denied"
	ExecStart  Type = "exec.start"
	ExecExit   Type = "exec.exit"

	// GateDecision is the answer of ward gate about one image: a Verdict.
	GateDecision Type = "gate.decision"
	// GateSummary says that a signed summary of an allow was made: a Summary.
	GateSummary Type = "gate.summary"
	// DoctorProof says what came of showing forged images to the doors: a Proof.
	DoctorProof Type = "doctor.proof"

	// UpdateDenied says that a container's limits were not changed.
	UpdateDenied Type = "update.denied"

	ContainerCreate Type = "container.create"
	ContainerRename Type = "container.rename"
	ContainerUpdate Type = "container.update"
	// ContainerUpdated says what came of a container.update of limits, if that
	// was not update.denied.
	ContainerUpdated Type = "container.updated"
	ContainerRemove  Type = "container.remove"
	ContainerCopy    Type = "container.copy"
	ContainerCopied  Type = "container.copied"
	CopyDenied       Type = "container.copy_denied"
	ContainerSignal  Type = "container.signal"
	ContainerStop    Type = "container.stop"
	ContainerHealth  Type = "container.health"
	// ContainerAttach comes before the first byte that passes between the
	// container and a client, ContainerDetach when one has left it running.
	ContainerAttach Type = "container.attach"
	ContainerDetach Type = "container.detach"
	// ContainerPause and ContainerUnpause say that it is about to be done.
	ContainerPause   Type = "container.pause"
	ContainerUnpause Type = "container.unpause"

	// OCIIntent is run.intent for what a caller of ward-oci starts: a container,
	// or another process in one. OCIUpdate says that its limits are about to be
	// changed, OCIDenied that nothing was done to a container that is there.
	OCIIntent Type = "oci.intent"
	OCIUpdate Type = "oci.update"
	OCIDenied Type = "oci.denied"

	// ImageFetch says that an image is about to be fetched, and why that was
	// allowed; ImagePull that it is here, ImagePullDenied that it is not.
	ImageFetch      Type = "image.fetch"
	ImagePull       Type = "image.pull"
	ImagePullDenied Type = "image.pull_denied"

	ImagePush   Type = "image.push"
	ImageImport Type = "image.import"
	ImageTag    Type = "image.tag"
	ImageRemove Type = "image.remove"
	ImageSign   Type = "image.sign"
	ImageAttest Type = "image.attest"

	// WitnessConflict says that a witness has seen another log under the name of
	// this one: a WitnessEvent.
	WitnessConflict Type = "witness.conflict"

	VolumeCreate Type = "volume.create"
	VolumeRemove Type = "volume.remove"

	TrustAdd     Type = "trust.add"
	TrustRemove  Type = "trust.remove"
	KeyGenerate  Type = "key.generate"
	PolicyChange Type = "policy.change"
)

// isIntent says whether records of type t are written by Intend alone.
func isIntent(t Type) bool { return t == RunIntent || t == OCIIntent || t == ExecIntent }

// Record is one thing to be recorded. Time, clock, boot and host are filled in
// by the log.
type Record struct {
	Type Type
	// Run is the run's id, empty for what belongs to no run.
	Run   string
	Actor Actor
	// Plan is "sha256:…" of the plan's bytes, or empty.
	Plan string
	// Data is one of this package's data types or anything that marshals to a
	// JSON object; nil is left out.
	Data any
}

// Entry is a record as read back.
type Entry struct {
	// Index is the record's place in the log, from 0.
	Index int64
	Type  Type
	Time  time.Time
	// Mono is the host's clock since boot (CLOCK_BOOTTIME), in nanoseconds;
	// comparable only between entries with the same Boot.
	Mono       int64
	Boot, Host string
	Run        string
	Actor      Actor
	Plan       string
	Data       json.RawMessage
	// Leaf is the record's exact bytes, one JSON object; valid after the
	// callback returns.
	Leaf []byte
}
