package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// Cgroups are the directories of one container's cgroups by the name of the
// controller ("memory"). On a host with version 2 alone there is one, with an
// empty name; on any other version 2 has no controller of use and is left out.
type Cgroups map[string]string

// ContainerCgroups are where the cgroups of a container are, whether or not it
// runs.
func ContainerCgroups(container string) (Cgroups, error) {
	if !isHex(container) {
		return nil, fault.New(fault.Invalid, "cgroup.container", fmt.Sprintf("%.80q is not a container id", container), "")
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := cgroupsIn(f, container)
	if err == nil && len(all) == 0 {
		err = fault.New(fault.Unavailable, "cgroup.mounts", "no cgroup hierarchy is mounted", "mount /sys/fs/cgroup")
	}
	return all, err
}

func cgroupsIn(mountinfo io.Reader, container string) (Cgroups, error) {
	all := Cgroups{}
	unified := ""
	sc := bufio.NewScanner(mountinfo)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		// proc_pid_mountinfo(5): … (5) mount point … - (9) type source options
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields, last := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(last) < 3 {
			continue
		}
		dir := filepath.Join(fields[4], CgroupParent, container)
		switch last[0] {
		case "cgroup":
			for option := range strings.SplitSeq(last[2], ",") {
				if slices.Contains(controllers, option) && all[option] == "" {
					all[option] = dir
				}
			}
		case "cgroup2":
			if unified == "" {
				unified = dir
			}
		}
	}
	if len(all) == 0 && unified != "" {
		all[""] = unified
	}
	return all, sc.Err()
}

// controllers are those that are read or written here.
var controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "freezer"}

// unified returns the one directory of a host with version 2 alone.
func (c Cgroups) unified() (string, bool) {
	dir, ok := c[""]
	return dir, ok && len(c) == 1
}

// Processes are the process ids in the container, in the caller's PID
// namespace.
func (c Cgroups) Processes() ([]int, error) {
	dir, ok := c.unified()
	if !ok {
		dir = c["pids"]
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has ended
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		if n > 0 { // 0 is one that cannot be seen from here
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}
