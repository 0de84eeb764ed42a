package policy

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ThisHost returns the facts about this machine that a policy may look at.
// What cannot be read stays zero, and a zero Memory or CPUs denies.
func ThisHost() Host {
	h := Host{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Rootless: os.Geteuid() != 0, Cgroup: cgroup()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		h.Memory = int64(s.Totalram) * int64(s.Unit)
	}
	return h
}

// cgroup tells the layouts apart as systemd does: by the file system type of
// the mount point, and of the v2 hierarchy beside v1 ones.
func cgroup() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) != nil {
		return ""
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2"
	}
	if unix.Statfs("/sys/fs/cgroup/unified", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "hybrid"
	}
	return "v1"
}
