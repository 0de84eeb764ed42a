package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// MonitorSocket is the name of a monitor's socket in its RuntimeDir.
const MonitorSocket = "monitor.sock"

// MonitorOp is what a client asks of a monitor.
type MonitorOp string

// The requests a monitor answers. What else makes sense is answered with an
// error, rule "monitor.op", as it may be a later ward's; what does not ends
// the connection.
const (
	OpSignal MonitorOp = "signal"
	OpWait   MonitorOp = "wait"
	// OpExecOpen and OpExecStart are a launcher's that starts another process
	// in the container; OpExecs lists the ids of those that run.
	OpExecOpen  MonitorOp = "exec.open"
	OpExecStart MonitorOp = "exec.start"
	OpExecs     MonitorOp = "execs"
	// OpAttach passes the container's streams to the client for as long as its
	// connection lasts; OpResize gives a terminal another size.
	OpAttach MonitorOp = "attach"
	OpResize MonitorOp = "resize"
	// OpFiles asks for a descriptor of the container's first process.
	OpFiles MonitorOp = "files"
)

// MonitorRequest is one packet from a client to a monitor.
type MonitorRequest struct {
	Op     MonitorOp `json:"op"`
	Signal int       `json:"signal,omitempty"`
	// ExecID names the process that a signal or a size is for; empty is the
	// first one.
	ExecID string        `json:"exec_id,omitempty"`
	Exec   *ExecHandover `json:"exec,omitempty"`
	Attach *Attachment   `json:"attach,omitempty"`
	Size   *Terminal     `json:"size,omitempty"`
	// Change is OpUpdate's and OpSettle's.
	Change *Change `json:"change,omitempty"`
}

// MonitorReply answers a request: done, an exit or an error.
type MonitorReply struct {
	OK    bool       `json:"ok,omitempty"`
	Exit  *Exit      `json:"exit,omitempty"`
	Place *ExecPlace `json:"place,omitempty"`
	Execs []string   `json:"execs,omitempty"`
	// Changed is the number of the last change of limits that was made.
	Changed int `json:"changed,omitempty"`
	// Denied are the calls that were refused so far.
	Denied []DeniedSyscall `json:"denied,omitempty"`
	Error  *fault.Error    `json:"error,omitempty"`
}

// Monitor is a connection to the monitor of a running container. It carries
// one request at a time and is not safe for concurrent use.
type Monitor struct{ conn *net.UnixConn }

// Dial connects to the monitor that serves in runtimeDir; fault.NotFound with
// rule "monitor.gone" if none does. A socket that a process of another user
// serves is refused.
func Dial(runtimeDir string) (*Monitor, error) {
	gone := func(err error) error {
		return fault.Wrap(fault.NotFound, "monitor.gone", fmt.Errorf("no monitor answers in %s: %w", runtimeDir, err), "")
	}
	// Through a descriptor: a socket's path may have 107 bytes only.
	dir, err := os.OpenFile(runtimeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, gone(err)
	}
	defer dir.Close()
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), MonitorSocket)
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, gone(err)
	}
	if err := CheckPeer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return &Monitor{conn}, nil
}

// CheckPeer refuses a connection whose other end was opened by another user.
func CheckPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if int(cred.Uid) != os.Geteuid() {
		return fault.New(fault.Denied, "monitor.peer", fmt.Sprintf("the monitor's socket belongs to user %d", cred.Uid), "")
	}
	return nil
}

// Signal sends sig to the container's first process. The kernel drops signals
// it has no handler for, but for SIGKILL.
func (m *Monitor) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := m.ask(ctx, MonitorRequest{Op: OpSignal, Signal: int(sig)})
	return err
}

// Wait returns how the container ended, once its exit is on record.
func (m *Monitor) Wait(ctx context.Context) (Exit, error) {
	r, err := m.ask(ctx, MonitorRequest{Op: OpWait})
	if err != nil {
		return Exit{}, err
	}
	if r.Exit == nil {
		return Exit{}, fault.New(fault.Internal, "monitor.protocol", "the monitor's answer has no exit", "")
	}
	return *r.Exit, nil
}

// Close ends the connection.
func (m *Monitor) Close() error { return m.conn.Close() }

func (m *Monitor) ask(ctx context.Context, req MonitorRequest, files ...*os.File) (MonitorReply, error) {
	r, got, err := m.askFiles(ctx, req, files...)
	closeAll(got...)
	return r, err
}

// askFiles is ask for an answer that comes with descriptors.
func (m *Monitor) askFiles(ctx context.Context, req MonitorRequest, files ...*os.File) (r MonitorReply, got []*os.File, err error) {
	if err := m.conn.SetDeadline(time.Time{}); err != nil {
		return r, nil, err
	}
	stop := context.AfterFunc(ctx, func() { m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendFiles(m.conn, req, files); err != nil {
		return r, nil, m.lost(ctx, err)
	}
	if got, err = readFiles(m.conn, &r); err != nil {
		return r, nil, m.lost(ctx, err)
	}
	if r.Error != nil {
		closeAll(got...)
		return MonitorReply{}, nil, r.Error
	}
	return r, got, nil
}

func (m *Monitor) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("monitor: %w", ctx.Err())
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return fault.New(fault.NotFound, "monitor.gone", "the monitor has ended", "")
	}
	return fault.Wrap(fault.Internal, "monitor.protocol", err, "")
}

// ReadRequest reads one request, as a monitor does, and the descriptors that
// came with it. A request with something in it that this version does not know
// is a refusal to answer with, rule "monitor.op": what it asks for would not be
// what is done. After any other error the connection is of no use.
func ReadRequest(conn *net.UnixConn) (MonitorRequest, []*os.File, error) {
	var req MonitorRequest
	b, files, err := readPacket(conn)
	if err != nil {
		return req, nil, err
	}
	if err = strictly(b, &req); err == nil {
		return req, files, nil
	}
	closeAll(files...)
	var word struct{ Op MonitorOp }
	if json.Unmarshal(b, &word) == nil && word.Op != "" {
		err = UnknownOp(word.Op)
	}
	return MonitorRequest{}, nil, err
}

// UnknownOp is the answer to what a monitor does not know.
func UnknownOp(op MonitorOp) error {
	return fault.New(fault.Invalid, "monitor.op", fmt.Sprintf("the container's monitor does not know this form of %.32q", string(op)),
		"start the container again with this ward")
}

// WriteReply sends one reply, as a monitor does, and descriptors with it. They
// stay the caller's to close.
func WriteReply(conn *net.UnixConn, r MonitorReply, files ...*os.File) error {
	return sendFiles(conn, r, files)
}
