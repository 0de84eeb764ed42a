package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lowWater is the free space, in bytes, below which no new run is recorded:
// what is left is for the ends of those that are already running.
const lowWater = 8 << 20

// Magic numbers of file systems whose locks or flushes are another machine's
// word (statfs(2)).
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.SMB_SUPER_MAGIC:   "smb",
	unix.CIFS_SUPER_MAGIC:  "cifs",
	unix.SMB2_SUPER_MAGIC:  "smb2",
	unix.AFS_SUPER_MAGIC:   "afs",
	unix.AFS_FS_MAGIC:      "afs",
	unix.CODA_SUPER_MAGIC:  "coda",
	unix.CEPH_SUPER_MAGIC:  "ceph",
	unix.V9FS_MAGIC:        "9p",
	unix.OCFS2_SUPER_MAGIC: "ocfs2",
}

// checkFileSystem refuses network file systems: flock(2) and fdatasync(2) do
// not mean there what the log needs them to mean.
func checkFileSystem(path string) error {
	var st unix.Statfs_t
	if err := statfs(path, &st); err != nil {
		return classify(&os.PathError{Op: "statfs", Path: path, Err: err})
	}
	if name, ok := remote[int64(uint32(st.Type))]; ok {
		return fmt.Errorf("%w: %s is on %s", ErrFileSystem, path, name)
	}
	return nil
}

// ballastSize is kept in a file of its own, in bytes: given up on a full disk,
// so that the ends of runs can still be recorded while others fill the rest.
const ballastSize = 1 << 20

// reserve refuses a new run with ErrFull below the low-water mark, and puts
// the ballast back once there is plenty.
func (l *Log) reserve() error {
	free, err := freeSpace(l.lock)
	if err != nil {
		return err
	}
	if free < lowWater {
		return fmt.Errorf("%w: %d KiB free at %s, %d KiB needed", ErrFull, free>>10, l.dir, lowWater>>10)
	}
	if free < 2*lowWater || !l.light.Load() {
		return nil
	}
	if err := makeBallast(l.dir); err != nil {
		return classify(err)
	}
	l.light.Store(false)
	return nil
}

// makeBallast reserves the ballast's space; that it is there already is fine.
func makeBallast(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, ballastFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // it has no content to lose
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
		switch err {
		case unix.EINTR:
			continue
		case unix.EOPNOTSUPP: // a file system that cannot reserve goes without
			return nil
		}
		return err
	}
}

// dropBallast gives the ballast's space back, and says whether there was any.
func (l *Log) dropBallast() bool {
	l.light.Store(true)
	return os.Remove(filepath.Join(l.dir, ballastFile)) == nil
}

func freeSpace(f *os.File) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("free space of %s: %w", f.Name(), err)
		}
		return int64(st.Bavail) * blockSize(st), nil
	}
}

// blockSize is the unit of the block counts; old kernels leave Frsize 0.
func blockSize(st unix.Statfs_t) int64 {
	if st.Frsize > 0 {
		return st.Frsize
	}
	return st.Bsize
}

func statfs(path string, st *unix.Statfs_t) error {
	for {
		if err := unix.Statfs(path, st); err != unix.EINTR {
			return err
		}
	}
}
