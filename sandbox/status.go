package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// Phase is where in its life a container is.
type Phase string

// The phases, in order. A container whose phase is not PhaseExited and whose
// lock nobody holds has lost its monitor.
const (
	PhaseCreated Phase = "created"
	PhaseRunning Phase = "running"
	PhaseExited  Phase = "exited"
)

// Usage is what the container used over its life. A figure the kernel does
// not offer is zero.
type Usage struct {
	CPUNanos        uint64 `json:"cpu_nanos"`
	MemoryPeakBytes uint64 `json:"memory_peak_bytes"`
	PIDsPeak        uint64 `json:"pids_peak"`
	// OOMKills counts processes killed for memory, PIDsRefused forks refused.
	OOMKills    uint64 `json:"oom_kills"`
	PIDsRefused uint64 `json:"pids_refused"`
}

// Exit is how a container ended.
type Exit struct {
	// Code is the payload's exit status, or 128 plus Signal.
	Code int `json:"code"`
	// Signal ended the payload, or is 0.
	Signal int `json:"signal"`
	// OOMKilled says that the payload itself was killed for memory.
	OOMKilled bool `json:"oom_killed"`
	// Error says what went wrong in the monitor, or is "".
	Error    string    `json:"error,omitempty"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Usage    Usage     `json:"usage"`
}

// Status is a container's state as its monitor last wrote it.
type Status struct {
	Phase Phase `json:"phase"`
	// PID and MonitorPID are in the host's PID namespace.
	PID        int       `json:"pid"`
	MonitorPID int       `json:"monitor_pid"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	// Exit is set in PhaseExited only.
	Exit *Exit `json:"exit,omitempty"`
}

const (
	statusFile = "status.json"
	maxStatus  = 64 << 10
)

// ReadStatus reads what the monitor of the container in containerDir wrote;
// fault.NotFound if it has written nothing yet.
func ReadStatus(containerDir string) (Status, error) {
	name := filepath.Join(containerDir, statusFile)
	for try := 0; ; try++ {
		s, err := readStatus(name)
		if err == nil || fault.ClassOf(err) != fault.Invalid || try == statusTries {
			return s, err
		}
		time.Sleep(time.Millisecond) // it was being written
	}
}

// statusTries is how often ReadStatus reads a status that makes no sense
// before it calls it damaged. Writing one is a single short system call.
const statusTries = 50

func readStatus(name string) (Status, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{}, fault.New(fault.NotFound, "status.missing", "no monitor has reported in "+filepath.Dir(name), "")
	}
	if err != nil {
		return Status{}, err
	}
	defer f.Close()
	damaged := func(why string) error {
		return fault.New(fault.Invalid, "status.damaged", name+": "+why, "")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxStatus+1))
	if err != nil {
		return Status{}, err
	}
	if len(b) > maxStatus {
		return Status{}, damaged("too large")
	}
	line, rest, whole := bytes.Cut(b, []byte{'\n'})
	if !whole || len(bytes.Trim(rest, " ")) > 0 {
		return Status{}, damaged("not one whole line")
	}
	var s Status
	if err := json.Unmarshal(line, &s); err != nil {
		return Status{}, damaged(err.Error())
	}
	return s, nil
}

// WriteStatus replaces the status of the container in containerDir, in place:
// a new file for each of a short run's two states costs more than writing
// them. ReadStatus copes with reading in between; there is one writer, the
// monitor. A power cut may lose or damage it: it means nothing after a reboot,
// and the next command finds the container lost from its lock and the log.
func WriteStatus(containerDir string, s Status) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	f, err := os.OpenFile(filepath.Join(containerDir, statusFile), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	// Blanks over the rest of a longer one instead of cutting it off: one
	// system call, so that a reader sees two states at most.
	if st, err := f.Stat(); err == nil && st.Size() > int64(len(b)) {
		b = append(b, bytes.Repeat([]byte{' '}, int(min(st.Size(), maxStatus))-len(b))...)
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}
