package launcher

import (
	"testing"
	"time"

	"github.com/ward-project/ward/sandbox"
)

// Over any time the use is what was saved up and the share, and what comes now
// and then never waits.
func TestPace(t *testing.T) {
	for _, quota := range []int64{0, 1_000, 10_000, 100_000, 400_000} {
		p := newPace(sandbox.Limits{CPUQuota: quota, CPUPeriod: 100_000})
		now, used := p.at, p.used
		begin, before := now, used
		for range 20_000 { // a millisecond for each piece, as fast as it may
			used += time.Millisecond
			now = now.Add(time.Millisecond)
			now = now.Add(p.owed(now, used))
		}
		share := max(0.05, float64(quota)/100_000)
		most := burst + time.Duration(share*float64(now.Sub(begin))) + time.Millisecond
		if used-before > most {
			t.Errorf("quota %d: %v in %v", quota, used-before, now.Sub(begin))
		}
		if share >= 1 && now.Sub(begin) != used-before {
			t.Errorf("quota %d: it waits although nothing more could be used", quota)
		}
		now = now.Add(time.Minute)
		if pause := p.owed(now, used); pause != 0 {
			t.Errorf("quota %d: after a minute without output it waits %v", quota, pause)
		}
		p.set(sandbox.Limits{CPUQuota: 100_000, CPUPeriod: 100_000})
		if pause := p.owed(now.Add(time.Hour), used+time.Hour); pause != 0 {
			t.Errorf("with another limit it waits %v", pause)
		}
	}
}
