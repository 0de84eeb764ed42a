package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/sandbox"
)

// xattr begins the names of extended attributes in archives: GNU tar, star and
// Docker agree on it.
const xattr = "SCHILY.xattr."

// writeTar writes the entries of r as an archive in which the top is called
// name. It counts the attributes whose names no archive can hold.
func writeTar(w io.Writer, r *sandbox.FileReader, name string) (unkept int64, err error) {
	t := tar.NewWriter(w)
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return unkept, t.Close()
		}
		if err != nil {
			return unkept, err
		}
		h := &tar.Header{Name: path.Join(name, e.Name), Mode: int64(e.Mode), Uid: int(e.UID), Gid: int(e.GID),
			ModTime: time.Unix(0, e.ModTime).Truncate(time.Second), Format: tar.FormatPAX}
		switch e.Type {
		case sandbox.FileDir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case sandbox.FileSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		case sandbox.FileRegular:
			h.Typeflag, h.Size = tar.TypeReg, e.Size
		default:
			return unkept, fmt.Errorf("%.255q is a %s", e.Name, e.Type)
		}
		for _, a := range e.Attrs {
			if strings.ContainsRune(a.Name, '=') {
				unkept++
				continue
			}
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattr+a.Name] = string(a.Value)
		}
		if err := t.WriteHeader(h); err != nil {
			return unkept, err
		}
		if _, err := io.Copy(t, r); err != nil {
			return unkept, err
		}
	}
}

// readTar sends an archive's entries to w. It is not unpacked here: the
// container's side makes what is in it, within the container.
func readTar(r io.Reader, w *sandbox.FileWriter) error {
	bad := func(h *tar.Header, why string) error {
		return invalid("cp.archive", fmt.Sprintf("the archive's entry %.255q %s", h.Name, why), "make the archive without it")
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("cp.archive", "standard input is not a tar archive: "+err.Error(), "give one that is not compressed")
		}
		e := sandbox.FileEntry{Name: path.Clean(strings.TrimPrefix(h.Name, "/")), Mode: uint32(h.Mode) & 0o7777,
			UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime.UnixNano()}
		if h.Uid < 0 || h.Gid < 0 || h.Uid >= sandbox.IDRange || h.Gid >= sandbox.IDRange {
			return bad(h, "has an owner that no container has")
		}
		switch h.Typeflag {
		case tar.TypeDir:
			e.Type = sandbox.FileDir
		case tar.TypeReg:
			e.Type, e.Size = sandbox.FileRegular, h.Size
		case tar.TypeSymlink:
			e.Type, e.Link = sandbox.FileSymlink, h.Linkname
		case tar.TypeLink:
			e.Type, e.Link = sandbox.FileLink, path.Clean(strings.TrimPrefix(h.Linkname, "/"))
		case tar.TypeXGlobalHeader:
			continue
		default:
			return bad(h, "is no file, directory or link")
		}
		if e.Type == sandbox.FileRegular || e.Type == sandbox.FileDir {
			for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
				if name, ok := strings.CutPrefix(key, xattr); ok && sandbox.KeptAttr(name) {
					e.Attrs = append(e.Attrs, sandbox.FileAttr{Name: name, Value: []byte(h.PAXRecords[key])})
				}
			}
		}
		if err := w.Next(e); err != nil {
			return err
		}
		if _, err := io.Copy(struct{ io.Writer }{w}, t); err != nil {
			return err
		}
	}
}
