package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox/profile"
)

// readProfile reads a system-call profile. Here and not in the engine: the name
// is the caller's, relative to the caller's directory. Each later start of the
// container uses what was read now.
func readProfile(name string) ([]byte, error) {
	refuse := func(cause string) error {
		return invalid("run.seccomp", "seccomp profile "+cause, "name a readable JSON file, or use seccomp=default")
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not hold the command up
	if err != nil {
		return nil, refuse(err.Error())
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, refuse(name + " is not a file")
	}
	b, err := io.ReadAll(io.LimitReader(f, profile.MaxFile+1))
	switch {
	case err != nil:
		return nil, refuse(err.Error())
	case len(b) > profile.MaxFile:
		return nil, refuse(name + " is larger than 256 KiB")
	case len(b) == 0:
		return nil, refuse(name + " is empty")
	}
	return b, nil
}
