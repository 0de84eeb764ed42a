package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// Local is the only driver: a directory below the store's own.
const Local = "local"

const (
	// dataDir is what containers see of a volume; the launcher puts together
	// what an image has for it beside it.
	dataDir    = "_data"
	recordFile = "volume.json"
	// lockFile and what begins like the prefixes are no names of volumes:
	// volumes on their way in, and on their way out.
	lockFile   = ".lock"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
	// maxRecord bounds a record that is read back.
	maxRecord = 1 << 20
	lockWait  = 10 * time.Second
)

// Volume is one named volume.
type Volume struct {
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	// Mountpoint is the directory with its content; not part of the record.
	Mountpoint string `json:"-"`
}

// Anonymous reports whether nobody gave the volume a name.
func (v Volume) Anonymous() bool { _, ok := v.Labels[AnonymousLabel]; return ok }

// Store is the directory volumes are kept in. All methods may be called
// concurrently, by any number of processes.
type Store struct{ dir string }

// Open returns the store in dir, an absolute path, and makes the directory
// (0700) if it is not there.
func Open(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fault.New(fault.Internal, "volume.store", fmt.Sprintf("volume directory %q is not absolute", dir), "")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, "volume.store", err, "make the directory writable for this user")
	}
	return &Store{dir}, nil
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// Data is where the content of a volume of this name is, or would be.
func (s *Store) Data(name string) string { return filepath.Join(s.dir, name, dataDir) }

// lock takes the store's lock and sweeps what a crash left.
func (s *Store) lock(ctx context.Context) (*fsx.Lock, error) {
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	l, err := fsx.WaitLock(wait, filepath.Join(s.dir, lockFile))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "volume.lock", err, "another ward command holds the lock; try again")
	}
	// Whoever made these is gone: makers hold the lock while they work.
	if err := s.sweep(newPrefix); err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return l, nil
}

// sweep removes what a crash left of this kind.
func (s *Store) sweep(prefix string) error {
	left, err := filepath.Glob(filepath.Join(s.dir, prefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Ensure returns the volumes named in want, making those that are not there.
// Of one that is there only the name has to agree, as with Docker. Before the
// first is made, record is called with all that will be; if it fails, none is.
func (s *Store) Ensure(ctx context.Context, want []Volume, record func([]Volume) error) ([]Volume, error) {
	for i := range want {
		if err := errors.Join(CheckName(want[i].Name), CheckDriver(want[i].Driver)); err != nil {
			return nil, err
		}
	}
	l, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	var all, fresh []Volume
	for _, v := range want {
		have, err := s.load(v.Name)
		switch {
		case err == nil:
			v = have
		case errors.Is(err, fault.NotFound):
			v.Driver, v.Created, v.Mountpoint = Local, time.Now().UTC(), s.Data(v.Name)
			if !slices.ContainsFunc(fresh, func(o Volume) bool { return o.Name == v.Name }) {
				fresh = append(fresh, v)
			}
		default:
			return nil, err
		}
		all = append(all, v)
	}
	if len(fresh) == 0 {
		return all, nil
	}
	if err := record(fresh); err != nil {
		return nil, err
	}
	for _, v := range fresh {
		if err := s.create(v); err != nil {
			return nil, fault.Wrap(fault.Unavailable, "volume.create", fmt.Errorf("volume %s: %w", v.Name, err), "see the cause")
		}
	}
	return all, nil
}

// create makes the volume beside its place and moves it there whole.
func (s *Store) create(v Volume) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, newPrefix)
	if err != nil {
		return err
	}
	data := filepath.Join(tmp, dataDir)
	err = os.Mkdir(data, 0o755)
	if err == nil {
		err = os.Chmod(data, 0o755) // Mkdir's was subject to the umask
	}
	if err == nil {
		err = fsx.WriteFile(filepath.Join(tmp, recordFile), b, 0o600)
	}
	if err == nil {
		// Fails if the name is taken: a directory that is not empty stays.
		err = os.Rename(tmp, filepath.Join(s.dir, v.Name))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return fsx.SyncDir(s.dir)
}

// Find returns the volume of this name; fault.NotFound if there is none.
func (s *Store) Find(name string) (Volume, error) {
	if CheckName(name) != nil {
		return Volume{}, unknown(name)
	}
	return s.load(name)
}

func unknown(name string) error {
	return fault.New(fault.NotFound, "volume.unknown", fmt.Sprintf("get %.64s: no such volume", name), "list them: ward volume ls")
}

func (s *Store) load(name string) (Volume, error) {
	dir := filepath.Join(s.dir, name)
	f, err := os.Open(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(dir); err == nil {
			return Volume{}, spoiled(name, dir, "it has no record")
		}
		return Volume{}, unknown(name)
	}
	if err != nil {
		return Volume{}, fault.Wrap(fault.Internal, "volume.read", err, "")
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() > maxRecord {
		return Volume{}, spoiled(name, dir, "its record is too large")
	}
	var v Volume
	if err := json.NewDecoder(f).Decode(&v); err != nil || v.Name != name {
		return Volume{}, spoiled(name, dir, fmt.Sprintf("its record makes no sense: %v", err))
	}
	v.Mountpoint = s.Data(name)
	return v, nil
}

func spoiled(name, dir, why string) error {
	return fault.New(fault.Internal, "volume.record", fmt.Sprintf("volume %s: %s", name, why), "look at "+dir+"; it is not one that ward made")
}

// List returns the volumes, sorted by name. One that cannot be read comes back
// as the error, beside all others.
func (s *Store) List() ([]Volume, error) {
	es, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "volume.read", err, "")
	}
	var all []Volume
	var bad []error
	for _, e := range es {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v, err := s.load(e.Name())
		switch {
		case err == nil:
			all = append(all, v)
		case !errors.Is(err, fault.NotFound): // removed since
			bad = append(bad, err)
		}
	}
	return all, errors.Join(bad...)
}

// Removal says which volumes are to go and who may object.
type Removal struct {
	Names []string
	// Users says who uses each volume that is in use. It is asked under the
	// store's lock; who cannot say must return an error.
	Users func() (map[string][]string, error)
	// Record is called with the volumes that will go, before any does.
	Record func([]Volume) error
	// Unused leaves volumes that are in use, gone or unreadable as they are,
	// without an error: one that somebody spoiled must not keep its container
	// from being tidied up. List shows it.
	Unused bool
}

// Remove removes volumes and returns those it removed. With several names it
// goes on after one that cannot be removed.
func (s *Store) Remove(ctx context.Context, r Removal) ([]Volume, error) {
	gone, err := s.take(ctx, r)
	// Outside the lock, because it may take long; a second one who does the
	// same at the same time does no harm, and after a crash the next does it.
	return gone, errors.Join(err, s.sweep(gonePrefix))
}

// take moves the volumes out of the way under the lock.
func (s *Store) take(ctx context.Context, r Removal) ([]Volume, error) {
	l, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	users, err := r.Users()
	if err != nil {
		return nil, err
	}
	going := map[string]Volume{}
	var errs []error
	for _, name := range r.Names {
		v, err := s.Find(name)
		if err == nil && len(users[name]) > 0 {
			err = fault.New(fault.Invalid, "volume.in-use",
				fmt.Sprintf("remove %s: volume is in use - [%s]", name, strings.Join(users[name], ", ")),
				"remove the containers first: ward ps -a, ward rm CONTAINER")
		}
		switch {
		case err == nil:
			going[name] = v
		case !r.Unused:
			errs = append(errs, err)
		}
	}
	if len(going) == 0 {
		return nil, errors.Join(errs...)
	}
	gone := slices.SortedFunc(maps.Values(going), func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	if err := r.Record(gone); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	for i, v := range gone {
		if err := s.remove(v.Name); err != nil {
			err = fault.Wrap(fault.Internal, "volume.remove", fmt.Errorf("volume %s: %w", v.Name, err), "try again")
			return gone[:i], errors.Join(append(errs, err)...)
		}
	}
	return gone, errors.Join(errs...)
}

// remove takes the volume away as a whole: a crash leaves no volume with half
// its files.
func (s *Store) remove(name string) error {
	tmp, err := os.MkdirTemp(s.dir, gonePrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(tmp, "x")); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return fsx.SyncDir(s.dir)
}
