package images

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

const (
	maxPath      = 4095 // what the kernel takes in one call, without the NUL
	maxComponent = 255
	maxID        = 65535 // a container has 65,536 ids
	maxXattrs    = 64 << 10
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func hostile(hdr *tar.Header, why string) *fault.Error {
	name := hdr.Name
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return fault.New(fault.Invalid, "image.entry", fmt.Sprintf("layer entry %q: %s", name, why), "make the archive again without it")
}

// entry is one checked entry of an archive: where it goes and what it is.
type entry struct {
	hdr *tar.Header
	// dir and base are the clean relative directory ("" for the root) and the
	// last component; base is "" for the root directory itself.
	dir, base string
	// hide and opaque say that the entry is a whiteout of base, or makes dir
	// opaque.
	hide, opaque bool
	// link is the clean relative target of a hard link.
	link  string
	xattr map[string]string
}

func (e *entry) path() string { return path.Join(e.dir, e.base) }

// checkEntry decides from the header alone whether an entry may be in a layer.
// What only the file system can tell (is the parent a symbolic link, is the
// target of a hard link there) the applier asks the kernel.
func checkEntry(hdr *tar.Header) (*entry, error) {
	name, err := cleanName(hdr.Name)
	if err != nil {
		return nil, hostile(hdr, err.Error())
	}
	e := &entry{hdr: hdr}
	e.dir, e.base = path.Split(name)
	e.dir = strings.TrimSuffix(e.dir, "/")
	for c := range strings.SplitSeq(e.dir, "/") {
		if strings.HasPrefix(c, whiteout) {
			return nil, hostile(hdr, "lies beneath a whiteout")
		}
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeDir:
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return nil, hostile(hdr, "symbolic link target is empty or too long")
		}
	case tar.TypeLink:
		if e.link, err = cleanName(hdr.Linkname); err != nil || e.link == "" {
			return nil, hostile(hdr, fmt.Sprintf("hard link to %.200q leads out of the layer", hdr.Linkname))
		}
	case tar.TypeFifo:
	case tar.TypeChar, tar.TypeBlock:
		return nil, fault.New(fault.Invalid, "image.device", fmt.Sprintf("layer entry %.200q is a device node", hdr.Name), "leave device nodes out (tar --exclude='./dev/*'); containers get their own /dev")
	default:
		return nil, hostile(hdr, fmt.Sprintf("type %q is not supported", hdr.Typeflag))
	}
	if e.base == "" && hdr.Typeflag != tar.TypeDir {
		return nil, hostile(hdr, "the root is not a directory")
	}
	if hdr.Uid < 0 || hdr.Uid > maxID || hdr.Gid < 0 || hdr.Gid > maxID {
		return nil, fault.New(fault.Invalid, "image.owner", fmt.Sprintf("layer entry %.200q belongs to %d:%d", hdr.Name, hdr.Uid, hdr.Gid), fmt.Sprintf("give it an owner and group of 0 to %d: a container has no others", maxID))
	}
	if strings.HasPrefix(e.base, whiteout) {
		return e, e.checkWhiteout()
	}
	e.xattr, err = keptXattrs(hdr)
	return e, err
}

// checkWhiteout reads the name of a whiteout. A whiteout of "", "." or ".."
// would hide the directory it lies in or its parent; other names that begin
// with .wh..wh. are AUFS's own bookkeeping and mean nothing in a layer.
func (e *entry) checkWhiteout() error {
	if e.hdr.Typeflag != tar.TypeReg || e.hdr.Size != 0 {
		return hostile(e.hdr, "a whiteout must be an empty regular file")
	}
	if e.base == opaque {
		e.opaque, e.base = true, ""
		return nil
	}
	what := strings.TrimPrefix(e.base, whiteout)
	if what == "" || what == "." || what == ".." || strings.HasPrefix(what, whiteout) {
		return hostile(e.hdr, "whiteout of something that cannot be")
	}
	e.hide, e.base = true, what
	return nil
}

// cleanName returns name without a leading "./" and trailing "/"; "" is the
// root. Nothing else is mended: a name that needs more is refused.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("name is longer than %d bytes", maxPath)
	}
	if strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("name is absolute")
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("name holds a NUL")
	}
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return "", fmt.Errorf("name holds \"..\"")
		}
		if len(c) > maxComponent {
			return "", fmt.Errorf("name has a component longer than %d bytes", maxComponent)
		}
	}
	if name == "" {
		return "", fmt.Errorf("name is empty")
	}
	if name = path.Clean(name); name == "." {
		return "", nil
	}
	return name, nil
}

const paxXattr = "SCHILY.xattr."

// keptXattrs returns the extended attributes an entry may bring. Those of
// overlayfs would forge whiteouts, redirects and metadata copies in the merged
// tree; the other trusted and system ones are refused with them. Labels of the
// machine the archive was made on (security.*) are not ours to set, but file
// capabilities are kept.
func keptXattrs(hdr *tar.Header) (map[string]string, error) {
	var kept map[string]string
	size := 0
	for key, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		switch {
		case name == "security.capability":
		case strings.HasPrefix(name, "security."):
			continue
		case strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay."):
		default:
			return nil, hostile(hdr, fmt.Sprintf("extended attribute %.100q is not allowed", name))
		}
		if hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeDir {
			return nil, hostile(hdr, "extended attribute on something that is neither file nor directory")
		}
		if size += len(name) + len(v); size > maxXattrs || len(name) > maxComponent {
			return nil, hostile(hdr, "extended attributes are too large")
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = v
	}
	return kept, nil
}

// permOf are the permission bits as the kernel takes them, set-id bits and
// sticky included. Set-id bits mean nothing until a mount honours them, and
// the launcher's never do.
func permOf(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

// timeOf is the modification time, held within what every file system takes.
func timeOf(hdr *tar.Header) unix.Timespec {
	t := hdr.ModTime.Unix()
	if t < 0 || t > 1<<33 {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t, Nsec: int64(hdr.ModTime.Nanosecond())}
}
