package launcher

// extern int ward_in_container;
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Files is the main function of ward-launch as it is started to copy files. It
// is the container's root, in its mount namespace, with capabilities for files
// alone, and executes nothing. What it is asked for it resolves in there, as
// the container itself would: no name leads out (enter.c).
func Files() {
	control := os.NewFile(sandbox.FDFilesControl, "control")
	data := os.NewFile(sandbox.FDFilesData, "data")
	if C.ward_in_container == 0 {
		fmt.Fprintln(os.Stderr, "not in a container")
		os.Exit(1)
	}
	if err := unix.CloseRange(sandbox.FDFilesContainer, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := files(control, data); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// files answers one request. An error is of the conversation; what is wrong
// with the files is said in it.
func files(control, data *os.File) error {
	var req sandbox.FilesRequest
	if err := sandbox.ReadFilesPacket(control, &req); err != nil {
		return err
	}
	at, stat := look(req)
	if err := sandbox.WriteFilesPacket(control, stat); err != nil || stat.Error != nil {
		return err
	}
	var target sandbox.FilesTarget
	if err := sandbox.ReadFilesPacket(control, &target); err != nil {
		return nil // the caller has seen enough
	}
	var result sandbox.FilesResult
	var err error
	if req.In {
		result, err = receive(data, target, req.KeepIDs)
	} else {
		result, err = send(data, at)
	}
	if err != nil {
		result.Error = fault.As(err)
		if len(result.Error.Cause) > 4096 {
			result.Error.Cause = result.Error.Cause[:4096]
		}
	}
	data.Close() // the caller reads to the end first
	return sandbox.WriteFilesPacket(control, result)
}

// place is a name in a directory, or an open file.
type place struct {
	dir  *os.File
	name string
	file *os.File
}

const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// look finds what is at the path. Its last part is resolved only if that is
// asked for, by option or by a "/" at its end; and what is copied into may
// always be a link to a directory.
func look(req sandbox.FilesRequest) (place, sandbox.FilesStat) {
	no := func(err error) (place, sandbox.FilesStat) { return place{}, sandbox.FilesStat{Error: fault.As(err)} }
	if !path.IsAbs(req.Path) || strings.ContainsRune(req.Path, 0) {
		return no(fault.New(fault.Invalid, "cp.path", fmt.Sprintf("%.255q is not an absolute path", req.Path), ""))
	}
	clean := path.Clean(req.Path)
	wantDir := strings.HasSuffix(req.Path, "/") || strings.HasSuffix(req.Path, "/.")
	name := path.Base(clean)
	if clean == "/" {
		name = "."
	}
	dir, err := openInside(path.Dir(clean), unix.O_DIRECTORY)
	if err != nil {
		return no(err)
	}
	// Through a link the place is where it leads.
	if req.In || req.Follow || wantDir || name == "." {
		real, err := openInside(clean, 0)
		if errors.Is(err, fault.NotFound) && req.In {
			return place{}, sandbox.FilesStat{Name: name}
		}
		if err != nil {
			return no(err)
		}
		return at(dir, name, real, clean, wantDir)
	}
	real, err := openInside(clean, unix.O_NOFOLLOW)
	if err != nil {
		return no(err)
	}
	return at(dir, name, real, clean, wantDir)
}

// at is the place of what was opened.
func at(dir *os.File, name string, real *os.File, clean string, wantDir bool) (place, sandbox.FilesStat) {
	var st unix.Stat_t
	if err := unix.Fstat(int(real.Fd()), &st); err != nil {
		return place{}, sandbox.FilesStat{Error: fault.As(err)}
	}
	stat := sandbox.FilesStat{Exists: true, Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Name: name}
	if wantDir && !stat.Dir {
		stat.Error = fault.New(fault.Invalid, "cp.not-directory", fmt.Sprintf("%.255q is not a directory in the container", name), "")
	}
	if stat.Error != nil {
		return place{}, stat
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return place{dir: real, name: "."}, stat
	case unix.S_IFREG:
		// A name in /proc would open it again, but not here: that /proc is of a
		// PID namespace that this process is not in.
		fd, err := openat2(unix.AT_FDCWD, clean, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: inRoot})
		if err != nil {
			stat.Error = fault.As(fault.Wrap(fault.Invalid, "cp.read", fmt.Errorf("%.255q: %w", clean, err), ""))
			return place{}, stat
		}
		return place{file: os.NewFile(uintptr(fd), name)}, stat
	}
	return place{dir: dir, name: name}, stat
}

func openInside(name string, flags uint64) (*os.File, error) {
	fd, err := openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fault.New(fault.NotFound, "cp.missing", fmt.Sprintf("there is no %.255q in the container", name), "")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "cp.path", fmt.Errorf("%.255q in the container: %w", name, err), "")
	}
	return os.NewFile(uintptr(fd), name), nil
}

func send(data *os.File, from place) (r sandbox.FilesResult, err error) {
	w := sandbox.NewFileWriter(data)
	if from.file != nil {
		r.Left, err = sandbox.SendFile(w, from.file)
	} else {
		r.Left, err = sandbox.SendFiles(w, from.dir, from.name)
	}
	if err == nil {
		err = w.Close()
	}
	r.Entries, r.Bytes = w.Entries, w.Bytes
	return r, err
}

func receive(data *os.File, to sandbox.FilesTarget, keepIDs bool) (r sandbox.FilesResult, err error) {
	dir, err := openInside(to.Dir, unix.O_DIRECTORY)
	if err != nil {
		return r, err
	}
	tree := &sandbox.FileTree{Dir: dir, Name: to.Name, KeepIDs: keepIDs, KeepSetID: true}
	entries := sandbox.NewFileReader(data)
	err = sandbox.CopyTree(tree, entries)
	r.Entries, r.Bytes, r.Unkept = entries.Entries, entries.Bytes, tree.Unkept
	return r, err
}
