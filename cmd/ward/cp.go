package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

func newCp(a *app) *cobra.Command {
	var archive, follow, quiet bool
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  ward cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Verify, decide, record, then copy files between a container and the host",
		Args:  exactly(2, "a source and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, src := containerPath(args[0])
			to, dst := containerPath(args[1])
			req := engine.CopyRequest{Actor: audit.Caller(), Archive: archive, Follow: follow}
			move := copyOut
			host := dst
			switch {
			case from != "" && to != "":
				return invalid("cp.both", "copying between containers is not there", "copy to the host and from there")
			case from != "":
				req.Container, req.Path = from, inside(src)
			case to != "":
				req.Container, req.Path, req.In = to, inside(dst), true
				move, host = copyIn, src
			default:
				return invalid("cp.neither", "neither end is in a container", "write CONTAINER:PATH for the one that is")
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				n, err := move(cmd.Context(), eng, req, host)
				if err != nil {
					return err
				}
				if !quiet && host != "-" {
					fmt.Fprintf(cmd.ErrOrStderr(), "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(n.Bytes), 3), args[1])
				}
				if n.Left > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "ward: %d files were left out (no file, directory or link) or changed while they were read\n", n.Left)
				}
				if n.Unkept > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "ward: %d extended attributes were not kept: where the files are now has none\n", n.Unkept)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&archive, "archive", "a", false, "keep the owners")
	cmd.Flags().BoolVarP(&follow, "follow-link", "L", false, "copy what a link at the source names")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing")
	return cmd
}

// containerPath splits CONTAINER:PATH, as Docker does: what begins with a
// slash or a dot is a path of the host's.
func containerPath(arg string) (container, p string) {
	name, rest, ok := strings.Cut(arg, ":")
	if !ok || name == "" || strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	return name, rest
}

// inside makes a path in a container absolute, and keeps what its end says.
func inside(p string) string {
	end := ""
	switch {
	case strings.HasSuffix(p, "/.") || p == ".":
		end = "/."
	case strings.HasSuffix(p, "/"):
		end = "/"
	}
	clean := path.Clean("/" + p)
	if clean == "/" {
		return "/"
	}
	return clean + end
}

// contentOnly says that the end of a source asks for what is in a directory.
func contentOnly(p string) bool { return strings.HasSuffix(p, "/.") || p == "." || p == "/" }

// hostStat is what a destination on the host is; a link there is followed, as
// with any command its user could give.
func hostStat(p string) (exists, dir bool, err error) {
	st, err := os.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, invalid("cp.destination", err.Error(), "name another destination")
	}
	return true, st.IsDir(), nil
}

// target is Docker's rule of what a copy is called at its destination: the
// directory it goes into, and its name there.
func target(dst, name string, exists, dstDir, srcDir, content bool) (dir, as string, err error) {
	switch {
	case exists && dstDir && srcDir && content:
		return dst, ".", nil
	case exists && dstDir:
		return dst, name, nil
	case exists && srcDir:
		return "", "", invalid("cp.destination", fmt.Sprintf("cannot copy a directory to %q, which is a file", dst), "name a directory")
	case !exists && !srcDir && strings.HasSuffix(dst, "/"):
		return "", "", invalid("cp.destination", fmt.Sprintf("there is no directory %q", dst), "make it first")
	}
	clean := path.Clean(dst)
	return path.Dir(clean), path.Base(clean), nil
}

func copyOut(ctx context.Context, eng *engine.Engine, req engine.CopyRequest, dst string) (n sandbox.FilesResult, err error) {
	c, err := eng.Copy(ctx, req)
	if err != nil {
		return n, err
	}
	unkept := int64(0)
	err = func() error {
		if dst == "-" {
			r, err := c.Receive()
			if err != nil {
				return err
			}
			unkept, err = writeTar(os.Stdout, r, c.Stat.Name)
			return err
		}
		tree, err := destination(dst, c.Stat, req)
		if err != nil {
			return err
		}
		defer tree.Dir.Close()
		r, err := c.Receive()
		if err != nil {
			return err
		}
		err = sandbox.CopyTree(tree, r)
		unkept = tree.Unkept
		return err
	}()
	n, err = c.Done(ctx, err)
	n.Unkept = unkept
	return n, err
}

// destination is where on the host a copy goes. Nobody gets programs that run
// as somebody else out of a container: set-id bits stay behind.
func destination(dst string, stat sandbox.FilesStat, req engine.CopyRequest) (*sandbox.FileTree, error) {
	exists, isDir, err := hostStat(dst)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dst)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(dst, "/") {
		abs += "/"
	}
	dir, name, err := target(abs, stat.Name, exists, isDir, stat.Dir, contentOnly(req.Path))
	if err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, invalid("cp.destination", err.Error(), "make the directory first")
	}
	return &sandbox.FileTree{Dir: d, Name: name, KeepIDs: req.Archive, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

func copyIn(ctx context.Context, eng *engine.Engine, req engine.CopyRequest, src string) (n sandbox.FilesResult, err error) {
	var dir *os.File
	var name string
	var srcDir bool
	if src != "-" {
		if dir, name, srcDir, err = source(src, req.Follow); err != nil {
			return n, err
		}
		defer dir.Close()
	}
	c, err := eng.Copy(ctx, req)
	if err != nil {
		return n, err
	}
	left := int64(0)
	err = func() error {
		as := base(src)
		if src == "-" {
			if !c.Stat.Exists || !c.Stat.Dir {
				return invalid("cp.destination", fmt.Sprintf("there is no directory %q in the container", req.Path), "make it first: an archive is unpacked into a directory")
			}
			srcDir, as = true, "."
		}
		into, as, err := target(req.Path, as, c.Stat.Exists, c.Stat.Dir, srcDir, src == "-" || contentOnly(src))
		if err != nil {
			return err
		}
		w, err := c.Send(sandbox.FilesTarget{Dir: path.Clean(into), Name: as})
		if err != nil {
			return err
		}
		if src == "-" {
			err = readTar(os.Stdin, w)
		} else {
			left, err = sandbox.SendFiles(w, dir, name)
		}
		if err != nil {
			return err
		}
		return w.Close()
	}()
	n, err = c.Done(ctx, err)
	n.Left += left
	return n, err
}

// base is the last part of a path of the host's.
func base(p string) string {
	abs, err := filepath.Abs(p)
	if err != nil {
		return filepath.Base(p)
	}
	return filepath.Base(abs)
}

// source is what on the host is copied: a name in an open directory.
func source(src string, follow bool) (dir *os.File, name string, isDir bool, err error) {
	bad := func(err error) error {
		return fault.Wrap(fault.NotFound, "cp.source", err, "name a file or directory of this host")
	}
	stat := os.Lstat
	if follow || strings.HasSuffix(src, "/") || strings.HasSuffix(src, "/.") {
		stat = os.Stat
	}
	st, err := stat(src)
	if err != nil {
		return nil, "", false, bad(err)
	}
	real := src
	if st.Mode()&fs.ModeSymlink == 0 {
		// What it is called here may be a link to it, which was to be followed.
		if real, err = filepath.EvalSymlinks(src); err != nil {
			return nil, "", false, bad(err)
		}
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, "", false, bad(err)
	}
	if st.IsDir() {
		dir, err = os.Open(real)
		name = "."
	} else {
		dir, err = os.Open(filepath.Dir(real))
		name = filepath.Base(real)
	}
	if err != nil {
		return nil, "", false, bad(err)
	}
	return dir, name, st.IsDir(), nil
}
