package oci

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
)

// Caller is who started this process: its parent, by the kernel's word alone.
// Flags and environment are the caller's to set, and say nothing here.
func Caller() (audit.Actor, error) {
	pid := os.Getppid()
	unknown := func(err error) (audit.Actor, error) {
		return audit.Actor{}, fault.Wrap(fault.Denied, "oci.caller", fmt.Errorf("the calling process cannot be told: %w", err),
			"call ward-oci from the program that policy trusts")
	}
	a, err := audit.ProcessActor(pid)
	if err != nil {
		return unknown(err)
	}
	if err := sameProgram(pid, a.Exe); err != nil {
		return unknown(err)
	}
	// A parent that ended meanwhile may have given its number to another.
	again, err := audit.ProcessActor(pid)
	if err != nil {
		return unknown(err)
	}
	if os.Getppid() != pid || again != a {
		return unknown(fmt.Errorf("process %d is not what it was", pid))
	}
	return a, nil
}

// Parent is the process that started this one, as far as the kernel describes
// it: for records, and for what root may do whatever its program. One that
// cannot be described is nobody's parent any more, and this process's user asks.
func Parent() audit.Actor {
	a, err := audit.ProcessActor(os.Getppid())
	if err != nil {
		return audit.Caller()
	}
	return a
}

// sameProgram makes sure that the program of a process is the file of that
// name here: a name means something in the mount namespace of its process
// alone, and anybody can make a namespace with a /usr/bin/conmon of his own.
func sameProgram(pid int, exe string) error {
	var running, named unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &running); err != nil {
		return fmt.Errorf("its program: %w", err)
	}
	if err := unix.Stat(exe, &named); err != nil {
		return fmt.Errorf("its program %s: %w", exe, err)
	}
	if running.Dev != named.Dev || running.Ino != named.Ino {
		return fmt.Errorf("its program is not the %s that is there", exe)
	}
	return nil
}
