package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

// Attributes go through an archive as GNU tar and Docker write them; those that
// are not copied are not taken from one either, and a name that no archive can
// hold is counted.
func TestArchiveAttributes(t *testing.T) {
	var stream, archive bytes.Buffer
	w := sandbox.NewFileWriter(&stream)
	entry := sandbox.FileEntry{Name: ".", Type: sandbox.FileDir, Mode: 0o755,
		Attrs: []sandbox.FileAttr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b=c", Value: []byte("2")}}}
	if err := errors.Join(w.Next(entry), w.Close()); err != nil {
		t.Fatal(err)
	}
	if unkept, err := writeTar(&archive, sandbox.NewFileReader(&stream), "top"); err != nil || unkept != 1 {
		t.Fatal(unkept, err)
	}
	h, err := tar.NewReader(bytes.NewReader(archive.Bytes())).Next()
	if err != nil || h.PAXRecords["SCHILY.xattr.user.a"] != "1" {
		t.Fatalf("%v, %v", h.PAXRecords, err)
	}

	archive.Reset()
	out := tar.NewWriter(&archive)
	h = &tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o755, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.overlay.opaque": "y", "VENDOR.user.b": "2"}}
	if err := errors.Join(out.WriteHeader(h), out.Close()); err != nil {
		t.Fatal(err)
	}
	stream.Reset()
	w = sandbox.NewFileWriter(&stream)
	if err := errors.Join(readTar(&archive, w), w.Close()); err != nil {
		t.Fatal(err)
	}
	e, err := sandbox.NewFileReader(&stream).Next()
	if err != nil && !errors.Is(err, io.EOF) || len(e.Attrs) != 1 || e.Attrs[0].Name != "user.a" || string(e.Attrs[0].Value) != "1" {
		t.Errorf("%q, %v", e.Attrs, err)
	}
}
