package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// A container is a directory. Its record says what was asked for and is
// written once; status.json says how it is and is the monitor's; the lock is
// held by whoever is responsible for it, first the gate and then the monitor,
// through one inherited descriptor. A container that has not ended and whose
// lock is free is lost: that is the whole crash detection, and the kernel
// keeps it true.
const (
	recordFile = "record.json"
	lockFile   = "lock"
	planFile   = "plan.json"
	// maxRecord bounds a record that is read back.
	maxRecord = 4 << 20

	// Directories on their way in and out. Whoever holds the store's lock may
	// remove both kinds: their makers are gone, or are removing them too.
	newSuffix  = ".new"
	goneSuffix = ".gone"
)

// Each container gets a range of its own, far above every other use of ids:
// the shadow suite ends at 600,100,000 (SUB_UID_MAX), and systemd keeps
// 524,288 to 1,879,048,191 for containers (systemd UIDS-GIDS).
const (
	idBase  = 1 << 30
	idSlots = (1879048192 - idBase) / sandbox.IDRange
)

// Container is what is kept of one run.
type Container struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Image is the reference asked for and Reference that of the image found by
	// it; Digest is the manifest that was verified.
	Image     string            `json:"image"`
	Reference string            `json:"reference"`
	Digest    string            `json:"digest"`
	ImageID   string            `json:"image_id"`
	Command   []string          `json:"command"`
	Labels    map[string]string `json:"labels,omitempty"`
	// IDBase is the first host id of its range.
	IDBase     uint32          `json:"id_base"`
	Network    sandbox.Network `json:"network"`
	StopSignal int             `json:"stop_signal"`
	Remove     bool            `json:"remove,omitempty"`
	// Request is what was asked for, to be asked again at each start.
	Request Request `json:"request"`
	// Updated are its limits if they were changed after a start.
	Updated *Updated `json:"updated,omitempty"`
	// Changed is how the last change of them ended.
	Changed Changed `json:"changed,omitzero"`

	// Status is how it was last seen; not part of the record.
	Status sandbox.Status `json:"-"`
	// Kept is what its keeper last said; not part of the record.
	Kept Kept `json:"-"`
}

// newID returns 64 hex digits. One that is all decimal in its first twelve is
// drawn again: Docker's host names would become numbers.
func newID() string {
	var b [32]byte
	for {
		rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// slot is a place for a run: its directory, its lock, its range of ids, and
// once sealed its plan.
type slot struct {
	container Container
	// dir is what is kept, runtime what a reboot may forget.
	dir, runtime string
	lock         *fsx.Lock
	plan         sandbox.Plan
	// start is the number of this start, from 1.
	start int
	// before is how the container was, if it was there already.
	before *sandbox.Status
	// release lets go of what was made for this container alone.
	release func() error
}

// abandon gives up a slot whose run never began, with whatever a launcher that
// was killed half-way left. What cannot be cleaned up now stays, unlocked, and
// is reaped by a later command.
func (s *slot) abandon() error {
	err := sandbox.Clean(s.container.ID, s.runtime)
	switch {
	case err != nil:
	case s.before != nil:
		err = sandbox.WriteStatus(s.dir, *s.before)
	default:
		if s.release != nil {
			err = s.release()
		}
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return errors.Join(err, s.lock.Unlock())
}

// lockStore takes the lock on the set of containers: their names and ranges.
func (e *Engine) lockStore(ctx context.Context) (*fsx.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	l, err := fsx.WaitLock(ctx, filepath.Join(e.layout.Lib, lockFile))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "containers.lock", err, "another ward command holds the lock; try again")
	}
	return l, nil
}

// reserve makes the directory of a new container under the store's lock, so
// that name and id range are its own. The record it writes is what reserves
// both; there is no second list that could disagree with it.
func (e *Engine) reserve(ctx context.Context, c Container) (*slot, error) {
	l, err := e.lockStore(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if err := e.sweep(); err != nil {
		return nil, err
	}
	all, err := e.records()
	if err != nil {
		return nil, err
	}
	used := make(map[uint32]bool, len(all))
	for _, o := range all {
		if o.Name == c.Name {
			return nil, fault.New(fault.Invalid, "run.name", fmt.Sprintf("the name %q is in use by container %s", c.Name, o.ID[:12]),
				"choose another --name, or remove that container: ward rm "+o.Name)
		}
		used[o.IDBase] = true
	}
	for i := uint32(0); ; i++ {
		if i == idSlots {
			return nil, fault.New(fault.Unavailable, "ids.exhausted", "every range of user ids is in use", "remove stopped containers: ward rm")
		}
		if base := uint32(idBase + i*sandbox.IDRange); !used[base] {
			c.IDBase = base
			break
		}
	}
	s := &slot{container: c, dir: e.layout.container(c.ID), runtime: e.layout.runtime(c.ID), start: 1}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir+newSuffix), os.RemoveAll(s.dir))
	}
	return s, nil
}

// create makes the directory beside its place and moves it there whole, so
// that one with a record and a free lock is always one whose owner is gone.
func (s *slot) create() error {
	b, err := json.Marshal(s.container)
	if err != nil {
		return err
	}
	dir := s.dir + newSuffix
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	if s.lock, err = fsx.TryLock(filepath.Join(dir, lockFile)); err != nil {
		return err
	}
	if err := fsx.ReplaceFile(filepath.Join(dir, recordFile), b, 0o600); err != nil {
		return err
	}
	return os.Rename(dir, s.dir)
}

// sweep removes directories that a crash left half-way in or out. The store's
// lock is held.
func (e *Engine) sweep() error {
	var errs []error
	for _, suffix := range []string{newSuffix, goneSuffix} {
		left, err := filepath.Glob(e.layout.container("*" + suffix))
		errs = append(errs, err)
		for _, dir := range left {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// records reads every container's record, oldest first.
func (e *Engine) records() ([]Container, error) {
	es, err := os.ReadDir(e.layout.containers())
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "containers.read", err, "")
	}
	var out []Container
	for _, d := range es {
		if filepath.Ext(d.Name()) != "" {
			continue // on its way in or out
		}
		c, err := e.load(d.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Container) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// load reads one container's record and status.
func (e *Engine) load(id string) (Container, error) {
	var c Container
	dir := e.layout.container(id)
	f, err := os.Open(filepath.Join(dir, recordFile))
	if err != nil {
		return c, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return c, err
	}
	if st.Size() > maxRecord {
		return c, fault.New(fault.Invalid, "containers.record", "the record of "+id+" is too large", "remove "+dir)
	}
	if err := json.NewDecoder(f).Decode(&c); err != nil || c.ID != id {
		return c, fault.New(fault.Internal, "containers.record", fmt.Sprintf("the record of %s cannot be read: %v", id, err), "remove "+dir)
	}
	c.Status, err = sandbox.ReadStatus(dir)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) {
		// Not started yet, or spoiled by a power cut, which also ended it: the
		// lock tells the two apart, and one bad file stops nobody else.
		err = nil
	}
	if c.Request.Restart.Name != "" || c.Request.Health != nil {
		c.Kept = e.kept(c)
	}
	return c, err
}

// List returns the containers, oldest first, after reaping what a crash left.
func (e *Engine) List(ctx context.Context) ([]Container, error) {
	if err := e.Reap(ctx); err != nil {
		return nil, err
	}
	return e.records()
}

// Find returns the container with this id, name, or unambiguous prefix of an
// id; fault.NotFound otherwise.
func (e *Engine) Find(ctx context.Context, ref string) (Container, error) {
	all, err := e.List(ctx)
	if err != nil {
		return Container{}, err
	}
	// An id before a name: nobody is found under another's id.
	if i := slices.IndexFunc(all, func(c Container) bool { return c.ID == ref }); i >= 0 {
		return all[i], nil
	}
	var hits []Container
	for _, c := range all {
		if c.Name == ref {
			return c, nil
		}
		if ref != "" && strings.HasPrefix(c.ID, ref) {
			hits = append(hits, c)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return Container{}, fault.New(fault.NotFound, "container.unknown", "No such container: "+ref, "list them: ward ps -a")
	default:
		return Container{}, fault.New(fault.Invalid, "container.ambiguous", fmt.Sprintf("%q is the beginning of %d container ids", ref, len(hits)), "give more digits")
	}
}

// Outputs are the paths of a container's output logs, in the order in which
// they were written: for each start the files that were turned away, oldest
// first, then the one being written. A start that never came to writing has
// none.
func (e *Engine) Outputs(c Container) ([]string, error) {
	dir := e.layout.container(c.ID)
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, "logs.missing", err, "list containers: ward ps -a")
	}
	type part struct {
		start, turned int
		path          string
	}
	var parts []part
	for _, d := range es {
		name, turned := d.Name(), 0
		if head, tail, ok := strings.Cut(name, ".log."); ok {
			if turned, err = strconv.Atoi(tail); err != nil || turned < 1 {
				continue
			}
			name = head + ".log"
		}
		if n := sandbox.OutputStart(name); n > 0 {
			parts = append(parts, part{n, turned, filepath.Join(dir, d.Name())})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.turned, a.turned)) })
	var out []string
	for _, p := range parts {
		out = append(out, p.path)
	}
	return out, nil
}
