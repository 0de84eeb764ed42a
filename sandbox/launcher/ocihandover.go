package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ociHandOver gives the container to its monitor and waits until that watches
// it; only then the caller learns the process id.
func ociHandOver(plan sandbox.OCIPlan, ct *libcontainer.Container, process *libcontainer.Process) error {
	pid, err := process.Pid()
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	state, err := ct.State()
	if err != nil {
		return err
	}
	h := sandbox.OCIHandover{PID: pid, Cgroups: state.CgroupPaths}
	if r := state.Config.Cgroups; r != nil && r.Resources != nil {
		h.Memory = r.Memory
	}
	if err := sendHandover(sandbox.FDOCIHandover, h, pidfd); err != nil {
		return err
	}
	if plan.PIDFile != "" {
		if err := writePIDFile(plan.PIDFile, pid); err != nil {
			return err
		}
	}
	return sandbox.Send(sandbox.FDControl, sandbox.Message{Kind: sandbox.MessageReady, PID: pid})
}

func sendHandover(socket int, h sandbox.OCIHandover, pidfd int) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(socket, b, unix.UnixRights(pidfd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	buf := make([]byte, sandbox.MaxMessage)
	n, err := unix.Read(socket, buf)
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if n == 0 {
		return fault.New(fault.Unavailable, "oci.monitor", "the container's monitor has died", "")
	}
	var m sandbox.Message
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if m.Error != nil {
		return m.Error
	}
	return nil
}

// receiveHandover is the monitor's side of it. io.EOF says that there will be
// none: the launcher has failed.
func receiveHandover(socket int) (h sandbox.OCIHandover, pidfd int, err error) {
	buf, oob := make([]byte, sandbox.MaxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return h, -1, err
	}
	cs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return h, -1, err
	}
	if len(cs) != 1 {
		return h, -1, errors.New("handover without a process")
	}
	fds, err := unix.ParseUnixRights(&cs[0])
	if err != nil || len(fds) != 1 {
		return h, -1, errors.New("handover without a process")
	}
	return h, fds[0], json.Unmarshal(buf[:n], &h)
}

// ociAdopt has the monitor of a container watch a process that was added.
func ociAdopt(plan sandbox.OCIPlan, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	// Through a descriptor: a socket's path may have 107 bytes only.
	dir, err := os.OpenFile(plan.StateDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), sandbox.MonitorSocket)
	if err := unix.Connect(socket, &unix.SockaddrUnix{Name: name}); err != nil {
		return fault.Wrap(fault.Unavailable, "oci.monitor", fmt.Errorf("the container's monitor does not answer: %w", err), "")
	}
	return sendHandover(socket, sandbox.OCIHandover{PID: pid, Exec: plan.Exec}, pidfd)
}

// writePIDFile writes the process id so that the file appears whole.
func writePIDFile(name string, pid int) error {
	temp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_SYNC, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, name)
}
