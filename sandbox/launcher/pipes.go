package launcher

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// pipes are the payload's standard streams. The payload never gets a descriptor of the host's: inherited ones
// show host paths in /proc/self/fd and can be reopened (CVE-2016-9962 class).
type pipes struct {
	// the payload's ends
	stdin, stdout, stderr *os.File
	// the monitor's ends
	toStdin, fromStdout, fromStderr *os.File
	// terminal is there in place of all of them; its other end is the payload's.
	terminal *terminal
}

func newPipes(p sandbox.Plan) (*pipes, error) {
	var ps pipes
	if p.Process.Terminal != nil {
		var err error
		ps.terminal, err = newTerminal(*p.Process.Terminal)
		return &ps, err
	}
	for _, pair := range []struct{ r, w **os.File }{
		{&ps.stdin, &ps.toStdin}, {&ps.fromStdout, &ps.stdout}, {&ps.fromStderr, &ps.stderr},
	} {
		var err error
		if *pair.r, *pair.w, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("pipe: %w", err)
		}
	}
	// The payload's own, so that it may open /dev/stdout again whoever it is.
	uid, gid := int(p.IDMap.Base+p.Process.UID), int(p.IDMap.Base+p.Process.GID)
	for _, f := range []*os.File{ps.stdin, ps.stdout, ps.stderr} {
		if err := f.Chown(uid, gid); err != nil {
			return nil, fmt.Errorf("pipe: %w", err)
		}
	}
	if !p.Process.Stdin {
		// End of file at once.
		if err := ps.toStdin.Close(); err != nil {
			return nil, err
		}
		ps.toStdin = nil
	}
	return &ps, nil
}

// outfit gives p its streams. (A file that is nil would not be none to it.)
func (ps *pipes) outfit(p *libcontainer.Process) {
	if ps.terminal != nil {
		ps.terminal.outfit(p)
		return
	}
	p.Stdin, p.Stdout, p.Stderr = ps.stdin, ps.stdout, ps.stderr
}

// started is to be called when libcontainer has started the process, with how
// that went: what only the container may hold is closed, as an end kept here
// would keep the streams from ever ending, and its terminal taken.
func (ps *pipes) started(err error) error {
	ps.closePayloadEnds()
	if ps.terminal != nil {
		return errors.Join(err, ps.terminal.take(err == nil))
	}
	return err
}

// closePayloadEnds closes what only the container may hold: an end kept here
// would keep the streams from ever ending.
func (ps *pipes) closePayloadEnds() {
	closeFiles([]*os.File{ps.stdin, ps.stdout, ps.stderr})
}

// given returns the caller's descriptor fd, or -1 if it is the null device,
// which stands for none.
func given(fd int) int {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
		return -1
	}
	return fd
}
