package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// OCIOperate is the main function of ward-launch for requests about containers
// that exist: what they print goes to standard output, an error to the caller
// of this program.
func OCIOperate() {
	err := ociOperate()
	if err != nil {
		ociFail(err)
	}
	os.Exit(0)
}

func ociOperate() error {
	ociLog()
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	b, err := readSealed(sandbox.FDPlan, sandbox.MaxOCIPlan)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	var r sandbox.OCIRequest
	if err := json.Unmarshal(b, &r); err != nil {
		return fault.Wrap(fault.Invalid, "oci.request", err, "")
	}
	switch r.Op {
	case sandbox.OCIList:
		err = ociList(r)
	case sandbox.OCIFeatures:
		err = ociFeatures()
	case sandbox.OCISpec:
		err = ociExample(r)
	default:
		err = ociOn(r)
	}
	if err != nil {
		return ociError("", err)
	}
	return nil
}

// ociOn does what is asked with one container.
func ociOn(r sandbox.OCIRequest) error {
	ct, err := loadOCI(r.Root, r.ID)
	if err == nil && r.Run != "" {
		// What was loaded is of this run, or of one that has ended.
		err = ociSameRun(filepath.Join(r.Root, r.ID), r.Run)
	}
	if err != nil {
		return err
	}
	switch r.Op {
	case sandbox.OCIStart:
		return ociStart(ct)
	case sandbox.OCIState:
		return ociState(ct)
	case sandbox.OCIKill:
		return ociKill(ct, r)
	case sandbox.OCIDelete:
		return ociDelete(ct, r)
	case sandbox.OCIPs:
		return ociPs(ct, r)
	case sandbox.OCIPause:
		return ct.Pause()
	case sandbox.OCIResume:
		return ct.Resume()
	case sandbox.OCIUpdate:
		return ociUpdate(ct, r)
	case sandbox.OCIEvents:
		return ociEvents(ct, r)
	default:
		return fault.New(fault.Invalid, "oci.request", fmt.Sprintf("%.20q is not a request", string(r.Op)), "")
	}
}

func loadOCI(root, id string) (*libcontainer.Container, error) {
	if id == "" {
		return nil, errors.New("container id cannot be empty")
	}
	if id != filepath.Base(id) || id == ".." || id == "." {
		return nil, libcontainer.ErrInvalidID
	}
	return libcontainer.Load(filepath.Join(root, id, sandbox.OCIStateDir), id)
}

func ociStart(ct *libcontainer.Container) error {
	status, err := ct.Status()
	if err != nil {
		return err
	}
	switch status {
	case libcontainer.Created:
		return ct.Exec()
	case libcontainer.Stopped:
		return errors.New("cannot start a container that has stopped")
	case libcontainer.Running:
		return errors.New("cannot start an already running container")
	default:
		return fmt.Errorf("cannot start a container in the %s state", status)
	}
}

func ociKill(ct *libcontainer.Container, r sandbox.OCIRequest) error {
	err := ct.Signal(unix.Signal(r.Signal))
	if r.All && errors.Is(err, libcontainer.ErrNotRunning) {
		return nil
	}
	return err
}

func ociDelete(ct *libcontainer.Container, r sandbox.OCIRequest) error {
	status, err := ct.Status()
	if err != nil {
		return err
	}
	switch {
	case r.Force || status == libcontainer.Created:
		return ociDestroy(ct)
	case status == libcontainer.Stopped:
		return ct.Destroy()
	default:
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", ct.ID(), status)
	}
}

// ociDestroy kills what runs, waits for its end, and removes the container.
func ociDestroy(ct *libcontainer.Container) error {
	_ = ct.Signal(unix.SIGKILL) // that it has ended already is as good
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err := ct.Signal(unix.Signal(0)); err != nil {
			return ct.Destroy()
		}
	}
	return errors.New("container init still running")
}
