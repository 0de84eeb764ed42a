package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// The files of a container's directory below --root, beside libcontainer's own
// (sandbox.OCIStateDir) and the monitor's status.
const (
	recordFile = "ward.json"
	specFile   = "ward.spec.json"
	lockFile   = "lock"
	// updateLock is held while limits are judged and changed.
	updateLock = "update.lock"
)

// record is what ward keeps of a container: what was let in.
type record struct {
	// Run is the id of its records in the audit log.
	Run     string    `json:"run"`
	ID      string    `json:"id"`
	Bundle  string    `json:"bundle"`
	Created time.Time `json:"created"`
	// Image is the verified image with its digest, or "".
	Image string `json:"image"`
	// Limits are those in force where they are not the specification's any more.
	Limits *specs.LinuxResources `json:"limits,omitempty"`
}

// maxRecord bounds the file of a record: what grows in it are the limits.
const maxRecord = 64<<10 + sandbox.MaxOCISpec

// slot is a directory that is this process's to fill.
type slot struct {
	dir  string
	lock *fsx.Lock
}

// checkID refuses what is no name of a container, in the words callers know.
func checkID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."
	switch {
	case id == "":
		return fault.New(fault.Invalid, "oci.id", "container id cannot be empty", "")
	case id == "." || id == ".." || len(id) > 1024 || strings.Trim(id, letters) != "":
		return fault.New(fault.Invalid, "oci.id", "invalid container ID format", "use letters, digits and _ + - .")
	}
	return nil
}

// reserve makes the directory of a new container. One that a crash left before
// there was a container is finished and taken over.
func (g *Gate) reserve(ctx context.Context, root, id string) (*slot, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fault.Wrap(fault.Unavailable, "oci.root", err, "")
	}
	s := &slot{dir: filepath.Join(root, id)}
	exists := fault.New(fault.Invalid, "oci.exists", "container with given ID already exists", "delete it, or take another name")
	err := os.Mkdir(s.dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		if made(s.dir, id) {
			return nil, exists
		}
		err = nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "oci.root", err, "")
	}
	if s.lock, err = fsx.TryLock(filepath.Join(s.dir, lockFile)); err != nil {
		if errors.Is(err, fsx.ErrLocked) {
			return nil, exists
		}
		return nil, fault.Wrap(fault.Unavailable, "oci.root", err, "")
	}
	if made(s.dir, id) { // by somebody who was faster
		return nil, errors.Join(exists, s.lock.Unlock())
	}
	if err := errors.Join(g.cleaner().settle(ctx, s.dir), sandbox.CleanOCI(s.dir)); err != nil {
		return nil, errors.Join(err, s.lock.Unlock())
	}
	return s, nil
}

// made says whether libcontainer has a container there.
func made(dir, id string) bool {
	_, err := os.Stat(filepath.Join(dir, sandbox.OCIStateDir, id, "state.json"))
	return err == nil
}

// abandon removes what was reserved for a container that is not to be, and
// what a launcher that was killed has left of it. An added process has none.
func (s *slot) abandon() error {
	if s == nil {
		return nil
	}
	return errors.Join(sandbox.CleanOCI(s.dir), os.RemoveAll(s.dir), s.lock.Unlock())
}

// write puts down what is let in: its record, and its specification byte for
// byte, by which it is judged from then on. The bundle is not read again.
func (s *slot) write(r record, spec []byte) error {
	if err := fsx.ReplaceFile(filepath.Join(s.dir, specFile), spec, 0o600); err != nil {
		return err
	}
	return r.write(s.dir)
}

func (r record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) >= maxRecord {
		return fault.New(fault.Invalid, "oci.size", "the container's limits are too large to be kept", "name fewer devices in them")
	}
	return fsx.ReplaceFile(filepath.Join(dir, recordFile), append(b, '\n'), 0o600)
}

// load reads what ward keeps of a container.
func load(root, id string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(root, id, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.NotFound, "oci.not-found", "container does not exist", "")
	}
	if err == nil && len(b) > maxRecord {
		err = errors.New("too large")
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return record{}, fault.Wrap(fault.Invalid, "oci.record", fmt.Errorf("what is kept of container %s: %w", id, err), "delete it")
	}
	return r, nil
}

// loadSpec reads the specification that was let in.
func loadSpec(root, id string) ([]byte, *specs.Spec, error) {
	b, s, err := parseSpec(filepath.Join(root, id, specFile))
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "oci.record", fmt.Sprintf("what is kept of container %s: %v", id, err),
			"it can be killed and deleted; make it anew for anything else")
	}
	return b, s, nil
}

// settle records the end of a container whose monitor has not: it was killed,
// or never began. The caller holds the lock, so nobody watches it any more.
func (c *Cleaner) settle(ctx context.Context, dir string) error {
	r, err := load(filepath.Dir(dir), filepath.Base(dir))
	if err != nil {
		return nil // nothing was let in under that name, or it cannot be told what
	}
	st, err := sandbox.ReadStatus(dir)
	if err == nil && st.Phase == sandbox.PhaseExited {
		return nil
	}
	// Killed between the record of the end and its status, or a refused start
	// whose directory was still to be removed: a run has one end.
	if _, over, err := engine.Outcome(c.layout.Audit(), r.Run); err != nil || over {
		return err
	}
	return appendTo(ctx, c.log, audit.Record{Type: audit.RunLost, Run: r.Run, Actor: c.actor,
		Data: audit.Lost{Phase: string(st.Phase), Reason: "the container's monitor died, or never began"}})
}

// remove takes the directory of a container away once its monitor has recorded
// the end, or records that in its place.
func (c *Cleaner) remove(ctx context.Context, root, id string, patience time.Duration) error {
	dir := filepath.Join(root, id)
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	lock, err := fsx.WaitLock(wait, filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, "oci.monitor", fmt.Errorf("the container's monitor does not end: %w", err), "delete it again")
	}
	if err = c.settle(ctx, dir); err == nil {
		err = errors.Join(sandbox.CleanOCI(dir), removeAll(dir))
	}
	return errors.Join(err, lock.Unlock())
}

// removeAll removes a container's directory. Somebody else who deletes it may
// have made its lock anew just after it was gone, and will find nothing then.
func removeAll(dir string) (err error) {
	for range 10 {
		if err = os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return err
}
