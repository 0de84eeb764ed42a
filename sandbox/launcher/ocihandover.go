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

// sendHandover says to a monitor what there is, with the process if there is
// one, and returns what the monitor thinks of it.
func sendHandover(socket int, h sandbox.OCIHandover, process ...int) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	var rights []byte
	if len(process) > 0 {
		rights = unix.UnixRights(process...)
	}
	if err := unix.Sendmsg(socket, b, rights, nil, unix.MSG_NOSIGNAL); err != nil {
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

// receiveHandover is the monitor's side of it; an announcement comes without a
// process. io.EOF says that there will be none: the launcher has failed.
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
	var fds []int
	if len(cs) == 1 {
		if fds, err = unix.ParseUnixRights(&cs[0]); err != nil {
			return h, -1, err
		}
	}
	if err := json.Unmarshal(buf[:n], &h); err != nil || h.Announced != (len(fds) == 0) || len(fds) > 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return h, -1, errors.Join(errors.New("handover without a process"), err)
	}
	if h.Announced {
		return h, -1, nil
	}
	return h, fds[0], nil
}

// ociAnnounce says to the monitor of a container that a process is about to be
// added on the strength of an intent, by its place in the log. The monitor
// takes each intent once, so that no receipt starts two.
func ociAnnounce(plan sandbox.OCIPlan, index int64) error {
	return toMonitor(plan, sandbox.OCIHandover{Run: plan.Run, Exec: plan.Exec, Announced: true, Index: index})
}

// ociAdopt has the monitor of a container watch a process that was added.
func ociAdopt(plan sandbox.OCIPlan, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	return toMonitor(plan, sandbox.OCIHandover{PID: pid, Exec: plan.Exec}, pidfd)
}

// toMonitor hands over to the monitor that a container has by now.
func toMonitor(plan sandbox.OCIPlan, h sandbox.OCIHandover, process ...int) error {
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
	return sendHandover(socket, h, process...)
}

// writePIDFile writes the process id so that the file appears whole.
func writePIDFile(name string, pid int) error {
	temp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	_ = os.Remove(temp) // of one that was killed here
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
