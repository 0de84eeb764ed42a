package launcher

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// maxClients bounds how many may talk to one monitor at a time.
const maxClients = 128

// server answers requests of ward's other commands over a socket in the
// runtime directory. Nothing in the container can reach it, and peers of
// another user are turned away.
type server struct {
	m        *monitor
	dir      string
	listener *net.UnixListener
	slots    chan struct{}
	clients  sync.WaitGroup
}

func listen(m *monitor) (*server, error) {
	if err := os.MkdirAll(filepath.Dir(m.RuntimeDir), 0o711); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.RuntimeDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	dir, err := os.OpenFile(m.RuntimeDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	defer dir.Close()
	unix.Umask(0o177) // a socket has its mode from birth or not at all
	// Through a descriptor: a socket's path may have 107 bytes only.
	name := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), sandbox.MonitorSocket)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("monitor's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	s := &server{m: m, dir: m.RuntimeDir, listener: l, slots: make(chan struct{}, maxClients)}
	go s.accept()
	return s, nil
}

func (s *server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		select {
		case s.slots <- struct{}{}:
		default:
			conn.Close() // too many: better refused than queued unseen
			continue
		}
		s.clients.Go(func() {
			defer func() { conn.Close(); <-s.slots }()
			s.serve(conn)
		})
	}
}

// serve answers one client until it goes or says what makes no sense. A word
// that is not in the vocabulary may be of a later ward: it gets an answer.
func (s *server) serve(conn *net.UnixConn) {
	if err := sandbox.CheckPeer(conn); err != nil {
		return
	}
	var entering *entry // by a launcher that this client may turn out to be
	defer func() { entering.close() }()
	var attached *attachment
	defer func() { attached.close() }()
	for {
		req, files, err := sandbox.ReadRequest(conn)
		if f := (*fault.Error)(nil); errors.As(err, &f) {
			if sandbox.WriteReply(conn, sandbox.MonitorReply{Error: f}) != nil {
				return
			}
			continue
		}
		if err != nil {
			return
		}
		var reply sandbox.MonitorReply
		switch req.Op {
		case sandbox.OpExecOpen:
			entering, reply = s.m.execs.open(conn, entering, req.Exec)
		case sandbox.OpExecStart:
			reply = entering.start(req.Exec, files)
			files = nil
		case sandbox.OpFiles:
			if err := s.sendContainer(conn); err != nil {
				return
			}
			continue
		case sandbox.OpExecs:
			reply = sandbox.MonitorReply{OK: true, Execs: s.m.execs.ids()}
		case sandbox.OpAttach:
			attached, reply = s.m.attach(attached, req.Attach, files)
			files = nil
		case sandbox.OpResize:
			reply = s.m.resize(req.ExecID, req.Size)
		case sandbox.OpDenied:
			reply = sandbox.MonitorReply{OK: true, Denied: s.m.denied.list()}
		case sandbox.OpSignal:
			reply = s.signal(req.ExecID, req.Signal)
		case sandbox.OpPause:
			reply = done(s.m.pause())
		case sandbox.OpResume:
			reply = done(s.m.resume())
		case sandbox.OpUpdate:
			reply = done(s.m.update(req.Change))
		case sandbox.OpSettle:
			reply = s.m.settle(req.Change)
		case sandbox.OpWait:
			if !s.ended(conn) {
				return
			}
			exit := s.m.exit
			reply.Exit = &exit
		default:
			reply.Error = fault.As(sandbox.UnknownOp(req.Op))
		}
		closeFiles(files)
		if err := sandbox.WriteReply(conn, reply); err != nil {
			return
		}
		if reply.Exit != nil {
			return
		}
	}
}

// ended returns true when the container has ended and false when the client
// that waits for that has gone before: killed ones must not hold all places.
func (s *server) ended(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		// Nothing is due from it: whatever can be read is its end.
		raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
	}()
	select {
	case <-s.m.done:
		return true
	case <-gone:
		return false
	}
}

// sendContainer answers with a descriptor of the container's first process.
func (s *server) sendContainer(conn *net.UnixConn) error {
	fd, err := unix.FcntlInt(uintptr(s.m.pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "container")
	defer f.Close()
	return sandbox.WriteReply(conn, sandbox.MonitorReply{OK: true}, f)
}

func done(err error) sandbox.MonitorReply {
	if err != nil {
		return sandbox.MonitorReply{Error: fault.As(err)}
	}
	return sandbox.MonitorReply{OK: true}
}

func (s *server) signal(exec string, n int) sandbox.MonitorReply {
	if n < 1 || n > 64 {
		return sandbox.MonitorReply{Error: fault.New(fault.Invalid, "monitor.signal", fmt.Sprintf("%d is not a signal", n), "")}
	}
	signal := s.m.signal
	if exec != "" {
		signal = func(sig syscall.Signal) error { return s.m.execs.signal(exec, sig) }
	}
	return done(errors.Join(signal(syscall.Signal(n)), s.m.killPaused(syscall.Signal(n))))
}

// flush gives clients that wait for the end the time to be told of it.
func (s *server) flush() {
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.clients.Wait()
	}()
	select {
	case <-told:
	case <-time.After(time.Second): // an idle client does not hold up the end
	}
}

// remove takes the socket and its directory away. New clients then find no
// monitor and read the status instead.
func (s *server) remove() error {
	err := s.listener.Close()
	for _, name := range []string{filepath.Join(s.dir, sandbox.MonitorSocket), s.dir} {
		if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
