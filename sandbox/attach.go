package sandbox

import (
	"context"
	"os"
)

// Attachment is what a client of a monitor attaches to.
type Attachment struct {
	// ID names it on record: 64 lower-case hex digits.
	ID string `json:"id"`
	// Files says what the descriptors are that come with it, in order.
	Files []AttachFile `json:"files"`
}

// AttachFile is what a descriptor of an attachment is. Each is the end of a
// pipe or a socket that nobody else uses.
type AttachFile string

// The descriptors of an attachment: input is read from AttachIn, output written
// to the others. On a terminal all output is AttachOut's.
const (
	AttachIn  AttachFile = "stdin"
	AttachOut AttachFile = "stdout"
	AttachErr AttachFile = "stderr"
)

// Attach passes the container's streams to and from the given ends of pipes,
// from now on and until the connection is closed; nil is none. They stay the
// caller's to close, and must be closed for an end of file to be seen. The
// outputs end when the container does, once they have been written whole; a
// client that has a megabyte waiting for it and then takes nothing for two
// seconds is let go before that.
func (m *Monitor) Attach(ctx context.Context, id string, in, out, errs *os.File) error {
	a := Attachment{ID: id}
	var files []*os.File
	for _, f := range []struct {
		name AttachFile
		file *os.File
	}{{AttachIn, in}, {AttachOut, out}, {AttachErr, errs}} {
		if f.file != nil {
			a.Files, files = append(a.Files, f.name), append(files, f.file)
		}
	}
	_, err := m.ask(ctx, MonitorRequest{Op: OpAttach, Attach: &a}, files...)
	return err
}

// Resize gives the terminal of the container's first process another size, or
// that of the process exec if it is not empty.
func (m *Monitor) Resize(ctx context.Context, exec string, size Terminal) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpResize, ExecID: exec, Size: &size})
	return err
}
