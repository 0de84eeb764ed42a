package launcher

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

const (
	// leastShare is what a monitor may always use of a processor.
	leastShare = 0.05
	// burst is how much time on a processor can be saved up: what comes now and
	// then, and what a short run writes, never waits.
	burst = 100 * time.Millisecond
	// longestPause bounds a wait, whatever else used the processor meanwhile.
	longestPause = 250 * time.Millisecond
)

// pace keeps the monitor, which is outside its container's cgroups, from using
// more of a processor for the container's output than the container may use
// itself. Who writes faster than that waits at a full pipe; nothing is lost.
type pace struct {
	mu sync.Mutex
	// share is of one processor; credit is in time on it.
	share  float64
	credit time.Duration
	at     time.Time
	used   time.Duration
}

func newPace(l sandbox.Limits) *pace {
	p := &pace{credit: burst, at: time.Now(), used: processorTime()}
	p.set(l)
	return p
}

// set takes the share of the container's limits.
func (p *pace) set(l sandbox.Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.share = max(leastShare, float64(l.CPUQuota)/float64(max(l.CPUPeriod, 1)))
}

// wait returns when there is credit again.
func (p *pace) wait() {
	if pause := p.owed(time.Now(), processorTime()); pause > 0 {
		time.Sleep(pause)
	}
}

// owed is how long to wait, at a time and after so much use.
func (p *pace) owed(now time.Time, used time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.credit += time.Duration(p.share*float64(now.Sub(p.at))) - (used - p.used)
	p.credit = min(p.credit, burst)
	p.at, p.used = now, used
	if p.credit >= 0 {
		return 0
	}
	return min(longestPause, time.Duration(float64(-p.credit)/p.share))
}

// processorTime is what all threads of this process have used.
func processorTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil { // cannot be, of oneself
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
