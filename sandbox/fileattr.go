package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// FileAttr is an extended attribute of a file or directory.
type FileAttr struct {
	Name  string
	Value []byte
}

const (
	// maxAttr is Linux's bound on one value and on the names of a file.
	maxAttr = 64 << 10
	// maxAttrs bounds what one entry's attributes come to, names included: with
	// them its header stays below maxEntryHeader.
	maxAttrs      = 32 << 10
	maxAttrsCount = 128
)

// KeptAttr reports whether a copy keeps the attribute of this name: those of
// the user's, of which the kernel makes nothing. Not the capabilities of
// programs, which like set-id bits are rights that their new place would not
// have given; and not what overlayfs takes for its own, by which a directory
// that is a layer on the host would hide or show other files.
func KeptAttr(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && len(name) <= 255 && !strings.ContainsRune(name, 0)
}

func (e FileEntry) checkAttrs() string {
	size := 0
	for _, a := range e.Attrs {
		size += len(a.Name) + len(a.Value)
		if !KeptAttr(a.Name) {
			return fmt.Sprintf("has an attribute %.64q, which is not copied", a.Name)
		}
	}
	switch {
	case len(e.Attrs) > maxAttrsCount || size > maxAttrs:
		return fmt.Sprintf("has more attributes than %d bytes or %d names", maxAttrs, maxAttrsCount)
	case len(e.Attrs) > 0 && e.Type != FileRegular && e.Type != FileDir:
		return "is of a type that has no attributes"
	}
	return ""
}

// fileAttrs are the attributes of an open file or directory that are copied.
func fileAttrs(fd int) ([]FileAttr, error) {
	n, err := unix.Flistxattr(fd, nil)
	if n == 0 && err == nil || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	names := make([]byte, maxAttr)
	if n, err = unix.Flistxattr(fd, names); err != nil {
		return nil, err
	}
	var all []FileAttr
	var value []byte
	size := 0
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !KeptAttr(name) {
			continue
		}
		if value == nil {
			value = make([]byte, maxAttr)
		}
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue // removed since
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %.64q: %w", name, err)
		}
		if size += len(name) + n; size > maxAttrs || len(all) == maxAttrsCount {
			return nil, fault.New(fault.Invalid, "cp.attributes", fmt.Sprintf("a file has extended attributes of more than %d bytes or %d names", maxAttrs, maxAttrsCount),
				"take some of them off, or copy the other files")
		}
		all = append(all, FileAttr{name, append([]byte(nil), value[:n]...)})
	}
	return all, nil
}

// setAttrs gives an open file or directory attributes, and counts those that
// its file system cannot keep.
func (t *FileTree) setAttrs(fd int, attrs []FileAttr) error {
	for _, a := range attrs {
		err := unix.Fsetxattr(fd, a.Name, a.Value, 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Unkept++
			continue
		}
		if err != nil {
			return fmt.Errorf("attribute %.64q: %w", a.Name, err)
		}
	}
	return nil
}

// wireEntry is FileEntry in JSON, in which a string must be UTF-8: names of
// files and attributes need not be.
type wireEntry struct {
	FileEntry
	Name  []byte     `json:"name"`
	Link  []byte     `json:"link,omitempty"`
	Attrs []wireAttr `json:"attrs,omitempty"`
}

type wireAttr struct {
	Name  []byte `json:"n"`
	Value []byte `json:"v"`
}

func toWire(e FileEntry) wireEntry {
	w := wireEntry{FileEntry: e, Name: []byte(e.Name), Link: []byte(e.Link)}
	for _, a := range e.Attrs {
		w.Attrs = append(w.Attrs, wireAttr{[]byte(a.Name), a.Value})
	}
	return w
}

func (w wireEntry) entry() FileEntry {
	e := w.FileEntry
	e.Name, e.Link, e.Attrs = string(w.Name), string(w.Link), nil
	for _, a := range w.Attrs {
		e.Attrs = append(e.Attrs, FileAttr{string(a.Name), a.Value})
	}
	return e
}
