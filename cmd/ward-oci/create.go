package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine/oci"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// startFlags are those of create and run.
type startFlags struct {
	bundle, console, pidfd, pidFile string
	noPivot, noNewKeyring           bool
	preserve                        int
	detach, keep, noSubreaper       bool
}

func (f *startFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.bundle, "bundle", "b", "", "`directory` of the bundle; the working directory if not given")
	fs.StringVar(&f.console, "console-socket", "", "`path` of the socket that gets the terminal's master")
	fs.StringVar(&f.pidfd, "pidfd-socket", "", "`path` of the socket that gets a descriptor of the first process")
	fs.StringVar(&f.pidFile, "pid-file", "", "`file` to write the process id to")
	fs.BoolVar(&f.noPivot, "no-pivot", false, "do not use pivot_root (for a root on a ramdisk)")
	fs.BoolVar(&f.noNewKeyring, "no-new-keyring", false, "do not make a session keyring")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass on this many descriptors beyond the three")
}

// request is what the flags ask for.
func (f *startFlags) request(a *app, id string) (oci.Request, error) {
	bundle, err := bundleDir(f.bundle)
	if err != nil {
		return oci.Request{}, err
	}
	r := oci.Request{Root: a.root, ID: id, Bundle: bundle, SystemdCgroup: a.systemd, NoPivot: f.noPivot, NoNewKeyring: f.noNewKeyring,
		PreserveFDs: f.preserve, ConsoleSocket: f.console, PidfdSocket: f.pidfd, PIDFile: f.pidFile}
	return r, absolute(&r.ConsoleSocket, &r.PidfdSocket, &r.PIDFile)
}

func bundleDir(name string) (string, error) {
	if name == "" {
		name = "."
	}
	dir, err := filepath.Abs(name)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "oci.bundle", fmt.Errorf("bundle: %w", err), "")
	}
	return dir, nil
}

// absolute makes paths of the caller mean the same in another directory.
func absolute(paths ...*string) error {
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// preserved are the caller's descriptors that go to the payload.
func preserved(n int) ([]*os.File, error) {
	var out []*os.File
	for i := range n {
		fd := 3 + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fault.Wrap(fault.Invalid, "oci.preserve-fds", fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i, n, err), "")
		}
		// A copy: the number may be one that this program's runtime uses.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, err
		}
		out = append(out, os.NewFile(uintptr(dup), "preserved "+strconv.Itoa(fd)))
	}
	return out, nil
}

func newCreate(a *app) *cobra.Command {
	f := &startFlags{}
	cmd := &cobra.Command{
		Use: "create [flags] ID", Short: "create a container, waiting before its payload", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(a, args[0])
			if err != nil {
				return err
			}
			io := a.files()
			if io.Extra, err = preserved(f.preserve); err != nil {
				return err
			}
			g, err := a.gate()
			if err != nil {
				return err
			}
			if err := consoleFits(req, true); err != nil {
				return err
			}
			_, err = g.Create(cmd.Context(), req, io)
			return err
		},
	}
	f.add(cmd)
	return cmd
}

// consoleFits refuses a terminal without a socket for it, and the reverse.
func consoleFits(req oci.Request, detach bool) error {
	terminal, err := oci.Terminal(req.Bundle)
	if err != nil {
		return nil // the gate says what is wrong with the bundle, on record
	}
	return consoleError(terminal, detach, req.ConsoleSocket)
}

func consoleError(terminal, detach bool, socket string) error {
	switch {
	case detach && terminal && socket == "":
		return fault.Wrap(fault.Invalid, "oci.runtime", errors.New("cannot allocate tty if ward-oci will detach without setting console socket"), "")
	case (!detach || !terminal) && socket != "":
		return fault.Wrap(fault.Invalid, "oci.runtime", errors.New("cannot use console socket if ward-oci will not detach or allocate tty"), "")
	}
	return nil
}

func newDelete(a *app) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "delete [flags] ID", Short: "remove a container that has ended", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.cleaner(cmd.Context(), sandbox.OCIDelete, args[0])
			if err != nil {
				return err
			}
			return c.Delete(cmd.Context(), a.root, args[0], force, a.files())
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it first if it runs")
	return cmd
}
