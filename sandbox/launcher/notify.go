package launcher

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/sandbox/profile"
)

// maxDenied bounds how many different calls are counted one by one. A payload
// can make up two billion numbers.
const maxDenied = 64

// Every refusal costs the monitor some microseconds of processor time that no
// limit of the container's covers. So they have a budget: maxBurst at once,
// maxRate a second after that. Who wants more waits, in the refused call.
const (
	maxRate  = 2000
	maxBurst = 4000
)

// denials answers the refused calls of one container and counts them. It never
// lets a call go on (SECCOMP_USER_NOTIF_FLAG_CONTINUE is for calls that are
// allowed anyway: the arguments can change after they were looked at). When it
// is gone, with the monitor, the kernel answers ENOSYS.
type denials struct {
	// filter is made for the first refused call: most payloads have none, and
	// every monitor would keep it. The launcher of this build has made the same
	// one from the same plan; if it could not be made, nobody would answer, and
	// the kernel would refuse.
	filter func() (*profile.Filter, error)

	mu     sync.Mutex
	calls  map[int32]*tally
	others tally
	next   time.Time // when the budget allows the next one
}

type tally struct {
	count       uint64
	first, last time.Time
}

func newDenials(want sandbox.Seccomp) *denials {
	filter := sync.OnceValues(func() (*profile.Filter, error) { return filterOf(want) })
	return &denials{filter: filter, calls: map[int32]*tally{}}
}

// adopt answers on another listener, until no process has its filter any more.
// All processes of a container have the same filter, each start of one a
// listener of its own. It takes fd over, also when it fails.
func (d *denials) adopt(fd int) error {
	unix.CloseOnExec(fd)
	// Only a descriptor that does not block gets into the poller, and an idle
	// listener must not cost a thread.
	err := errors.Join(isListener(fd), unix.SetNonblock(fd, true))
	f := os.NewFile(uintptr(fd), "listener")
	if err != nil {
		return errors.Join(err, f.Close())
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	go func() {
		defer f.Close()
		for ended := false; !ended; {
			if err := raw.Read(func(uintptr) (done bool) {
				done, ended = d.serve(fd)
				return done
			}); err != nil {
				return
			}
		}
	}()
	return nil
}

// serve answers what is waiting. It returns false if nothing is, and ended if
// nothing ever will be.
func (d *denials) serve(fd int) (done, ended bool) {
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true, true
		case n == 0:
			return false, false
		case ready[0].Revents&unix.POLLIN == 0: // hung up
			return true, true
		}
		if err := d.one(fd); err != nil {
			return true, true
		}
	}
}

// notification and answer are struct seccomp_notif and seccomp_notif_resp,
// the former with room for what later kernels may add.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
	_     [64]byte
}

type answer struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

func (d *denials) one(fd int) error {
	var n notification
	err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
	if errors.Is(err, unix.ENOENT) {
		return nil // a signal took the call back before it was seen; it comes again
	}
	if err != nil {
		return err
	}
	filter, err := d.filter()
	if err != nil {
		return err
	}
	v := filter.Answer(int(n.nr), n.args)
	if v.Allow || v.Errno == 0 {
		// Cannot be: the kernel asks about what is not allowed. It stays so.
		v.Errno = uint(unix.ENOSYS)
	}
	time.Sleep(d.count(n.nr, time.Now()))
	a := answer{id: n.id, err: -int32(v.Errno)}
	err = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	if errors.Is(err, unix.ENOENT) {
		return nil // the caller was killed meanwhile
	}
	return err
}

func ioctl(fd int, op uint, arg unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(op), uintptr(arg))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return e
	}
}

// count books one refusal and returns how long its answer has to wait.
func (d *denials) count(nr int32, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.calls[nr]
	if t == nil && len(d.calls) < maxDenied {
		t = &tally{}
		d.calls[nr] = t
	} else if t == nil {
		t = &d.others
	}
	if t.count == 0 {
		t.first = now
	}
	t.count++
	t.last = now
	if full := now.Add(-maxBurst * time.Second / maxRate); d.next.Before(full) {
		d.next = full
	}
	d.next = d.next.Add(time.Second / maxRate)
	return d.next.Sub(now)
}

// list is what was refused so far, the most frequent first.
func (d *denials) list() []sandbox.DeniedSyscall {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []sandbox.DeniedSyscall
	add := func(name string, t tally) {
		out = append(out, sandbox.DeniedSyscall{Name: name, Count: t.count,
			First: t.first.UTC().Truncate(time.Millisecond), Last: t.last.UTC().Truncate(time.Millisecond)})
	}
	for nr, t := range d.calls {
		name, ok := profile.CallName(int(nr))
		if !ok {
			name = fmt.Sprintf("syscall_%d", nr)
		}
		add(name, *t)
	}
	slices.SortFunc(out, func(a, b sandbox.DeniedSyscall) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	if d.others.count > 0 {
		add("others", d.others)
	}
	return out
}

func recordedDenials(list []sandbox.DeniedSyscall) audit.DeniedSyscalls {
	var out audit.DeniedSyscalls
	for _, s := range list {
		out.Syscalls = append(out.Syscalls, audit.DeniedSyscall(s))
	}
	return out
}
