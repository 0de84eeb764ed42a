package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// The launcher and its caller talk over one SOCK_SEQPACKET pair: one message
// is one packet of JSON, so that a message is whole or absent and its size is
// bounded by the kernel. The vocabulary is closed: a kind that is unknown, or
// comes when it is not due, ends the conversation.

// MessageKind is what a Message says.
type MessageKind string

// The launcher's messages, in the only order in which they may come:
// ready, then started or error, then (after started) exit or error.
const (
	// MessageReady says that plan and receipt were accepted; nothing runs yet.
	MessageReady MessageKind = "ready"
	// MessageStarted says that the payload has been executed.
	MessageStarted MessageKind = "started"
	// MessageError says that nothing runs, and why.
	MessageError MessageKind = "error"
	// MessageExit says that the payload has ended and its exit is on record.
	MessageExit MessageKind = "exit"
)

// Message is one packet from the launcher to its caller.
type Message struct {
	Kind MessageKind `json:"kind"`
	// PID and MonitorPID come with started, in the host's PID namespace.
	PID        int       `json:"pid,omitempty"`
	MonitorPID int       `json:"monitor_pid,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	// Code comes with error: 126 or 127 if the payload could not be executed.
	Code  int          `json:"code,omitempty"`
	Error *fault.Error `json:"error,omitempty"`
	Exit  *Exit        `json:"exit,omitempty"`
}

// MaxMessage bounds one packet of the control protocols, in bytes.
const MaxMessage = 32 << 10

// maxText bounds the texts that come from outside (payload names, kernel
// errors), so that no message can outgrow its packet.
const maxText = 4 << 10

// Send writes m as one packet to the socket fd.
func Send(fd int, m Message) error {
	if m.Error != nil {
		short := *m.Error
		short.Cause = clip(short.Cause)
		m.Error = &short
	}
	if m.Exit != nil {
		short := *m.Exit
		short.Error = clip(short.Error)
		m.Exit = &short
	}
	return sendJSON(fd, m)
}

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

func sendJSON(fd int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("message of %d bytes", len(b))
	}
	for {
		// MSG_NOSIGNAL: a caller that went away is not our end.
		err = unix.Sendto(fd, b, unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readJSON reads one packet from r into v, strictly. io.EOF means that the
// other side has closed.
func readJSON(r io.Reader, v any) error {
	buf := make([]byte, MaxMessage+1)
	n, err := r.Read(buf)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	if n > MaxMessage {
		return errors.New("message too long")
	}
	d := json.NewDecoder(bytes.NewReader(buf[:n]))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("bytes after the message")
	}
	return nil
}

// writeReply sends v as one packet on a connected packet socket.
func writeReply(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("message of %d bytes", len(b))
	}
	_, err = w.Write(b)
	return err
}
