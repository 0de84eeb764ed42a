package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fsx"
)

// Cursor says how far a destination has acknowledged. It is written after the
// acknowledgement and never before: an older one makes duplicates, a newer one
// would make a gap.
type Cursor struct {
	V    int    `json:"v"`
	Name string `json:"name"`
	// To and Format are what it was begun with; another destination under the
	// same name would have a gap at its beginning.
	To     string `json:"to"`
	Format string `json:"format"`
	// Next is the index of the first record that was not acknowledged, At a
	// place in the log at or before it, with the tree up to there.
	Next int64          `json:"next"`
	At   audit.Position `json:"at"`
	// Sink is what the destination itself has to remember.
	Sink json.RawMessage `json:"sink,omitempty"`
}

const (
	cursorVersion = 1
	maxCursor     = 64 << 10
)

// Status is what an exporter says about itself, for people and monitoring.
// Nothing is decided by it.
type Status struct {
	Name   string `json:"name"`
	To     string `json:"to"`
	Format string `json:"format"`
	// Running says that an exporter has the cursor now.
	Running bool `json:"running"`
	// Next is the first record not acknowledged, Size how many the log has, Lag
	// the difference.
	Next int64 `json:"next"`
	Size int64 `json:"size"`
	Lag  int64 `json:"lag"`
	// Sent is when something was last acknowledged, Failing since when nothing
	// is, Error why.
	Sent    time.Time `json:"sent,omitzero"`
	Failing time.Time `json:"failing,omitzero"`
	Error   string    `json:"error,omitempty"`
	PID     int       `json:"pid,omitempty"`
}

// stateDir is where cursors are, beside the log's own files.
func stateDir(auditDir string) string { return filepath.Join(auditDir, "export") }

// checkName keeps a cursor's name one that files can have.
func checkName(name string) error {
	const ok = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if name == "" || len(name) > 100 || name[0] == '.' || strings.Trim(name, ok) != "" {
		return fmt.Errorf("%w: %.120q is not a name: letters, digits, '.', '_' and '-', at most 100", ErrConfig, name)
	}
	return nil
}

type state struct{ dir, name string }

func (s state) path(kind string) string { return filepath.Join(s.dir, s.name+"."+kind) }

// lock makes this process the only one with the cursor.
func (s state) lock() (*fsx.Lock, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	// Whoever asks for the status has it for a moment.
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	l, err := fsx.WaitLock(ctx, s.path("lock"))
	if errors.Is(err, fsx.ErrLocked) {
		err = fmt.Errorf("%w: %s", ErrLocked, s.name)
	}
	return l, err
}

// load reads the cursor; there may be none.
func (s state) load() (*Cursor, error) {
	b, err := readBounded(s.path("cursor"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var c Cursor
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && (c.V != cursorVersion || c.Name != s.name || c.Next < c.At.Size()) {
		err = errors.New("is not a cursor of this version and name")
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrCursor, s.path("cursor"), err)
	}
	return &c, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxCursor+1)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		if n += m; err != nil {
			break
		}
	}
	if n > maxCursor {
		return nil, errors.New("too large")
	}
	return b[:n], nil
}

// save writes the cursor. Durable costs a flush; without it a power cut may
// bring an older one back, and with it duplicates.
func (s state) save(c *Cursor, durable bool) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	write := fsx.ReplaceFile
	if durable {
		write = fsx.WriteFile
	}
	if err := write(s.path("cursor"), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrCursor, err)
	}
	return nil
}

// Forget removes a cursor: the next export under its name begins anew.
func Forget(auditDir, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	s := state{stateDir(auditDir), name}
	if _, err := os.Lstat(s.path("cursor")); err != nil {
		return fmt.Errorf("%w %s: %w", ErrCursor, name, err)
	}
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	// The lock's file stays: removing it would let two have it.
	for _, kind := range []string{"status", "cursor"} {
		if err := os.Remove(s.path(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// List says how each destination of the log in auditDir stands. A cursor that
// cannot be read is in the list with its error.
func List(auditDir string) ([]Status, error) {
	dir := stateDir(auditDir)
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, size, err := audit.Head(auditDir)
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, e := range es {
		name, ok := strings.CutSuffix(e.Name(), ".cursor")
		if !ok || checkName(name) != nil {
			continue
		}
		out = append(out, state{dir, name}.status(size))
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s state) status(size int64) Status {
	var st Status
	if b, err := readBounded(s.path("status")); err == nil && json.Unmarshal(b, &st) != nil {
		st = Status{}
	}
	st.Name, st.Size = s.name, size
	c, err := s.load()
	if err != nil || c == nil {
		st.Error = fmt.Sprint(err)
		return st
	}
	st.To, st.Format, st.Next, st.Lag = c.To, c.Format, c.Next, max(size-c.Next, 0)
	if _, err := os.Lstat(s.path("lock")); err != nil {
		st.PID = 0
		return st
	}
	l, err := fsx.TryLock(s.path("lock"))
	if st.Running = errors.Is(err, fsx.ErrLocked); !st.Running {
		st.PID = 0
	}
	if err == nil {
		l.Unlock() // nothing was written
	}
	return st
}
