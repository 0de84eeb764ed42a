package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
)

// ociCgroupsFile says, in the directory of a container, where its cgroups are
// or would be.
const ociCgroupsFile = "cgroups.json"

// NoteOCICgroups writes down the cgroups of a container of ward-oci, by
// controller, before they are made.
func NoteOCICgroups(dir string, paths map[string]string) error {
	b, err := json.Marshal(paths)
	if err != nil {
		return err
	}
	return fsx.ReplaceFile(filepath.Join(dir, ociCgroupsFile), b, 0o600)
}

// CleanOCI removes the cgroups that were noted in dir, as far as they are
// there and nobody is in them: what runs in one by then is not the container,
// which the kernel has ended with its monitor. It is idempotent.
func CleanOCI(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, ociCgroupsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var paths map[string]string
	if err := json.Unmarshal(b, &paths); err != nil {
		return fmt.Errorf("cgroups of %s: %w", dir, err)
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, p := range paths {
		if p != filepath.Clean(p) || !inside(p, mounts) {
			continue
		}
		// The monitor lets go of its lock a moment before the kernel is done.
		for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
			err := removeTree(p)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return err
			}
			if time.Now().After(deadline) {
				break // somebody else's
			}
		}
	}
	return nil
}

// inside reports whether path is below one of dirs.
func inside(path string, dirs []string) bool {
	for _, d := range dirs {
		if strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}

// reapNested takes the status of those children of this process, but for one,
// that have ended in a PID namespace nested in its own.
func reapNested(but int) {
	own := nesting("self")
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, child := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(child); err == nil && pid != but && nesting(child) > own {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // one that lives is left
			}
		}
	}
}

// nesting is in how many PID namespaces a process has a number, as far as this
// one sees them.
func nesting(pid string) int {
	b, _ := os.ReadFile("/proc/" + pid + "/status")
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 0 && f[0] == "NSpid:" {
			return len(f) - 1
		}
	}
	return 0
}
