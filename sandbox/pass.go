package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFiles bounds how many descriptors come with one packet.
const MaxFiles = 16

// sendFiles writes v as one packet with descriptors of files. They stay the
// caller's to close.
func sendFiles(conn *net.UnixConn, v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxMessage || len(files) > MaxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors", len(b), len(files))
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, oob, nil)
	return err
}

// readFiles reads one packet into v, strictly, and the descriptors that came
// with it, which close on exec. Whatever is wrong, none is left open.
func readFiles(conn *net.UnixConn, v any) ([]*os.File, error) {
	b, files, err := readPacket(conn)
	if err == nil {
		err = strictly(b, v)
	}
	if err != nil {
		closeAll(files...)
		return nil, err
	}
	return files, nil
}

// readPacket reads one packet and the descriptors that came with it.
func readPacket(conn *net.UnixConn) (_ []byte, _ []*os.File, err error) {
	buf, oob := make([]byte, MaxMessage+1), make([]byte, unix.CmsgSpace(4*MaxFiles))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	defer func() {
		if err != nil {
			closeAll(files...)
		}
	}()
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > MaxMessage:
		return nil, nil, errors.New("message too long")
	case n == 0:
		return nil, nil, io.EOF
	}
	return buf[:n], files, nil
}

// strictly decodes b, and nothing but what v knows.
func strictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("bytes after the message")
	}
	return nil
}
