package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Resolver turns a reference into an image, once.
type Resolver interface {
	// Resolve looks in the local store alone.
	Resolve(ctx context.Context, ref string) (images.Image, error)
	Pull(ctx context.Context, ref string, opt images.PullOptions) (images.Image, error)
	// Examine asks the registry what Pull would bring, and stores nothing but
	// what hangs on the image.
	Examine(ctx context.Context, ref, platform string) (images.Image, error)
	// Attachments are the signatures kept beside the image with this digest.
	Attachments(ctx context.Context, digest string) ([]images.Attachment, error)
	// Attestations are what is stated about it, kept there too.
	Attestations(ctx context.Context, digest string) ([]images.Attestation, error)
}

// Rootfs gives a resolved image's files.
type Rootfs interface {
	Unpack(ctx context.Context, img images.Image) ([]string, error)
	// File reads one regular file of the merged layers, of at most max bytes.
	File(ctx context.Context, img images.Image, path string, max int64) ([]byte, error)
	// CheckRoot refuses an image whose /dev, /proc, /sys or /etc is no directory.
	CheckRoot(ctx context.Context, img images.Image) error
}

// Verifier says who vouches for an image. It opens no socket.
type Verifier interface {
	Verify(ctx context.Context, s verify.Subject, m []verify.Material) (verify.Evidence, error)
}

// Decider says whether exactly this may run.
type Decider interface {
	Decide(ctx context.Context, in policy.Input) (policy.Decision, error)
}

// Recorder is the audit log.
type Recorder interface {
	// Intend returns once the intent is on disk.
	Intend(ctx context.Context, in audit.Intent) (audit.Permit, error)
	// Prove is Append of one record that the launcher wants to see the proof of.
	Prove(ctx context.Context, r audit.Record) (audit.Permit, error)
	Append(ctx context.Context, rs ...audit.Record) error
}

// Launcher starts the payload of a plan that the receipt proves is recorded:
// a container's, the lock going to the monitor with it, or that of another
// process in the container that runs by a plan.
type Launcher interface {
	Exec(ctx context.Context, plan, container []byte, r receipt.Receipt, io sandbox.Stdio) (*sandbox.Running, error)
	// Files enters the container whose monitor serves in runtimeDir, for its
	// files alone.
	Files(ctx context.Context, runtimeDir string, req sandbox.FilesRequest) (*sandbox.Files, error)
	// StoppedFiles makes the files of a container that does not run visible, to
	// the process that copies alone.
	StoppedFiles(ctx context.Context, plan []byte, r receipt.Receipt, lock *os.File, req sandbox.FilesRequest) (*sandbox.Files, error)
	Launch(ctx context.Context, plan []byte, r receipt.Receipt, io sandbox.Stdio, lock *os.File) (*sandbox.Running, error)
}

// Config is what an Engine is made of. All fields are required.
type Config struct {
	Layout   Layout
	Resolver Resolver
	Rootfs   Rootfs
	Verifier Verifier
	Decider  Decider
	Log      Recorder
	Launcher Launcher
	Floor    sandbox.Floor
	// Keep starts a keeper for a container, a process that calls Keep and
	// outlives this one. Optional: without it a request that needs one is
	// refused.
	Keep func(Container) error
}

// Engine runs requests. It is safe for concurrent use, and several processes
// may have one on the same layout.
type Engine struct {
	layout   Layout
	resolver Resolver
	rootfs   Rootfs
	verifier Verifier
	decider  Decider
	log      Recorder
	launcher Launcher
	floor    sandbox.Floor
	keep     func(Container) error
}

// New returns an engine, and an error if anything is missing: there is no
// such thing as an engine without a verifier.
func New(c Config) (*Engine, error) {
	if c.Layout == (Layout{}) || c.Resolver == nil || c.Rootfs == nil || c.Verifier == nil || c.Decider == nil || c.Log == nil || c.Launcher == nil {
		return nil, fault.New(fault.Internal, "engine.config", "the engine is missing a part", "")
	}
	if err := c.Layout.make(); err != nil {
		return nil, err
	}
	return &Engine{c.Layout, c.Resolver, c.Rootfs, c.Verifier, c.Decider, c.Log, c.Launcher, c.Floor, c.Keep}, nil
}

// attempt is what is known of a request while it passes the gate. Its refusals
// carry as much of it as there is.
type attempt struct {
	e   *Engine
	req Request
	// container is the container's id, run that of this start.
	container, run string
	// again is the container as it was, if it is there already.
	again *Container
	// createOnly stops before anything is launched.
	createOnly bool
	// byHand says that somebody starts a container, not its keeper.
	byHand bool
	// pulling says that policy refused already to have the image fetched.
	pulling bool
	img     images.Image
	// mounted are the verified images it mounts, by digest.
	mounted map[string]images.Image
	// answer is set once a policy has answered; obliged is what a first answer
	// asked for, which is what this one is about.
	answer  policy.Decision
	obliged policy.Obligations
}

// point is what the gate is asked: a container that ran before is restarted,
// whoever starts it.
func (a *attempt) point() string {
	if a.pulling {
		return policy.PointPull
	}
	if a.again != nil && a.again.Status.Start > 0 {
		return policy.PointRestart
	}
	return policy.PointRun
}

// input is what policy decides about.
func (a *attempt) input(ev verify.Evidence, p sandbox.Plan) policy.Input {
	in := inputFor(a.req, a.img, ev, p)
	if in.Point = a.point(); in.Point != policy.PointRestart {
		return in
	}
	in.Restart = policy.Restart{By: "keeper", Count: a.e.kept(*a.again).Restarts}
	if a.byHand {
		in.Restart.By = "user"
	}
	if x := a.again.Status.Exit; x != nil {
		in.Restart.ExitCode = x.Code
	}
	return in
}

// refuse puts a refusal on record and returns it. When it cannot be recorded
// either, both are said, and the refusal stands: no is still no.
func (a *attempt) refuse(ctx context.Context, stage string, why error) error {
	f := fault.As(why)
	d := audit.Denied{
		Stage: stage, Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: a.point(),
		Name: a.req.Name, Image: audit.Image{Reference: a.req.Image, Digest: a.img.Digest}, Args: a.req.Args,
	}
	var lost error
	if a.answer.InputDigest() != "" {
		d.Input = a.answer.InputDigest()
		d.Decision, lost = a.e.explained(a.answer)
	}
	return errors.Join(f, lost, a.e.append(ctx, audit.Record{Type: audit.RunDenied, Run: a.run, Actor: a.req.Actor, Data: d}))
}

// append makes one record durable. Hanging up does not unwrite: it has a
// deadline of its own, not the caller's.
func (e *Engine) append(ctx context.Context, r audit.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := e.log.Append(ctx, r); err != nil {
		return fault.Wrap(fault.Unrecorded, "audit.append", err, "repair the audit log: ward audit verify")
	}
	return nil
}

// rawJSON is v as JSON for a record; what cannot be encoded is said, so that
// a record never silently lacks its reason.
func rawJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"unencodable": err.Error()})
	}
	return b
}
