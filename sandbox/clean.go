package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// CgroupParent is the cgroup, in every hierarchy, below which each container
// has one named by its run id.
const CgroupParent = "ward"

// Clean removes what a monitor that was killed could not: the run's cgroups
// and its runtime directory. The payload is already dying, because the
// monitor was the first process of its PID namespace; Clean waits a moment
// for the kernel to be done and fails if anything is still alive then. It is
// idempotent.
func Clean(run, runtimeDir string) error {
	if len(run) != 64 || !isHex(run) {
		return fault.New(fault.Invalid, "clean.run", fmt.Sprintf("%.80q is not a run id", run), "")
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		// What version 1's freezer holds does not even die until it is let go.
		if err := thaw(filepath.Join(m, CgroupParent, run)); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := removeCgroup(filepath.Join(m, CgroupParent, run)); err != nil {
			return err
		}
	}
	return os.RemoveAll(runtimeDir)
}

// thaw lets go what a freezer holds in dir; most directories have none.
func thaw(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "freezer.state"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString("THAWED")
	return errors.Join(err, f.Close())
}

// removeCgroup removes one empty cgroup and those in it. Its processes are
// gone soon after the monitor; until then the kernel answers EBUSY.
func removeCgroup(dir string) error {
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = removeTree(dir); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return fmt.Errorf("remove cgroup: %w", err)
}

// removeTree removes a cgroup bottom up. The files in it are the kernel's and
// go with it.
func removeTree(dir string) error {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// cgroupMounts lists where cgroup hierarchies are mounted. Directories beside
// them that only look like hierarchies are not taken for one.
func cgroupMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// proc_pid_mountinfo(5): … (5) mount point … - (9) type …
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && strings.HasPrefix(after, "cgroup") {
			out = append(out, fields[4])
		}
	}
	return out, sc.Err()
}
