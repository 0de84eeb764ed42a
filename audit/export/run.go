package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fsx"
)

// Config says what to export where.
type Config struct {
	// Dir is the audit log's directory, VKey its public key from elsewhere.
	Dir, VKey string
	// Name is the cursor's; empty keeps none, and begins at From each time.
	Name string
	// To is the destination, opened by ParseDestination.
	To Destination
	// Format is how events are written.
	Format Format
	// Follow goes on until ctx ends; otherwise it ends with the log.
	Follow bool
	// From is the first record for a cursor that is new, Now its end.
	From int64
	Now  bool
	// Batch is how many events are sent at once, MaxBytes the largest event
	// that is sent whole (0: any), NoRecord leaves all records out.
	Batch    int
	MaxBytes int
	NoRecord bool
	// Patience is how long a receiver that does not answer is tried; 0 is for
	// ever.
	Patience time.Duration
	// Say reports trouble that is being dealt with, one line each; or nil.
	Say func(string)
}

// sink is a destination.
type sink interface {
	// send returns once the receiver has acknowledged all of ms. An error that
	// is not ErrRefused may pass: the same is sent again.
	send(ctx context.Context, ms []message) error
	// state is what the cursor keeps for the sink.
	state() json.RawMessage
	close() error
}

const (
	defaultBatch = 500
	maxBatch     = 5000
	// batchBytes bounds one message to a receiver; a larger event goes alone.
	batchBytes = 4 << 20
	poll       = 100 * time.Millisecond
)

// Run exports until the log's end, or with Follow until ctx ends. Its error is
// nil, ctx's, or says what must be mended first.
func Run(ctx context.Context, cfg Config) (err error) {
	x, err := open(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := x.close(err); err == nil {
			err = cerr
		}
	}()
	for {
		n, err := x.round(ctx)
		switch {
		case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return nil // asked to stop, with the cursor where the receiver is
		case err != nil:
			return err
		case n > 0:
			continue
		case !cfg.Follow:
			return nil
		}
		x.report(nil, false)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(poll, cfg.To.pause)):
		}
	}
}

type exporter struct {
	Config
	state  state
	lock   *fsx.Lock
	reader *audit.Follower
	cursor *Cursor
	sink   sink

	failing, reported, saved time.Time
	sent                     time.Time
}

func open(cfg Config) (_ *exporter, err error) {
	if cfg.Batch == 0 {
		cfg.Batch = defaultBatch
	}
	if cfg.Batch < 1 || cfg.Batch > maxBatch || cfg.MaxBytes < 0 || cfg.From < 0 || cfg.To.open == nil || cfg.Format.encode == nil {
		return nil, fmt.Errorf("%w: batch 1 to %d, sizes and indexes not below zero", ErrConfig, maxBatch)
	}
	x := &exporter{Config: cfg, state: state{stateDir(cfg.Dir), cfg.Name}}
	defer func() {
		if err != nil && x.lock != nil {
			x.lock.Unlock()
		}
	}()
	if cfg.Name != "" {
		if err := checkName(cfg.Name); err != nil {
			return nil, err
		}
		if _, _, err := audit.Head(cfg.Dir); err != nil {
			return nil, err
		}
		if x.lock, err = x.state.lock(); err != nil {
			return nil, err
		}
		if x.cursor, err = x.state.load(); err != nil {
			return nil, err
		}
	}
	if err := x.place(); err != nil {
		return nil, err
	}
	if x.reader, err = audit.NewFollower(cfg.Dir, cfg.VKey, x.cursor.At); err != nil {
		return nil, err
	}
	if x.sink, err = cfg.To.open(x.cursor.Sink); err != nil {
		return nil, errors.Join(err, x.reader.Close())
	}
	// What the sink has to remember must be on disk before it writes.
	return x, x.save(true)
}

// place makes a new cursor, or checks that the one there is this export's.
func (x *exporter) place() error {
	c := x.cursor
	if c == nil {
		next := x.From
		if x.Now {
			_, size, err := audit.Head(x.Dir)
			if err != nil {
				return err
			}
			next = size
		}
		x.cursor = &Cursor{V: cursorVersion, Name: x.Name, To: x.To.Name, Format: x.Format.Name, Next: next}
		return nil
	}
	if c.To != x.To.Name || c.Format != x.Format.Name {
		return fmt.Errorf("%w %s: begun for %s as %s", ErrCursor, x.Name, c.To, c.Format)
	}
	if x.From > 0 || x.Now {
		return fmt.Errorf("%w %s: stands at record %d already", ErrCursor, x.Name, c.Next)
	}
	return nil
}

func (x *exporter) close(cause error) error {
	err := x.sink.close()
	if cause == nil {
		err = errors.Join(err, x.save(true))
	}
	x.report(cause, true)
	if x.lock != nil {
		err = errors.Join(err, x.lock.Unlock())
	}
	return errors.Join(err, x.reader.Close())
}

// round sends what the log has next and returns how many records that were.
func (x *exporter) round(ctx context.Context) (int, error) {
	records, err := x.reader.Next(x.Batch)
	if err != nil {
		return 0, err
	}
	at := x.reader.Position()
	var ms []message
	size := 0
	for _, r := range records {
		if r.Index < x.cursor.Next {
			continue
		}
		m := x.Format.form(newEvent(at.Origin(), r), !x.NoRecord, x.MaxBytes)
		if len(ms) > 0 && (len(ms) >= x.Batch || size+len(m.body) > batchBytes) {
			if err := x.deliver(ctx, ms); err != nil {
				return 0, err
			}
			ms, size = nil, 0
		}
		ms, size = append(ms, m), size+len(m.body)
	}
	if len(ms) > 0 {
		if err := x.deliver(ctx, ms); err != nil {
			return 0, err
		}
	}
	if len(records) == 0 {
		return 0, ctx.Err()
	}
	x.cursor.At, x.cursor.Next = at, max(x.cursor.Next, at.Size())
	return len(records), errors.Join(ctx.Err(), x.save(false))
}

// deliver sends until it is acknowledged, and then moves the cursor.
func (x *exporter) deliver(ctx context.Context, ms []message) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := x.sink.send(ctx, ms)
		if err == nil {
			break
		}
		if errors.Is(err, ErrRefused) {
			return fmt.Errorf("records %d to %d: %w", ms[0].Index, ms[len(ms)-1].Index, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if x.failing.IsZero() {
			x.failing = time.Now()
		}
		x.report(err, true)
		if x.Patience > 0 && time.Since(x.failing) > x.Patience {
			return fmt.Errorf("%w: records from %d on: %w", ErrUnavailable, ms[0].Index, err)
		}
		pause := wait/2 + rand.N(wait) // so that many exporters do not come back at once
		if l := (later{}); errors.As(err, &l) && l.after > pause {
			pause = min(l.after, maxLater)
		}
		if x.Say != nil {
			x.Say(fmt.Sprintf("%s: %v; again in %s", x.To.Name, err, pause.Round(time.Millisecond)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	x.failing, x.sent = time.Time{}, time.Now()
	x.cursor.Next = ms[len(ms)-1].Index + 1
	if err := x.save(false); err != nil {
		return err
	}
	x.report(nil, false)
	return nil
}

const (
	firstWait = 100 * time.Millisecond
	lastWait  = 30 * time.Second
	maxLater  = 5 * time.Minute
)

// save writes the cursor, with a flush once a second at most.
func (x *exporter) save(durable bool) error {
	if x.Name == "" {
		return nil
	}
	if time.Since(x.saved) > time.Second {
		durable = true
	}
	x.cursor.Sink = x.sink.state()
	if err := x.state.save(x.cursor, durable); err != nil {
		return err
	}
	if durable {
		x.saved = time.Now()
	}
	return nil
}

// report writes the status file, once a second at most unless it is urgent.
// That it cannot be written must not end the export.
func (x *exporter) report(trouble error, urgent bool) {
	if x.Name == "" || !urgent && time.Since(x.reported) < time.Second {
		return
	}
	x.reported = time.Now()
	s := Status{Name: x.Name, To: x.To.Name, Format: x.Format.Name, Next: x.cursor.Next, Sent: x.sent, Failing: x.failing, PID: os.Getpid()}
	if trouble != nil && !errors.Is(trouble, context.Canceled) {
		s.Error = clip(plain(trouble.Error()), 1000)
		if s.Failing.IsZero() {
			s.Failing = time.Now()
		}
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = fsx.ReplaceFile(x.state.path("status"), append(b, '\n'), 0o600)
	}
	if err != nil && x.Say != nil {
		x.Say(fmt.Sprintf("status not written: %v", err))
	}
}
