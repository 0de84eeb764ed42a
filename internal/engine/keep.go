package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

// A keeper is a process of its own for each container that is to be started
// again when it ends, or whose health is to be watched. It has no standing
// with anybody: it goes through the gate like every other caller, and when it
// dies the next ward command starts another.
const (
	keepFile     = "keep.json"
	keeperLock   = "keeper.lock"
	nextLock     = "keeper.next"
	stoppedFile  = "stopped"
	keeperWait   = time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = time.Minute
	// steady is how long a container has to run for its next end to count as
	// the first.
	steady = 10 * time.Second
)

// RestartPolicy says when a container that has ended is started again. The
// zero value is never.
type RestartPolicy struct {
	// Name is "", "no", "on-failure", "always" or "unless-stopped".
	Name string `json:"name,omitempty"`
	// Max bounds the restarts of on-failure; 0 is no bound.
	Max int `json:"max,omitempty"`
}

// ParseRestart reads Docker's spelling: no, on-failure[:n], always,
// unless-stopped.
func ParseRestart(s string) (RestartPolicy, error) {
	bad := fault.New(fault.Invalid, "run.restart", fmt.Sprintf("--restart %.64q is not a restart policy", s), "use no, on-failure[:N], always or unless-stopped")
	name, max, hasMax := strings.Cut(s, ":")
	p := RestartPolicy{Name: name}
	switch {
	case name == "" || name == "no":
		p.Name = ""
	case name == "on-failure" && hasMax:
		n, err := strconv.Atoi(max)
		if err != nil || n < 0 || n > 1<<30 {
			return RestartPolicy{}, bad
		}
		p.Max, hasMax = n, false
	case name == "on-failure", name == "always", name == "unless-stopped":
	default:
		return RestartPolicy{}, bad
	}
	if hasMax {
		return RestartPolicy{}, bad
	}
	return p, nil
}

// String is Docker's spelling.
func (p RestartPolicy) String() string {
	if p.Name == "" {
		return "no"
	}
	return p.Name
}

// again reports whether a container that ended with code, after restarts by
// its keeper, is to be started again. One that somebody stopped is not, under
// any policy, until somebody starts it.
func (p RestartPolicy) again(code, restarts int, stopped bool) bool {
	switch {
	case stopped || p.Name == "":
		return false
	case p.Name == "on-failure":
		return code != 0 && (p.Max == 0 || restarts < p.Max)
	}
	return true
}

// Kept is what a keeper says of its container.
type Kept struct {
	// Restarts counts the starts by the keeper since somebody started it.
	Restarts int `json:"restarts"`
	// Next is when it will be started again; zero if it is not waiting.
	Next   time.Time `json:"next,omitzero"`
	Health *Health   `json:"health,omitempty"`
}

// kept is what the container's keeper last said; zero if it has none.
func (e *Engine) kept(c Container) Kept {
	var k Kept
	b, err := os.ReadFile(filepath.Join(e.layout.container(c.ID), keepFile))
	if err != nil || len(b) > maxRecord || json.Unmarshal(b, &k) != nil {
		return Kept{} // a report, never a ground to allow anything
	}
	return k
}

func (e *Engine) say(id string, k Kept) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return fsx.ReplaceFile(filepath.Join(e.layout.container(id), keepFile), b, 0o600)
}

// wantsKeeper reports whether somebody has to look after the container now.
func (e *Engine) wantsKeeper(c Container) bool {
	r := c.Request
	if r.Restart.Name == "" && r.Health == nil || c.Status.Phase == sandbox.PhaseCreated {
		return false
	}
	return c.live() || e.startsAgain(c)
}

func (e *Engine) startsAgain(c Container) bool {
	code := lostCode
	if c.Status.Exit != nil {
		code = c.Status.Exit.Code
	}
	return !c.Remove && c.Request.Restart.again(code, e.kept(c).Restarts, e.stopped(c.ID))
}

// keepIfAlone starts a keeper for a container that needs one and has none.
func (e *Engine) keepIfAlone(c Container) error {
	if e.keep == nil || !e.wantsKeeper(c) {
		return nil
	}
	for _, name := range []string{keeperLock, nextLock} {
		l, err := fsx.TryLock(filepath.Join(e.layout.container(c.ID), name))
		if errors.Is(err, fsx.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
			return nil // it has a keeper, or one is on its way
		}
		if err != nil {
			return err
		}
		if err := l.Unlock(); err != nil {
			return err
		}
	}
	return e.keep(c)
}

// markStopped remembers that somebody wanted the container to end.
func (e *Engine) markStopped(id string) error {
	return fsx.ReplaceFile(filepath.Join(e.layout.container(id), stoppedFile), nil, 0o600)
}

func (e *Engine) stopped(id string) bool {
	_, err := os.Lstat(filepath.Join(e.layout.container(id), stoppedFile))
	return !errors.Is(err, fs.ErrNotExist) // unreadable is stopped
}

// forgetStop begins a container's kept life anew: somebody starts it.
func (e *Engine) forgetStop(id string) error {
	var errs []error
	for _, name := range []string{stoppedFile, keepFile} {
		if err := os.Remove(filepath.Join(e.layout.container(id), name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Keep looks after one container until there is nothing left to do: it waits
// for each end, and starts the container again as its policy says, through
// the gate and with growing pauses. A start that is refused for good (not
// merely unavailable) is on record and ends it. Meanwhile the health is
// watched by probe.
func (e *Engine) Keep(ctx context.Context, id string, probe Prober) error {
	for {
		l, err := e.relieve(ctx, id)
		if err != nil || l == nil {
			return err
		}
		if err := errors.Join(e.keepHeld(ctx, id, probe), l.Unlock()); err != nil {
			return err
		}
		// Whoever started it again while there was still a keeper has started none.
		c, err := e.load(id)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.wantsKeeper(c) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// keepHeld looks after a container whose keeper's lock the caller holds.
func (e *Engine) keepHeld(ctx context.Context, id string, probe Prober) error {
	backoff := firstBackoff
	for {
		c, err := e.load(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.live() {
			if err := e.attend(ctx, c, probe); err != nil {
				return err
			}
			if err := e.reapOne(ctx, id); err != nil {
				return err
			}
			continue
		}
		if !e.wantsKeeper(c) {
			return nil
		}
		if c.Status.Finished.Sub(c.Status.Started) >= steady {
			backoff = firstBackoff
		}
		if err := e.pause(ctx, c, backoff); err != nil {
			return err
		}
		backoff = min(2*backoff, lastBackoff)
		if err := e.startKept(ctx, id); err != nil {
			return err
		}
	}
}

// relieve takes a container's keeping over; nil if another keeper has it, or it
// is gone. A command that looks whether there is a keeper holds its lock for a
// moment, so it is waited for, but by one keeper only: each command that finds
// none starts one, and they would all wait.
func (e *Engine) relieve(ctx context.Context, id string) (*fsx.Lock, error) {
	dir := e.layout.container(id)
	next, err := fsx.TryLock(filepath.Join(dir, nextLock))
	if errors.Is(err, fsx.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer next.Unlock()
	wait, cancel := context.WithTimeout(ctx, keeperWait)
	defer cancel()
	l, err := fsx.WaitLock(wait, filepath.Join(dir, keeperLock))
	if errors.Is(err, fsx.ErrLocked) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return l, err
}

// attend returns when the container has ended.
func (e *Engine) attend(ctx context.Context, c Container, probe Prober) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if c.Request.Health != nil && probe != nil {
			e.watch(ctx, c, probe)
		}
	}()
	err := e.await(ctx, c)
	cancel()
	<-watched
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// pause waits before a restart, and says so.
func (e *Engine) pause(ctx context.Context, c Container, d time.Duration) error {
	k := e.kept(c)
	k.Next, k.Health = time.Now().Add(d).UTC(), nil
	if err := e.say(c.ID, k); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// startKept starts the container again unless somebody was faster: started,
// stopped or removed it.
func (e *Engine) startKept(ctx context.Context, id string) error {
	c, err := e.load(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (c.live() || !e.startsAgain(c)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := replaced(); err != nil {
		return err
	}
	k := e.kept(c)
	k.Restarts, k.Next = k.Restarts+1, time.Time{}
	if err := e.say(id, k); err != nil {
		return err
	}
	started, err := e.pass(ctx, e.again(audit.Caller(), c), Stdio{})
	switch {
	case err == nil:
		return started.Process.Release()
	case !final(err), e.stopped(id):
		return nil // on record; tried again after the next pause, or stopped meanwhile
	default:
		// For good, until somebody starts it: the next keeper would only ask,
		// and be refused, again.
		return errors.Join(err, e.markStopped(id))
	}
}

// final reports whether asking once more would get the same answer: the gate
// has said no to what was asked. What was out of reach, broke on the way, or
// met somebody faster is another matter.
func final(err error) bool {
	f := fault.As(err)
	if f.Rule == "container.state" || f.Rule == "container.unknown" {
		return false
	}
	return slices.ContainsFunc([]error{fault.Denied, fault.Unverified, fault.Invalid, fault.NotFound}, func(c error) bool { return errors.Is(err, c) })
}

// ErrReplaced is how a keeper ends when there is another program now under the
// name it was started by: it has been upgraded, and the launcher beside it no
// longer takes this one's plans. Whoever ran the keeper runs the new program.
var ErrReplaced = errors.New("the program has been replaced")

func replaced() error {
	name, err := os.Executable()
	if err != nil {
		return err
	}
	there, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // being replaced at this moment, or gone: the start says so
	}
	if err != nil {
		return err
	}
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	if !os.SameFile(there, running) {
		return ErrReplaced
	}
	return nil
}
