package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// Bounds that are the same for everybody. They are far above what real images
// use and far below what hurts.
const (
	maxManifest    = 4 << 20 // also the bound of a registry that follows the OCI distribution specification
	maxConfig      = 8 << 20
	maxLayers      = 127 // overlayfs takes more; Docker builds no more
	maxAttachments = 64
	maxAttachment  = 1 << 20
)

// Config is where a Store lives and how much it takes in. Zero bounds mean the
// defaults named here, never "unbounded".
type Config struct {
	// Dir is the store's directory. It must be on one file system that has
	// rename, flock and extended attributes (ext4, xfs, btrfs, tmpfs).
	Dir string
	// MaxLayerBytes bounds one unpacked layer: the archive's length and the sum
	// of its files' sizes, holes included. Default 32 GiB.
	MaxLayerBytes int64
	// MaxLayerEntries bounds the entries of one layer. Default 1,000,000.
	MaxLayerEntries int
	// MaxImageBytes bounds the sum of the layers' sizes in a manifest, as they
	// are transferred. Default 64 GiB.
	MaxImageBytes int64
	// CertsDir holds <registry host[:port]>/*.crt with further certificate
	// authorities, as Docker's /etc/docker/certs.d does. Empty means none
	// beyond the system's.
	CertsDir string
}

// Store is a content store. All methods may be called concurrently, by any
// number of processes on the same directory.
type Store struct {
	cfg Config
}

// Open returns the store in cfg.Dir and creates its directories if they are
// absent: Dir 0711, all beneath it 0700, because layers hold other people's
// setuid programs which no local user may reach.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" || !filepath.IsAbs(cfg.Dir) {
		return nil, fault.New(fault.Invalid, "image.store", fmt.Sprintf("image store directory %q is not an absolute path", cfg.Dir), "give an absolute path")
	}
	setDefault(&cfg.MaxLayerBytes, 32<<30)
	setDefault(&cfg.MaxLayerEntries, 1_000_000)
	setDefault(&cfg.MaxImageBytes, 64<<30)
	s := &Store{cfg}
	if _, err := os.Lstat(s.path("oci-layout")); err == nil {
		return s, nil
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, diskFault(fmt.Errorf("image store: %w", err))
	}
	for _, d := range []string{"blobs/sha256", "layers", "attachments", "attestations", "tmp", "locks", "damaged"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, diskFault(fmt.Errorf("image store: %w", err))
		}
	}
	// Last, so that its presence says that all the rest is there.
	err := fsx.CreateFile(s.path("oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("image store: %w", err)
	}
	return s, nil
}

func setDefault[T int | int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, elem...)...)
}

// diskFault classifies trouble with the store's own file system.
func diskFault(err error) error {
	var known *fault.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fault.Wrap(fault.Unavailable, "image.no-space", err, "free some space, for example with ward rmi")
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS):
		return fault.Wrap(fault.Unavailable, "image.store-access", err, "run as the user the image store belongs to, or name another with --root")
	}
	return err
}

// work is held by whoever has things in tmp/ or relies on blobs that no index
// entry names yet: pulls, imports, unpacking. It is a shared flock; removal
// takes it exclusively, and so never deletes what somebody is about to use.
type work struct{ f *os.File }

// begin starts work. Whoever finds nobody else working first sweeps what killed
// processes left behind.
func (s *Store) begin(ctx context.Context) (*work, error) {
	f, err := os.OpenFile(s.path("locks", "work"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	w := &work{f}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		if err := s.sweep(); err != nil {
			w.end()
			return nil, err
		}
	}
	// Going from exclusive to shared may let another in between: it can only
	// sweep, and there is nothing of ours yet.
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := flock(f, unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return w, nil
		}
		if err != unix.EWOULDBLOCK {
			w.end()
			return nil, fmt.Errorf("lock image store: %w", err)
		}
		select {
		case <-ctx.Done():
			w.end()
			return nil, fault.Wrap(fault.Unavailable, "image.store-busy", fmt.Errorf("image store is being cleaned by another process: %w", ctx.Err()), "try again")
		case <-time.After(pause):
		}
	}
}

// alone takes the work lock exclusively, or returns nil if somebody works.
func (s *Store) alone() (*work, error) {
	f, err := os.OpenFile(s.path("locks", "work"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return &work{f}, nil
	case unix.EWOULDBLOCK:
		return nil, f.Close()
	default:
		f.Close()
		return nil, fmt.Errorf("lock image store: %w", err)
	}
}

func (w *work) end() { w.f.Close() }

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// sweep empties tmp/. The caller holds the work lock exclusively.
func (s *Store) sweep() error {
	es, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range es {
		if err := removeTree(s.path("tmp", e.Name())); err != nil {
			return fmt.Errorf("sweep image store: %w", err)
		}
	}
	return nil
}

// removeTree removes path and all beneath it, also directories that their
// owner may not enter: an ordinary user's layer may hold some.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// WalkDir never follows a link, and the tree is ours alone.
	werr := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			if cerr := os.Chmod(p, 0o700); cerr != nil {
				return cerr
			}
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil // now readable: the second round will see to it
		}
		return err
	})
	if werr != nil {
		return werr
	}
	if err = os.RemoveAll(path); errors.Is(err, fs.ErrPermission) {
		return removeTree(path) // one level deeper each time
	}
	return err
}

// stripe serializes work on one digest between processes. There are 256 locks
// for each kind and no lock file is ever deleted (deleting one races with its
// taker); digests that share a lock merely wait for each other. A holder never
// takes a second one.
func (s *Store) stripe(ctx context.Context, kind, hex string) (*fsx.Lock, error) {
	l, err := fsx.WaitLock(ctx, s.path("locks", kind+"-"+hex[:2]))
	if errors.Is(err, fsx.ErrLocked) {
		return nil, fault.Wrap(fault.Unavailable, "image.store-busy", err, "try again")
	}
	return l, err
}
