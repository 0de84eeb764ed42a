package audit

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
)

// The files of a log, all below one directory that appears whole or not at
// all: a crash while a log is made must not leave a key without a log or a log
// without a key, since neither may ever be made good by making a new key.
const (
	journalDir  = "journal"
	newPrefix   = ".new-"
	vkeyFile    = "vkey"
	keyFile     = "key/00000000"
	lockFile    = "lock"
	ballastFile = "ballast"
	logDir      = "log"
	tornDir     = "torn"
)

// Config names a log to be created.
type Config struct {
	// Dir holds the log; it may exist, and may be a mount point.
	Dir string
	// Host names the machine. The log's origin is "ward/HOST/RANDOM": one for
	// each log ever made, so that two logs are never taken for one.
	Host string
}

// validHost keeps the origin one line that note keys and URLs can carry.
func validHost(s string) bool {
	const ok = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	return s != "" && len(s) <= 255 && strings.Trim(s, ok) == ""
}

// Create makes a new log with a key of its own in cfg.Dir. It fails with
// fs.ErrExist if there is one, whatever its state: a key is never replaced.
// It is atomic: after a crash there is a whole log or none.
func Create(cfg Config) error {
	if cfg.Dir == "" || !validHost(cfg.Host) {
		return fmt.Errorf("%w: log in %q for host %q", ErrInvalid, cfg.Dir, cfg.Host)
	}
	if err := makeDir(cfg.Dir); err != nil {
		return classify(err)
	}
	if err := checkFileSystem(cfg.Dir); err != nil {
		return err
	}
	d, err := os.Open(cfg.Dir)
	if err != nil {
		return classify(err)
	}
	defer d.Close()
	if err := flock(d, time.Now().Add(lockTimeout)); err != nil {
		return err
	}
	final := filepath.Join(cfg.Dir, journalDir)
	if _, err := os.Lstat(final); err == nil {
		return fmt.Errorf("audit log %s: %w", final, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := removeUnfinished(cfg.Dir); err != nil {
		return classify(err)
	}
	tmp, err := os.MkdirTemp(cfg.Dir, newPrefix+"*")
	if err != nil {
		return classify(err)
	}
	defer os.RemoveAll(tmp) // finds nothing once renamed
	if err := fill(tmp, cfg.Host); err != nil {
		return fmt.Errorf("audit log %s: %w", cfg.Dir, classify(err))
	}
	// NOREPLACE: rename would take the place of an empty directory.
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: final, Err: err}
	}
	return d.Sync()
}

// makeDir makes dir and what is missing above it, durably: a power cut must not
// take a directory whose log has acknowledged something.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fsx.SyncDir(filepath.Dir(dir))
}

// removeUnfinished deletes what a killed Create left; the caller holds the
// directory's lock, so none of it is in the making.
func removeUnfinished(dir string) error {
	es, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), newPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill writes a new log into the empty directory dir, durably.
func fill(dir, host string) error {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, "ward/"+host+"/"+hex.EncodeToString(id[:]))
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	for _, d := range []string{"key", logDir, tornDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, data string
		perm       os.FileMode
	}{{keyFile, skey + "\n", 0o400}, {vkeyFile, vkey + "\n", 0o444}, {lockFile, "", 0o600}} {
		if err := fsx.CreateFile(filepath.Join(dir, f.name), []byte(f.data), f.perm); err != nil {
			return err
		}
	}
	if err := makeBallast(dir); err != nil {
		return err
	}
	first, err := newRecord(Record{Type: LogGenesis, Actor: Caller(), Data: Genesis{signer.Name(), vkey}}, stamp{host: host, boot: bootID()})
	if err != nil {
		return err
	}
	if _, _, err := createSegment(dir, 0, tree{}, 0, signer, first); err != nil {
		return err
	}
	return fsx.SyncDir(dir)
}

// segmentName is the path of segment n below the log's directory.
func segmentName(n uint32) string { return fmt.Sprintf("%s/%08d.seg", logDir, n) }

// createSegment makes segment n, which continues t, with leaves as its first
// records, and returns the tree after them and the file's size. It appears
// whole or not at all.
func createSegment(dir string, n uint32, t tree, prevEnd int64, signer note.Signer, leaves ...[]byte) (tree, int64, error) {
	b := appendSegmentHeader(nil, segmentHeader{number: n, first: t.size, prevEnd: prevEnd, origin: signer.Name()})
	c, err := signCommit(t, signer)
	if err != nil {
		return t, 0, err
	}
	b = appendCommit(b, c)
	if len(leaves) > 0 {
		if b, c, err = appendBatch(b, t, signer, leaves); err != nil {
			return t, 0, err
		}
	}
	return c.tree, int64(len(b)), fsx.CreateFile(filepath.Join(dir, segmentName(n)), b, 0o600)
}

// segments are the numbers of the segments in dir, ascending.
func segments(dir string) ([]uint32, error) {
	es, err := os.ReadDir(filepath.Join(dir, logDir))
	if err != nil {
		return nil, err
	}
	var ns []uint32
	for _, e := range es {
		digits, ok := strings.CutSuffix(e.Name(), ".seg")
		if !ok || len(digits) != 8 {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			continue
		}
		ns = append(ns, uint32(n))
	}
	slices.Sort(ns)
	return ns, nil
}

// readSmall reads a file that must not exceed limit bytes, without following
// a link in its place.
func readSmall(path string, limit int64) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, st, err
}

// VKey is the public key of the log in dir as it stands there, in signed-note
// form. Whoever verifies the log must have it from elsewhere: Verify with a
// key taken from the log's own directory shows that the log is whole, not that
// it is the one that was written.
func VKey(dir string) (string, error) {
	if _, err := os.Lstat(filepath.Join(dir, journalDir)); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w in %s", ErrNoLog, dir)
	}
	b, _, err := readSmall(filepath.Join(dir, journalDir, vkeyFile), 1024)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// loadKey reads the signing key. There is no path from here to making one:
// an I/O error once made a prototype generate a new key over a good log.
func loadKey(dir string) (note.Signer, error) {
	path := filepath.Join(dir, keyFile)
	b, st, err := readSmall(path, 1024)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s is open to other users (mode %04o)", ErrKey, path, st.Mode().Perm())
	}
	s, err := newSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a signing key", ErrKey, path)
	}
	return s, nil
}
