package sandbox

import (
	"fmt"
	"path"
	"reflect"
	"strings"
)

// kernelTrees are mounted by the launcher. A mount over, under or above them
// could show the payload a false /proc or uncover a masked path
// (CVE-2019-16884, CVE-2019-19921, CVE-2023-28642, CVE-2025-52881).
var kernelTrees = []string{"/proc", "/sys", "/dev"}

func (f Floor) mounts(p Plan) error {
	if len(p.Mounts) > maxMounts {
		return below("size", fmt.Sprintf("more than %d mounts", maxMounts), "")
	}
	seen := map[string]bool{}
	for _, m := range p.Mounts {
		if err := cleanPath(m.Target); err != nil {
			return below("mounts", fmt.Sprintf("mount target %q %v", m.Target, err), "")
		}
		for _, tree := range kernelTrees {
			if within(m.Target, tree) || within(tree, m.Target) {
				return below("mounts", fmt.Sprintf("mount target %q is in the way of %s", m.Target, tree), "choose another target")
			}
		}
		if seen[m.Target] {
			return below("mounts", fmt.Sprintf("two mounts have the target %q", m.Target), "mount one thing there")
		}
		seen[m.Target] = true
		if err := f.mount(p, m); err != nil {
			return err
		}
	}
	return nil
}

// mount checks that m has what its type needs, and nothing else: a field that
// its type does not use would be on record and mean nothing.
func (f Floor) mount(p Plan, m Mount) error {
	only := Mount{Type: m.Type, Target: m.Target, ReadOnly: m.ReadOnly, Exec: m.Exec}
	switch m.Type {
	case MountBind:
		only.Source = m.Source
		if err := cleanPath(m.Source); err != nil {
			return below("mounts", fmt.Sprintf("bind source %q is not an absolute, clean path", m.Source), "")
		}
		if tree := forbiddenSource(p, m.Source); tree != "" {
			return below("mounts", fmt.Sprintf("bind source %q would show the container %s", m.Source, tree), "bind a directory of your data instead")
		}
	case MountTmpfs:
		only.Size, only.Mode, only.UID, only.GID = m.Size, m.Mode, m.UID, m.GID
		if m.Size <= 0 || m.Size > maxMemory || m.Mode > 0o1777 || m.UID >= p.IDMap.Size || m.GID >= p.IDMap.Size {
			return below("mounts", fmt.Sprintf("the tmpfs at %q needs a finite size, a mode up to 1777 and an owner the container has", m.Target), "")
		}
	case MountVolume:
		only.Name, only.Source, only.Subpath, only.CopyUp = m.Name, m.Source, m.Subpath, m.CopyUp
		if err := volumeMount(p, m); err != nil {
			return err
		}
	case MountImage:
		only.Name, only.Digest, only.Layers, only.Subpath = m.Name, m.Digest, m.Layers, m.Subpath
		if err := imageMount(m); err != nil {
			return err
		}
	default:
		return below("mounts", fmt.Sprintf("mount type %q is not known", string(m.Type)), "")
	}
	if !reflect.DeepEqual(only, m) {
		return below("mounts", fmt.Sprintf("the %s at %q says what no %[1]s has", m.Type, m.Target), "")
	}
	return nil
}

// volumeMount lets nothing but the content of a volume be mounted as one: what
// is mounted through the id map is given to the container's root.
func volumeMount(p Plan, m Mount) error {
	switch {
	case p.Host.VolumeDir == "" || !isName(m.Name, 255, "_.-"):
		return below("mounts", fmt.Sprintf("%q is not the name of a volume", m.Name), "")
	case m.Source != VolumeData(p.Host.VolumeDir, m.Name):
		return below("mounts", fmt.Sprintf("volume source %q is not where the volume %s is kept", m.Source, m.Name), "")
	case m.CopyUp && m.Subpath != "":
		return below("mounts", fmt.Sprintf("the volume at %q would be filled in part", m.Target), "add volume-nocopy")
	}
	return cleanSubpath(m)
}

func imageMount(m Mount) error {
	if m.Name == "" || len(m.Name) > maxPathSize || !isDigest(m.Digest) || !m.ReadOnly {
		return below("mounts", fmt.Sprintf("the image at %q needs a reference, a digest, and to be read-only", m.Target), "")
	}
	if err := checkLayers(m.Layers); err != nil {
		return err
	}
	return cleanSubpath(m)
}

func cleanSubpath(m Mount) error {
	if m.Subpath == "" {
		return nil
	}
	if err := cleanPath("/" + m.Subpath); err != nil || strings.HasPrefix(m.Subpath, "/") || path.Clean(m.Subpath) != m.Subpath || m.Subpath == "." {
		return below("mounts", fmt.Sprintf("%q is not a clean path below what is mounted at %q", m.Subpath, m.Target), "")
	}
	return nil
}

// forbiddenSource returns the tree a bind of source would show, or "". The
// host's own /proc and /sys have no masks on them and show the monitor. What is
// ward's is nobody's to bind, whatever policy grants: the log and its key, the
// keys and policies themselves, the sockets of monitors, other containers'
// files and volumes; and with each directory all those above it.
func forbiddenSource(p Plan, source string) string {
	for _, tree := range []string{"/proc", "/sys", p.Host.ContainerDir, p.Host.RuntimeDir, p.Host.AuditDir, p.Host.VolumeDir} {
		if tree != "" && (within(source, tree) || within(tree, source)) {
			return tree
		}
	}
	if tree, shown := shows(source, p.Host.Keep); shown {
		return "ward's own " + tree
	}
	return ""
}
