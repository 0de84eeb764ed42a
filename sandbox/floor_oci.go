package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// ociSpec is the part of an OCI specification that the floor looks at. Both
// programs read it with one decoder, and the launcher's libcontainer reads the
// same bytes with the same one, so that no two of them see two specifications.
type ociSpec struct {
	Root *struct {
		Path string `json:"path"`
	} `json:"root"`
	Mounts []struct {
		Destination string   `json:"destination"`
		Source      string   `json:"source"`
		Type        string   `json:"type"`
		Options     []string `json:"options"`
	} `json:"mounts"`
	Linux *struct {
		CgroupsPath string `json:"cgroupsPath"`
		Namespaces  []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// CheckOCI returns nil if p is at or above the floor for what callers of the
// OCI runtime start, else fault.Denied with a rule "floor.oci-…". A trusted
// caller gets what its specification says; what no caller gets is a container
// that outlives its monitor without policy having said so, and one that sees
// or joins what belongs to ward.
func (f Floor) CheckOCI(p OCIPlan) error {
	if f.idRange == 0 || len(f.profiles) == 0 {
		return below("unset", "no floor is set", "")
	}
	if err := f.ociPlan(p); err != nil || p.Op == OCIExec {
		return err
	}
	var s ociSpec
	if err := json.Unmarshal([]byte(p.Spec), &s); err != nil {
		return fault.New(fault.Invalid, "oci.spec", "the specification cannot be read: "+err.Error(), "")
	}
	for _, check := range []func(OCIPlan, ociSpec) error{ociPID, ociMountNamespace, ociPaths, ociCgroup} {
		if err := check(p, s); err != nil {
			return err
		}
	}
	return nil
}

func (f Floor) ociPlan(p OCIPlan) error {
	switch {
	case p.Op != OCICreate && p.Op != OCIExec:
		return below("oci-plan", fmt.Sprintf("%.20q is not something a plan can ask for", string(p.Op)), "")
	case len(p.Run) != 64 || !isHex(p.Run):
		return below("oci-plan", "the plan has no run id", "")
	case (p.Op == OCIExec) != isHex(p.Exec) || p.Op == OCICreate && p.Exec != "":
		return below("oci-plan", "an added process has an id of its own, and nothing else has", "")
	case p.ID == "" || len(p.ID) > 1024 || p.ID != filepath.Base(p.StateDir):
		return below("oci-plan", "the container's id is not the name of its directory", "")
	case p.PreserveFDs < 0 || p.PreserveFDs > 1024:
		return below("oci-plan", fmt.Sprintf("%d descriptors are not a number to pass on", p.PreserveFDs), "")
	case len(p.Keep) == 0:
		return below("oci-plan", "the plan does not say which directories are ward's", "")
	}
	for _, dir := range append([]string{p.StateDir, p.Bundle, p.AuditDir}, p.Keep...) {
		if err := cleanPath(dir); err != nil {
			return below("oci-plan", fmt.Sprintf("directory %q %v", dir, err), "")
		}
	}
	return nil
}

// ociPID: only in a PID namespace nested in its monitor's does the kernel end
// the container with the monitor.
func ociPID(p OCIPlan, s ociSpec) error {
	if p.SharedPID {
		return nil
	}
	if s.Linux != nil {
		for _, n := range s.Linux.Namespaces {
			if n.Type == "pid" && n.Path == "" {
				return nil
			}
		}
	}
	return below("oci-pid-namespace", "the container has no PID namespace of its own, so that the kernel would not end it with its monitor",
		`ask for one, or grant its caller "shared_pid" (docs/oci.md)`)
}

// ociMountNamespace: in the host's own, the container's mounts would be the
// host's, and ward's directories a chroot away. One to join is its caller's
// affair, but for that of this process.
func ociMountNamespace(_ OCIPlan, s ociSpec) error {
	refuse := func(cause string) error {
		return below("oci-mount-namespace", "the container has no mount namespace of its own: "+cause, "ask for one")
	}
	if s.Linux != nil {
		for _, n := range s.Linux.Namespaces {
			if n.Type != "mount" {
				continue
			}
			if n.Path == "" {
				return nil
			}
			theirs, err := os.Stat(n.Path)
			if err != nil {
				return refuse(err.Error())
			}
			hosts, err := os.Stat("/proc/self/ns/mnt")
			if err != nil {
				return err
			}
			if os.SameFile(theirs, hosts) {
				return refuse(fmt.Sprintf("%q is the host's", n.Path))
			}
			return nil
		}
	}
	return refuse("it asks for none")
}

// ociPaths keeps ward's own directories (the log and its key, the policy, the
// images) out of every container, also of one that may mount all else.
func ociPaths(p OCIPlan, s ociSpec) error {
	if err := cleanPath(p.Rootfs); err != nil {
		return below("oci-root", fmt.Sprintf("the root file system %q %v", p.Rootfs, err), "")
	}
	if dir, shown := shows(p.Rootfs, p.Keep); shown {
		return below("oci-root", fmt.Sprintf("the root file system %q would show ward's own %s", p.Rootfs, dir), "")
	}
	if len(p.Sources) != len(s.Mounts) {
		return below("oci-mount", "the plan does not say what each mount shows", "")
	}
	for i, m := range s.Mounts {
		for _, o := range m.Options { // lowerdir=/a:/b and its like
			name, v, _ := strings.Cut(o, "=")
			for path := range strings.SplitSeq(v, ":") {
				if overlayDir(name) && path != "" && (!filepath.IsAbs(path) || strings.Contains(path, `\`)) {
					return below("oci-mount", fmt.Sprintf("option %q of the mount on %q names a directory in a way that only the kernel reads", o, m.Destination),
						`use absolute paths without "\"`)
				}
				if !filepath.IsAbs(path) {
					continue
				}
				if dir, shown := shows(path, p.Keep); shown {
					return below("oci-mount", fmt.Sprintf("option %q of the mount on %q would show ward's own %s", o, m.Destination, dir), "mount less of the host")
				}
			}
		}
		source := m.Source
		if m.Type == "bind" || ociBind(m.Options) {
			// Not where the specification's words lead by now, but what was
			// judged: the launcher mounts that and nothing else.
			source = p.Sources[i]
			if err := cleanPath(source); err != nil {
				return below("oci-mount", fmt.Sprintf("the source %q of the mount on %q %v", source, m.Destination, err), "")
			}
		} else if p.Sources[i] != "" {
			return below("oci-mount", fmt.Sprintf("the mount on %q binds nothing", m.Destination), "")
		}
		if !filepath.IsAbs(source) {
			continue // not a path: "proc", "tmpfs"
		}
		if dir, shown := shows(source, p.Keep); shown {
			return below("oci-mount", fmt.Sprintf("the mount of %q on %q would show ward's own %s", m.Source, m.Destination, dir), "mount less of the host")
		}
	}
	return nil
}

// overlayDir reports whether the option of that name holds directories. The
// kernel takes relative ones from wherever libcontainer happens to be, and "\"
// away: what is compared here would not be what it opens.
func overlayDir(option string) bool {
	switch strings.TrimSuffix(option, "+") {
	case "lowerdir", "datadir", "upperdir", "workdir":
		return true
	}
	return false
}

func ociBind(options []string) bool {
	for _, o := range options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// shows returns the first of dirs that is at, below or above path, as it is
// written or where its links lead.
func shows(path string, dirs []string) (string, bool) {
	paths := []string{filepath.Clean(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != paths[0] {
		paths = append(paths, real)
	}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		for _, p := range paths {
			if p == dir || p == "/" || strings.HasPrefix(p, dir+"/") || strings.HasPrefix(dir, p+"/") {
				return dir, true
			}
		}
	}
	return "", false
}

// ociCgroup: what runs in one of ward's own cgroups shares its limits, is
// counted as it and killed with it.
func ociCgroup(_ OCIPlan, s ociSpec) error {
	if s.Linux == nil {
		return nil
	}
	path := filepath.Clean("/" + s.Linux.CgroupsPath)
	if path == "/"+CgroupParent || strings.HasPrefix(path, "/"+CgroupParent+"/") {
		return below("oci-cgroup", fmt.Sprintf("cgroup %q is ward's own", s.Linux.CgroupsPath), "use another parent")
	}
	return nil
}
