package launcher

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/sandbox"
)

// oomPause is the least time between two records of one container: one that
// is killed for memory over and over must not fill the audit log.
const oomPause = 5 * time.Second

// oomWatch records that processes of the container were killed for want of
// memory, when it happens. It waits in the runtime's poller and costs nothing
// while there is nothing to say. A kernel that cannot tell makes it silent; the
// record then comes with the end of the run.
type oomWatch struct {
	m     *monitor
	event *os.File

	mu       sync.Mutex
	recorded uint64 // kills that are on record
	over     bool
}

// newOOMWatch asks the kernel to be told. It is made before the payload goes.
func newOOMWatch(m *monitor) *oomWatch {
	w := &oomWatch{m: m}
	fd, err := oomEvent(m.Cgroups)
	if err == nil {
		w.event = os.NewFile(uintptr(fd), "out of memory")
	}
	return w
}

func oomEvent(paths map[string]string) (int, error) {
	if dir, ok := unified(paths); ok {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return -1, err
		}
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, "memory.events"), unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	dir := paths["memory"]
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err == nil {
		defer control.Close()
		err = os.WriteFile(filepath.Join(dir, "cgroup.event_control"), fmt.Appendf(nil, "%d %d", fd, control.Fd()), 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// watch runs until the end.
func (w *oomWatch) watch() {
	if w.event == nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := w.event.Read(buf)
		if err != nil || n == 8 && binary.NativeEndian.Uint64(buf) == 0 {
			return
		}
		// The event comes before the kill is counted; version 2 has events
		// that are about less.
		pause := 100 * time.Millisecond
		for range 5 {
			time.Sleep(20 * time.Millisecond)
			if w.record() {
				pause = oomPause
				break
			}
		}
		time.Sleep(pause)
	}
}

// record puts new kills on record and reports whether there were any.
func (w *oomWatch) record() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return true
	}
	kills := sandbox.OOMKills(w.m.Cgroups)
	if kills <= w.recorded {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	err := w.m.log.Post(ctx, audit.Record{Type: audit.RunOOM, Run: w.m.Run, Actor: w.m.actor, Data: w.m.oom(kills)})
	if err == nil {
		w.recorded = kills // or it comes with the end
	}
	return true
}

// end stops the recording and returns the kills that are on record.
func (w *oomWatch) end() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	return w.recorded
}

func (m *monitor) oom(kills uint64) audit.OOM {
	return audit.OOM{Kills: int64(kills), Limit: m.limits().Memory}
}

// limits are those in force.
func (m *monitor) limits() sandbox.Limits {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Limits
}

func recordedUsage(u sandbox.Usage) audit.Usage {
	return audit.Usage{
		CPUNanos: int64(u.CPUNanos), CPUUserNanos: int64(u.CPUUserNanos), CPUSystemNanos: int64(u.CPUSystemNanos),
		ThrottledNanos: int64(u.ThrottledNanos), MemoryPeakBytes: int64(u.MemoryPeakBytes), PIDsPeak: int64(u.PIDsPeak),
		PIDsRefused: int64(u.PIDsRefused), OOMKills: int64(u.OOMKills), ReadBytes: int64(u.ReadBytes), WriteBytes: int64(u.WriteBytes),
	}
}
