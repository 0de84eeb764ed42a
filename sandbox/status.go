package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// Phase is where in its life a container is.
type Phase string

// The phases. A container that is starting or running, or has none yet, and
// whose lock nobody holds, has lost its monitor.
const (
	// PhaseCreated is a container that has not been started.
	PhaseCreated Phase = "created"
	// PhaseStarting is one on its way through the gate again.
	PhaseStarting Phase = "starting"
	PhaseRunning  Phase = "running"
	PhaseExited   Phase = "exited"
)

var phases = []Phase{PhaseCreated, PhaseStarting, PhaseRunning, PhaseExited}

// outputPrefix and outputSuffix surround the number of the start in the name
// of its output log.
const outputPrefix, outputSuffix = "out.", ".log"

// OutputFile is the name, in a container's directory, of the output log of its
// start number n, from 1.
func OutputFile(n int) string { return outputPrefix + strconv.Itoa(n) + outputSuffix }

// OutputStart is the number of the start whose output log has this file name,
// or 0 for any other file.
func OutputStart(name string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, outputPrefix), outputSuffix))
	if err != nil || n < 1 || name != OutputFile(n) {
		return 0
	}
	return n
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
	// DeniedSyscalls are the calls that were refused, the most frequent first.
	DeniedSyscalls []DeniedSyscall `json:"denied_syscalls,omitempty"`
}

// Status is a container's state as its monitor last wrote it.
type Status struct {
	Phase Phase `json:"phase"`
	// Run is the id of the start it is about and Start that start's number;
	// zero if there was none.
	Run   string `json:"run,omitempty"`
	Start int    `json:"start,omitempty"`
	// PID and MonitorPID are in the host's PID namespace.
	PID        int       `json:"pid"`
	MonitorPID int       `json:"monitor_pid"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	// Paused is so only in PhaseRunning.
	Paused bool `json:"paused,omitempty"`
	// Exit is set in PhaseExited only.
	Exit *Exit `json:"exit,omitempty"`
}

const (
	statusFile = "status.json"
	maxStatus  = 64 << 10
)

// ReadStatus reads what the monitor of the container in containerDir wrote:
// fault.NotFound if it has written nothing yet, fault.Invalid with rule
// "status.damaged" if a power cut spoiled it.
func ReadStatus(containerDir string) (Status, error) {
	name := filepath.Join(containerDir, statusFile)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{}, fault.New(fault.NotFound, "status.missing", "no monitor has reported in "+containerDir, "")
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
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return Status{}, damaged(err.Error())
	}
	if !slices.Contains(phases, s.Phase) {
		return Status{}, damaged("no phase")
	}
	return s, nil
}

// WriteStatus replaces the status of the container in containerDir. Readers
// see the old or the new one, also when the writer is killed half-way; a power
// cut may lose or damage it, which the next command takes for no status.
func WriteStatus(containerDir string, s Status) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return fsx.ReplaceFile(filepath.Join(containerDir, statusFile), append(b, '\n'), 0o600)
}
