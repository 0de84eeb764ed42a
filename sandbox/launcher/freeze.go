package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// freezeTime bounds how long the kernel may take to stop every process.
const freezeTime = 5 * time.Second

// freezer is the container's, of either version.
type freezer struct {
	// write is the file that commands, with what stops and what lets go.
	write, stop, run string
	// read is the file that tells, with what it says when all is stopped.
	read, stopped string
}

func freezerOf(paths map[string]string) freezer {
	if dir, ok := unified(paths); ok {
		return freezer{filepath.Join(dir, "cgroup.freeze"), "1", "0", filepath.Join(dir, "cgroup.events"), "frozen 1"}
	}
	state := filepath.Join(paths["freezer"], "freezer.state")
	return freezer{state, "FROZEN", "THAWED", state, "FROZEN"}
}

func (f freezer) set(word string) error {
	file, err := os.OpenFile(f.write, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(word)
	return errors.Join(err, file.Close())
}

// freeze returns when all processes have stopped, or has let them go again.
func (f freezer) freeze() error {
	for end := time.Now().Add(freezeTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		// Again and again: a process that forks may be missed by one command.
		if err := f.set(f.stop); err != nil {
			return err
		}
		b, err := os.ReadFile(f.read)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == f.stopped {
				return nil
			}
		}
	}
	return errors.Join(errors.New("not all processes stopped in time"), f.set(f.run))
}

func pausedFault(cause, remedy string) error {
	return fault.New(fault.Invalid, "container.paused", cause, remedy)
}

func (m *monitor) pause() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status.Paused {
		return pausedFault("the container is paused already", "let it go on: ward unpause")
	}
	if err := m.alive(); err != nil {
		return err
	}
	if err := freezerOf(m.Cgroups).freeze(); err != nil {
		return fault.Wrap(fault.Unavailable, "monitor.freeze", fmt.Errorf("stop the processes: %w", err), "try again")
	}
	return m.setPaused(true)
}

func (m *monitor) resume() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.status.Paused {
		return pausedFault("the container is not paused", "see how it is: ward ps -a")
	}
	return m.thaw()
}

// thaw lets all go on; m.mu is held.
func (m *monitor) thaw() error {
	f := freezerOf(m.Cgroups)
	if err := f.set(f.run); err != nil {
		return fault.Wrap(fault.Unavailable, "monitor.freeze", err, "try again")
	}
	return m.setPaused(false)
}

// setPaused says how it is where other commands look; m.mu is held.
func (m *monitor) setPaused(paused bool) error {
	m.status.Paused = paused
	return sandbox.WriteStatus(m.ContainerDir, m.status)
}

// alive refuses when the payload has ended; m.mu is held, which keeps the end
// from being written meanwhile.
func (m *monitor) alive() error {
	if m.status.Phase != sandbox.PhaseRunning {
		return fault.New(fault.NotFound, "monitor.gone", "the container has ended", "")
	}
	return nil
}

// killPaused lets a paused container die: what version 1's freezer holds does
// not act even on SIGKILL. Other signals wait until it goes on.
func (m *monitor) killPaused(sig syscall.Signal) error {
	if sig != unix.SIGKILL {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.status.Paused {
		return nil
	}
	return m.thaw()
}
