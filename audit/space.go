package audit

import (
	"fmt"
	"os"

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

// checkSpace refuses with ErrFull below the low-water mark.
func checkSpace(f *os.File) error {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("free space of %s: %w", f.Name(), err)
		}
		break
	}
	if free := int64(st.Bavail) * blockSize(st); free < lowWater {
		return fmt.Errorf("%w: %d KiB free at %s, %d KiB needed", ErrFull, free>>10, f.Name(), lowWater>>10)
	}
	return nil
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
