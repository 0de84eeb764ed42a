// Ward-init is the first process of a container started with --init. It starts
// the payload, passes signals on to it, collects the processes nobody else
// waits for, and ends as the payload does.
//
// It runs inside the container, under the payload's ids, filter and limits, and
// is trusted with nothing: what takes it over has what the payload has.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mark says of which build this file is, for the launcher to find in it: a
// program that is to run inside is not started to be asked. Set by the linker.
var mark = "ward-init:dev:"

// Exit codes of a payload that cannot be executed, as Docker's.
const (
	notExecutable = 126
	notFound      = 127
)

func main() {
	runtime.LockOSThread()
	if len(os.Args) < 3 || os.Args[1] != "--" {
		fmt.Fprintln(os.Stderr, "usage: ward-init -- PROGRAM [ARGUMENT...]; build",
			strings.TrimSuffix(strings.TrimPrefix(mark, "ward-init:"), ":"))
		os.Exit(2)
	}
	nameThread()
	os.Exit(run(os.Args[2:]))
}

// nameThread gives the process its name: it is executed by way of a descriptor,
// and would be called by its number. Without a name it runs as well.
func nameThread() {
	name := []byte("ward-init\x00")
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

// run is the life of the payload: its exit code, or 128 and the signal.
func run(args []string) int {
	// Before there is anybody to pass them to, so that none is lost.
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	pid, err := start(args)
	if err != nil {
		return refuse(args[0], err)
	}
	takeTerminal(pid)
	go forward(signals, pid)
	for {
		var status unix.WaitStatus
		// Any child: those whose parent has died become this process's.
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "ward-init: wait:", err)
			return notExecutable
		case got == pid && status.Signaled():
			return 128 + int(status.Signal())
		case got == pid && status.Exited():
			return status.ExitStatus()
		}
	}
}

// start starts the payload in a process group of its own.
func start(args []string) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
}

// refuse says why the payload was not executed, and returns the code for it.
func refuse(arg0 string, err error) int {
	fmt.Fprintf(os.Stderr, "ward-init: exec %q: %v\n", arg0, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return notFound
	}
	return notExecutable
}

// takeTerminal makes the payload's process group the foreground one, if there
// is a terminal. This process does it, while it still is in the foreground
// itself: the payload would be stopped for trying (SIGTTOU). A payload that
// was quicker, and stopped for reading (SIGTTIN), goes on.
func takeTerminal(pid int) {
	if err := unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pid); err != nil {
		return // no terminal, or not this session's
	}
	_ = unix.Kill(-pid, unix.SIGCONT)
}

// own are the signals that mean this process: a child's end; what the Go
// runtime sends itself (and the kernel to nobody who did not ask); and what the
// terminal says to who is in the background, as this process is by now. SIGPROF
// and 32 to 34 the Go runtime keeps to itself.
func own(s syscall.Signal) bool {
	switch s {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGTTIN, unix.SIGTTOU:
		return true
	}
	return false
}

// forward passes signals on. One that comes too late has nobody to go to.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		if n, ok := s.(syscall.Signal); ok && !own(n) {
			_ = unix.Kill(pid, n)
		}
	}
}
