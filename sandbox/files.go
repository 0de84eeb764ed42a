package sandbox

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// Files go between a container and the host as a sequence of entries: a header
// in JSON behind its length, and for a file exactly as many bytes as the
// header says. A length of zero ends them. It is no archive format: what reads
// archives is kept out of the program that enters containers.

// FileType is what an entry is.
type FileType string

// The types; nothing else is copied.
const (
	FileRegular FileType = "file"
	FileDir     FileType = "dir"
	FileSymlink FileType = "symlink"
	// FileLink is another name of an entry that came before: Link is its name.
	FileLink FileType = "link"
)

// FileEntry is the header of one entry.
type FileEntry struct {
	// Name is relative and clean; "." is the top of what is copied.
	Name string   `json:"name"`
	Type FileType `json:"type"`
	// Mode has the permission bits, set-id bits and sticky bit, as chmod(2).
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Size int64  `json:"size,omitempty"`
	// ModTime is in nanoseconds of Unix time.
	ModTime int64  `json:"mtime"`
	Link    string `json:"link,omitempty"`
	// Attrs are those of a file's or directory's that KeptAttr names.
	Attrs []FileAttr `json:"attrs,omitempty"`
}

const (
	maxEntryHeader = 64 << 10
	// maxEntries bounds one copy.
	maxEntries = 1 << 20
	maxName    = 4095
)

// check refuses a header that could name anything but a place below the
// directory it is for.
func (e FileEntry) check() error {
	bad := func(cause string) error {
		return fault.New(fault.Invalid, "cp.entry", fmt.Sprintf("%.255q %s", e.Name, cause), "")
	}
	if !validEntryName(e.Name) {
		return bad("is not a name below the directory that is copied")
	}
	if strings.ContainsRune(e.Link, 0) || len(e.Link) > maxName {
		return bad("is a link to a name that cannot be")
	}
	switch e.Type {
	case FileRegular:
		if e.Size < 0 {
			return bad("has no size")
		}
	case FileLink:
		if !validEntryName(e.Link) || e.Link == "." {
			return bad("is a link to something that was not copied")
		}
	case FileDir:
	case FileSymlink:
		if e.Link == "" {
			return bad("is a link to nothing")
		}
	default:
		return bad(fmt.Sprintf("is a %.32q", string(e.Type)))
	}
	if e.Type != FileRegular && e.Size != 0 {
		return bad("has content")
	}
	if why := e.checkAttrs(); why != "" {
		return bad(why)
	}
	return nil
}

func validEntryName(name string) bool {
	if name == "." {
		return true
	}
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return false
		}
	}
	return true
}

// FileWriter writes entries.
type FileWriter struct {
	w    *bufio.Writer
	left int64
	// Entries and Bytes count what was written.
	Entries, Bytes int64
}

// NewFileWriter returns a writer of entries to w.
func NewFileWriter(w io.Writer) *FileWriter { return &FileWriter{w: bufio.NewWriterSize(w, 256<<10)} }

// Next begins an entry; the one before must be complete.
func (f *FileWriter) Next(e FileEntry) error {
	if f.left != 0 {
		return errors.New("the entry before is not complete")
	}
	if err := e.check(); err != nil {
		return err
	}
	if f.Entries++; f.Entries > maxEntries {
		return tooMany()
	}
	b, err := json.Marshal(toWire(e))
	if err != nil {
		return err
	}
	if len(b) > maxEntryHeader {
		return fmt.Errorf("the header of %.255q is too long", e.Name)
	}
	f.left = e.Size
	if _, err := f.w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err = f.w.Write(b)
	return err
}

func tooMany() error {
	return fault.New(fault.Invalid, "cp.entries", fmt.Sprintf("there are more than %d files", maxEntries), "copy parts of it")
}

// Write writes content of the current entry.
func (f *FileWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > f.left {
		return 0, errors.New("more content than the header says")
	}
	n, err := f.w.Write(p)
	f.left -= int64(n)
	f.Bytes += int64(n)
	return n, err
}

// Close writes the end.
func (f *FileWriter) Close() error {
	if f.left != 0 {
		return errors.New("the last entry is not complete")
	}
	if _, err := f.w.Write(make([]byte, 4)); err != nil {
		return err
	}
	return f.w.Flush()
}

// FileReader reads entries of somebody who is not trusted.
type FileReader struct {
	r    *bufio.Reader
	left int64
	// Entries and Bytes count what was read.
	Entries, Bytes int64
}

// NewFileReader returns a reader of entries from r.
func NewFileReader(r io.Reader) *FileReader { return &FileReader{r: bufio.NewReaderSize(r, 256<<10)} }

// Next returns the next entry, and io.EOF after the last one. What was not
// read of the one before is skipped.
func (f *FileReader) Next() (FileEntry, error) {
	if _, err := io.Copy(io.Discard, f); err != nil {
		return FileEntry{}, err
	}
	var size [4]byte
	if _, err := io.ReadFull(f.r, size[:]); err != nil {
		return FileEntry{}, cutOff(err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 {
		return FileEntry{}, io.EOF
	}
	if n > maxEntryHeader {
		return FileEntry{}, errors.New("a header of an entry is too long")
	}
	if f.Entries++; f.Entries > maxEntries {
		return FileEntry{}, tooMany()
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f.r, b); err != nil {
		return FileEntry{}, cutOff(err)
	}
	var wire wireEntry
	if err := json.Unmarshal(b, &wire); err != nil {
		return FileEntry{}, fmt.Errorf("header of an entry: %w", err)
	}
	e := wire.entry()
	if err := e.check(); err != nil {
		return FileEntry{}, err
	}
	f.left = e.Size
	return e, nil
}

// Read reads content of the current entry.
func (f *FileReader) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.r.Read(p)
	f.left -= int64(n)
	f.Bytes += int64(n)
	if errors.Is(err, io.EOF) && f.left > 0 {
		err = cutOff(err)
	}
	return n, err
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the copy was cut off")
	}
	return err
}
