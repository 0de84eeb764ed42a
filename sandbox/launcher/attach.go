package launcher

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

const (
	// backlog is how many pieces of output, of 32 KiB at most, wait for one
	// attached client.
	backlog = 32
	// patience is how long the payload waits for an attached client whose
	// backlog is full and who takes nothing. One that takes something, however
	// slowly, is waited for as the caller is.
	patience = 2 * time.Second
)

// attachment is a client that the container's streams are passed to and from.
// Its nil value is a client that is not attached.
type attachment struct {
	m      *monitor
	id     string
	cancel context.CancelFunc
	in     *os.File
	reads  map[*audience]*outlet
}

// attach makes a client one that is attached.
func (m *monitor) attach(before *attachment, want *sandbox.Attachment, files []*os.File) (*attachment, sandbox.MonitorReply) {
	a, err := m.attached(before, want, files)
	if err != nil {
		closeFiles(files)
		return before, sandbox.MonitorReply{Error: fault.As(err)}
	}
	return a, sandbox.MonitorReply{OK: true}
}

func (m *monitor) attached(before *attachment, want *sandbox.Attachment, files []*os.File) (*attachment, error) {
	protocol := func(cause string) error { return fault.New(fault.Invalid, "monitor.protocol", cause, "") }
	if before != nil || want == nil || len(want.Files) != len(files) || !isID(want.ID) {
		return nil, protocol("this is not a request to attach, once, to the container")
	}
	got := map[sandbox.AttachFile]*os.File{}
	for i, name := range want.Files {
		if !slices.Contains([]sandbox.AttachFile{sandbox.AttachIn, sandbox.AttachOut, sandbox.AttachErr}, name) || got[name] != nil {
			return nil, protocol(fmt.Sprintf("a descriptor is %.32q", string(name)))
		}
		// Of anything else, waiting could not be ended when its turn comes; and
		// the setting that takes is everybody's who has it open.
		if !isPipe(files[i]) {
			return nil, protocol(fmt.Sprintf("%s is not a pipe and not a socket", name))
		}
		got[name] = files[i]
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &attachment{m: m, id: want.ID, cancel: cancel, reads: map[*audience]*outlet{}}
	for _, s := range m.streams {
		name := sandbox.AttachOut
		if s.kind == audit.Stderr {
			name = sandbox.AttachErr
		}
		if got[name] == nil {
			continue
		}
		o, err := s.clients.add(polled(got[name]))
		if err != nil {
			a.leave()
			return nil, err
		}
		a.reads[&s.clients] = o
		delete(got, name)
	}
	if in := got[sandbox.AttachIn]; in != nil && m.input != nil {
		a.in = polled(in)
		go m.input.feed(ctx, a.in)
		delete(got, sandbox.AttachIn)
	}
	for _, f := range got { // a terminal has no second output, the payload perhaps no input
		f.Close()
	}
	return a, nil
}

func isID(s string) bool {
	return len(s) == 64 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

func isPipe(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFIFO || st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// leave takes the client's streams away.
func (a *attachment) leave() {
	a.cancel()
	if a.in != nil {
		a.in.SetReadDeadline(time.Unix(1, 0)) // feed closes it
	}
	for from, o := range a.reads {
		from.remove(o)
	}
}

// close lets a client go whose connection has ended, and puts that on record
// if the container goes on.
func (a *attachment) close() {
	if a == nil {
		return
	}
	a.leave()
	select {
	case <-a.m.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	// The end of the run may be on record already, and the log closed.
	_ = a.m.log.Post(ctx, audit.Record{Type: audit.ContainerDetach, Run: a.m.Run, Actor: a.m.actor,
		Data: audit.ContainerEvent{Container: a.m.Container, Attach: a.id}})
}

// audience is who reads a stream beside the caller.
type audience struct {
	mu      sync.Mutex
	outlets []*outlet
	ended   bool
}

func (au *audience) add(to *os.File) (*outlet, error) {
	au.mu.Lock()
	defer au.mu.Unlock()
	if au.ended {
		to.Close()
		return nil, fault.New(fault.Invalid, "container.state", "the container has ended", "see how it is: ward ps -a")
	}
	o := &outlet{to: to, queue: make(chan []byte, backlog), gone: make(chan struct{}), done: make(chan struct{})}
	au.outlets = append(au.outlets, o)
	go o.run()
	return o, nil
}

func (au *audience) remove(o *outlet) {
	au.mu.Lock()
	au.outlets = slices.DeleteFunc(au.outlets, func(x *outlet) bool { return x == o })
	au.mu.Unlock()
	o.leave()
}

// put gives p to all of them. Called by the stream's copier alone.
func (au *audience) put(p []byte) {
	au.mu.Lock()
	all := slices.Clone(au.outlets)
	au.mu.Unlock()
	if len(all) == 0 {
		return
	}
	p = slices.Clone(p)
	for _, o := range all {
		if !o.put(p) {
			au.remove(o)
		}
	}
}

// end lets the clients have what is left, and then the end of file.
func (au *audience) end() {
	au.mu.Lock()
	au.ended = true
	all := au.outlets
	au.outlets = nil
	au.mu.Unlock()
	for _, o := range all {
		o.finish()
	}
}

// outlet passes a stream on to one attached client.
type outlet struct {
	to    *os.File
	queue chan []byte
	gone  chan struct{} // closed when nobody is there any more
	once  sync.Once
	moved atomic.Int64
	done  chan struct{}
}

func (o *outlet) run() {
	defer close(o.done)
	defer o.to.Close()
	for {
		select {
		case <-o.gone:
			return
		case p := <-o.queue:
			if p == nil {
				return // the end of the stream
			}
			for len(p) > 0 {
				n, err := o.to.Write(p[:min(len(p), 4096)])
				if err != nil {
					o.leave()
					return
				}
				p = p[n:]
				o.moved.Add(int64(n))
			}
		}
	}
}

// put queues p; false if the client is gone, or stuck.
func (o *outlet) put(p []byte) bool {
	for before := int64(-1); ; {
		select {
		case <-o.gone:
			return false
		case o.queue <- p:
			return true
		default:
		}
		if now := o.moved.Load(); now != before {
			before = now
		} else {
			return false
		}
		select {
		case <-o.gone:
			return false
		case o.queue <- p:
			return true
		case <-time.After(patience):
		}
	}
}

// finish returns when the client has all, or is let go.
func (o *outlet) finish() {
	if !o.put(nil) {
		o.leave()
	}
	for before := int64(-1); ; {
		select {
		case <-o.done:
			return
		case <-time.After(patience):
		}
		if now := o.moved.Load(); now == before {
			o.leave()
		} else {
			before = now
		}
	}
}

func (o *outlet) leave() {
	o.once.Do(func() {
		close(o.gone)
		o.to.SetWriteDeadline(time.Unix(1, 0))
	})
}
