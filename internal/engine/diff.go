package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// Change is one difference between a container's files and its image's.
type Change struct {
	// Kind is 'A' for added, 'C' for changed, 'D' for deleted.
	Kind byte
	Path string
}

// Diff lists what a container has changed in its writable root, sorted by path.
// A root that is read-only has no changes. Of a container that runs it is what
// was there when each directory was looked at.
func (e *Engine) Diff(c Container) ([]Change, error) {
	plan, _, err := e.Plan(c)
	if err != nil {
		return nil, err
	}
	if !plan.Root.Writable {
		return nil, nil
	}
	upper, err := openTop(filepath.Join(e.layout.container(c.ID), "upper"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // never started
	}
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	d := differ{base: plan.IDMap.Base}
	var lower []*os.File
	defer func() { closeAll(lower) }()
	for _, l := range slices.Backward(plan.Root.Layers) { // topmost first
		f, err := openTop(l.Path)
		if err != nil {
			return nil, fault.Wrap(fault.NotFound, "diff.layer", err, "pull the image again")
		}
		lower = append(lower, f)
	}
	if _, err := d.directory(upper, lower, "/"); err != nil {
		return nil, fault.Wrap(fault.Internal, "diff.read", err, "")
	}
	slices.SortFunc(d.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return d.changes, nil
}

// Size is what a container's writable root holds, in bytes.
func (e *Engine) Size(c Container) (int64, error) {
	return fsx.DirSize(filepath.Join(e.layout.container(c.ID), "upper"))
}

// made are the mount points that the launcher makes in every root.
var made = []string{"/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

// maxDiffDepth bounds the descent: a container can nest directories deeper than
// this program has descriptors for.
const maxDiffDepth = 1024

// differ compares an upper directory with the layers under it. The upper one
// is written by the container, the layers were written by strangers: names are
// opened in their directory and no link is followed.
type differ struct {
	base    uint32 // of the container's ids, which the upper directory has
	changes []Change
	depth   int
}

func (d *differ) add(kind byte, p string) { d.changes = append(d.changes, Change{kind, p}) }

// directory compares one directory and reports whether anything differs below.
func (d *differ) directory(upper *os.File, lower []*os.File, at string) (bool, error) {
	if d.depth++; d.depth > maxDiffDepth {
		return false, at255(at, fmt.Errorf("more than %d directories deep", maxDiffDepth))
	}
	defer func() { d.depth-- }()
	names, err := upper.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	seen, differs := map[string]bool{}, false
	for _, name := range names {
		seen[name] = true
		p := path.Join(at, name)
		if slices.Contains(made, p) {
			continue
		}
		one, err := d.entry(upper, lower, name, p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone meanwhile
			return false, at255(p, err)
		}
		differs = differs || one
	}
	if !opaque(upper) {
		return differs, nil
	}
	// Nothing from below shows: what was there is gone.
	hidden, err := merged(lower)
	for _, name := range hidden {
		if !seen[name] {
			d.add('D', path.Join(at, name))
			differs = true
		}
	}
	return differs, err
}

// at255 says where err is from, once however deep that is.
func at255(p string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	if len(p) > 255 {
		p = p[:255] + "…"
	}
	return &fs.PathError{Op: "diff", Path: p, Err: err}
}

func (d *differ) entry(upper *os.File, lower []*os.File, name, p string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(upper.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	below, was, err := descend(lower, name)
	defer closeAll(below)
	if err != nil {
		return false, err
	}
	switch {
	case whiteout(st):
		if was != nil {
			d.add('D', p)
		}
		return was != nil, nil
	case was == nil:
		d.add('A', p)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || was.Mode != st.Mode || was.Uid+d.base != st.Uid || was.Gid+d.base != st.Gid:
		d.add('C', p)
	default:
		// A directory that is there because of what is in it.
		i := len(d.changes)
		differs, err := d.sub(upper, below, name, p)
		if differs {
			d.changes = slices.Insert(d.changes, i, Change{'C', p})
		}
		return differs, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return true, nil
	}
	if was != nil && was.Mode&unix.S_IFMT != unix.S_IFDIR {
		below = nil
	}
	_, err = d.sub(upper, below, name, p)
	return true, err
}

func (d *differ) sub(upper *os.File, lower []*os.File, name, p string) (bool, error) {
	dir, err := openIn(upper, name)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return d.directory(dir, lower, p)
}

// descend looks name up in the layers of one directory, topmost first: what it
// was, if anything, and the directories it merges to.
func descend(lower []*os.File, name string) (below []*os.File, was *unix.Stat_t, err error) {
	for _, l := range lower {
		var st unix.Stat_t
		err := unix.Fstatat(int(l.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return below, was, err
		}
		if whiteout(st) {
			break
		}
		if was == nil {
			was = &st
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			break // hides what is lower, or is hidden by a directory above
		}
		dir, err := openIn(l, name)
		if err != nil {
			return below, was, err
		}
		if below = append(below, dir); opaque(dir) {
			break
		}
	}
	return below, was, nil
}

// merged are the names that the layers of one directory show.
func merged(lower []*os.File) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, l := range lower {
		names, err := l.Readdirnames(-1)
		if err != nil {
			return out, err
		}
		for _, name := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(int(l.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return out, err
			}
			if !seen[name] && !whiteout(st) {
				out = append(out, name)
			}
			seen[name] = true
		}
	}
	return out, nil
}

func whiteout(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// opaque reads both attributes; which one counts depends on the mount.
func opaque(dir *os.File) bool {
	var b [4]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(dir.Fd()), name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

func openTop(p string) (*os.File, error) {
	return os.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func openIn(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
