package launcher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// outcome is an exit in the terms of records: what cannot be known is said.
func outcome(status unix.WaitStatus, known bool) (code, signal int, problem string) {
	switch {
	case !known:
		return -1, 0, "the exit status is not known: its parent has not taken it, or this kernel shows it to nobody else"
	case status.Signaled():
		return 128 + int(status.Signal()), int(status.Signal()), ""
	default:
		return status.ExitStatus(), 0, ""
	}
}

// hostSelf is this process's id in the namespace of /proc, which is its
// caller's; 0 if it cannot be told.
func hostSelf() int {
	s, err := os.Readlink("/proc/self")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// listen takes processes that are added to the container. Root alone can reach
// the socket, and a peer of another user is turned away.
func (m *ociMonitor) listen() error {
	dir, err := os.OpenFile(m.StateDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	unix.Umask(0o177) // a socket has its mode from birth or not at all
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), sandbox.MonitorSocket)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("monitor's socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it goes with the directory
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			// One after the other: each says one thing, and gets one answer.
			m.adopt(conn)
			conn.Close()
		}
	}()
	return nil
}

// adopt watches a process that a launcher has added; it answers when the start
// is on record.
func (m *ociMonitor) adopt(conn *net.UnixConn) {
	if err := sandbox.CheckPeer(conn); err != nil {
		return
	}
	if err := conn.SetDeadline(time.Now().Add(recordTimeout)); err != nil {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	var h sandbox.OCIHandover
	pidfd := -1
	var rerr error
	if err := raw.Read(func(fd uintptr) bool {
		h, pidfd, rerr = receiveHandover(int(fd))
		return !errors.Is(rerr, unix.EAGAIN)
	}); err != nil || rerr != nil || h.Exec == "" {
		return
	}
	answer := sandbox.Message{Kind: sandbox.MessageReady}
	if h.Announced {
		if err := m.take(h); err != nil {
			answer = sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err)}
		}
	} else if err := m.post(audit.ExecStart, audit.ExecProcess{Exec: h.Exec, PID: h.PID}); err != nil {
		answer = sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err)}
		unix.Close(pidfd)
	} else {
		began := time.Now()
		m.added.Go(func() { m.watchAdded(h, pidfd, began) })
	}
	_ = raw.Write(func(fd uintptr) bool { _ = sandbox.Send(int(fd), answer); return true }) // who asked may have gone
}

// take lets an intent for this run be used, once.
func (m *ociMonitor) take(h sandbox.OCIHandover) error {
	if h.Run != m.Run {
		return otherRun()
	}
	if !m.used.take(h.Index) {
		return fault.New(fault.Unrecorded, "launch.receipt", "the receipt has been used before, or is too old", "start the process again through ward-oci")
	}
	return nil
}

// watchAdded records how a process that was added has ended.
func (m *ociMonitor) watchAdded(h sandbox.OCIHandover, pidfd int, began time.Time) {
	defer unix.Close(pidfd)
	if err := poll(pidfd, unix.POLLIN, -1); err != nil {
		m.unseen(fmt.Errorf("wait for process %s: %w", h.Exec, err))
		return
	}
	took := time.Since(began).Milliseconds()
	status, known := exitStatus(pidfd)
	end := audit.ExecEnd{Exec: h.Exec, DurationMS: took}
	end.Code, end.Signal, end.Error = outcome(status, known)
	if err := m.post(audit.ExecExit, end); err != nil {
		m.unseen(fmt.Errorf("record the end of process %s: %w", h.Exec, err))
	}
}

// unseen remembers an end that is not on record, for the record of the run's.
func (m *ociMonitor) unseen(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = append(m.lost, err)
}

// awaitAdded waits for the last records of processes that were added: they
// have ended with the container.
func (m *ociMonitor) awaitAdded() {
	done := make(chan struct{})
	go func() { m.added.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * reapTimeout): // one that is stuck in the kernel
	}
}

func (m *ociMonitor) post(t audit.Type, data any) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := m.log.Post(ctx, audit.Record{Type: t, Run: m.Run, Actor: m.actor, Data: data}); err != nil {
		return fault.Wrap(fault.Unrecorded, "launch.audit", fmt.Errorf("record %s: %w", t, err), "see `ward audit verify`")
	}
	return nil
}
