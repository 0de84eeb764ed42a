package sandbox

import "path"

// MountType is what a Mount puts in place.
type MountType string

// The mounts a request can ask for. proc, sys and dev are the launcher's own.
const (
	MountBind  MountType = "bind"
	MountTmpfs MountType = "tmpfs"
	// MountVolume is a directory that ward keeps. It holds ids as they are
	// inside and is mounted through the container's id map.
	MountVolume MountType = "volume"
	// MountImage is another image's files, read-only.
	MountImage MountType = "image"
)

// Mount is one mount asked for by the request, on top of the fixed ones.
// All are nosuid and nodev.
type Mount struct {
	Type MountType `json:"type"`
	// Name is a volume's, or an image's reference.
	Name string `json:"name,omitempty"`
	// Source is the host path of a bind, symbolic links already resolved, or
	// of a volume's content.
	Source string `json:"source,omitempty"`
	// Digest is an image's manifest digest, and Layers are its layers, lowest
	// first.
	Digest string  `json:"digest,omitempty"`
	Layers []Layer `json:"layers,omitempty"`
	// Subpath is what of a volume or an image is mounted; relative and clean,
	// empty for all of it.
	Subpath string `json:"subpath,omitempty"`
	// Target is absolute and clean, inside the container.
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
	// Exec allows executing from it.
	Exec bool `json:"exec"`
	// CopyUp fills a volume that is empty with what the image has at Target.
	CopyUp bool `json:"copy_up,omitempty"`
	// Size bounds a tmpfs, in bytes; never zero for a tmpfs.
	Size int64 `json:"size,omitempty"`
	// Mode is a tmpfs's permission bits, UID and GID its owner inside.
	Mode uint32 `json:"mode,omitempty"`
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
}

// VolumeData is where the content of a volume is in the directory of volumes.
func VolumeData(dir, name string) string { return path.Join(dir, name, "_data") }
