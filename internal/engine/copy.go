package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"syscall"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// CopyRequest asks for files to be copied into a container, or out of one.
type CopyRequest struct {
	Actor audit.Actor
	// Container is its id, its name, or the beginning of its id.
	Container string
	// In is into it; else out of it.
	In bool
	// Path is the one in the container, absolute.
	Path string
	// Archive keeps owners, Follow copies what a link at Path names.
	Archive, Follow bool
}

// Copy is a copy that was let in. Done must be called.
type Copy struct {
	// Stat is what is at the path in the container.
	Stat sandbox.FilesStat

	a      *entrance
	record audit.Copy
	files  *sandbox.Files
	sum    hash.Hash
	// still is nil if the container runs.
	still *still
}

// Copy lets a copy in, or says why not. What is asked for is decided about and
// on record before the container's files are looked at. Nothing starts a
// container that does not run until Done.
func (e *Engine) Copy(ctx context.Context, req CopyRequest) (*Copy, error) {
	a := &entrance{e: e, point: policy.PointCp, actor: req.Actor, asked: req.Container, id: newID(), args: []string{req.Path}}
	direction := map[bool]string{true: "in", false: "out"}[req.In]
	still, err := a.resolveCopy(ctx)
	if err != nil {
		return nil, a.refuse(ctx, "resolve", err)
	}
	c := &Copy{a: a, sum: sha256.New(), still: still, record: audit.Copy{
		Container: a.c.ID, Name: a.c.Name, Copy: a.id, Direction: direction, Path: req.Path, Archive: req.Archive, Image: a.image()}}
	at := policy.Cp{Direction: direction, Path: req.Path, Archive: req.Archive, FollowLinks: req.Follow}
	asked := sandbox.FilesRequest{In: req.In, Path: req.Path, Follow: req.Follow, KeepIDs: req.Archive}
	if still != nil {
		c.files, err = c.still.enter(ctx, c, at, asked)
	} else {
		c.files, err = c.enter(ctx, at, asked)
	}
	if err != nil {
		return nil, errors.Join(err, still.leave())
	}
	c.Stat = c.files.Stat
	return c, nil
}

// enter is the gate of a copy from or to a container that runs.
func (c *Copy) enter(ctx context.Context, at policy.Cp, req sandbox.FilesRequest) (*sandbox.Files, error) {
	a := c.a
	ev, err := a.verify(ctx)
	if err != nil {
		return nil, a.refuse(ctx, "verify", err)
	}
	in := a.input(ev)
	in.Cp = at
	dec, err := a.decide(ctx, in)
	if err != nil {
		return nil, a.refuse(ctx, "decide", err)
	}
	before, err := c.before(ev, dec)
	if err != nil {
		return nil, a.refuse(ctx, "record", err)
	}
	if err := a.append(ctx, audit.ContainerCopy, before); err != nil {
		return nil, err
	}
	files, err := a.e.launcher.Files(ctx, a.plan.Host.RuntimeDir, req)
	if err != nil {
		return nil, c.ended(ctx, sandbox.FilesResult{}, err)
	}
	return files, nil
}

// before is what is on record before anything is looked at.
func (c *Copy) before(ev verify.Evidence, dec policy.Decision) (r audit.Copy, err error) {
	r = c.record
	r.Evidence, r.Input = RecordedEvidence(ev), dec.InputDigest()
	r.Decision, err = c.a.e.explained(dec)
	return r, err
}

func (a *entrance) append(ctx context.Context, t audit.Type, data any) error {
	return a.e.append(ctx, audit.Record{Type: t, Run: a.run(), Actor: a.actor, Data: data})
}

// Receive returns the entries of a copy out of the container.
func (c *Copy) Receive() (*sandbox.FileReader, error) {
	r, err := c.files.Receive()
	if err != nil {
		return nil, err
	}
	return sandbox.NewFileReader(io.TeeReader(r, c.sum)), nil
}

// Send returns where the entries of a copy into the container go to.
func (c *Copy) Send(t sandbox.FilesTarget) (*sandbox.FileWriter, error) {
	w, err := c.files.Send(t)
	if err != nil {
		return nil, err
	}
	return sandbox.NewFileWriter(io.MultiWriter(w, c.sum)), nil
}

// Done ends the copy and puts on record how it went. Why is what went wrong on
// the caller's side; if that is only that the other side hung up, its reason
// is given instead.
func (c *Copy) Done(ctx context.Context, why error) (sandbox.FilesResult, error) {
	r, err := c.files.Result()
	if why == nil || errors.Is(why, syscall.EPIPE) {
		why = err
	}
	c.files.Close()
	return r, errors.Join(c.ended(ctx, r, why), c.still.leave())
}

func (c *Copy) ended(ctx context.Context, r sandbox.FilesResult, why error) error {
	after := c.record
	after.Entries, after.Bytes, after.Left, after.SHA256 = r.Entries, r.Bytes, r.Left, hex.EncodeToString(c.sum.Sum(nil))
	if why != nil {
		after.Error = fault.As(why).Cause
	}
	return errors.Join(why, c.a.append(ctx, audit.ContainerCopied, after))
}
