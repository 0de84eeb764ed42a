package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// container is a libcontainer container that waits for its last step.
type container struct {
	ct      *libcontainer.Container
	init    *libcontainer.Process
	pid     int
	cgroups map[string]string
	// gate is the fifo whose opening lets the payload go.
	gate string
}

// prepare has libcontainer make the container of plan and stop before its
// payload: namespaces, mounts, limits, capabilities and filter are then set.
func prepare(p sandbox.Plan, s *scratch, io *pipes) (*container, error) {
	config, err := containerConfig(p, s)
	if err != nil {
		return nil, err
	}
	// The state is on the scratch and so never above this program's directory,
	// where libcontainer would copy the program on every start.
	ct, err := libcontainer.Create(s.path("state"), p.Container, config)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "launch.create", fmt.Errorf("create container: %w", err), "")
	}
	if err := cgroupTree(p, s); err != nil {
		return nil, errors.Join(err, ct.Destroy())
	}
	init := &libcontainer.Process{
		Init:             true,
		Args:             p.Process.Args,
		Env:              withHome(p.Process.Env),
		Cwd:              p.Process.Cwd,
		UID:              int(p.Process.UID),
		GID:              int(p.Process.GID),
		AdditionalGroups: groups(p.Process.Groups),
		Stdin:            io.stdin,
		Stdout:           io.stdout,
		Stderr:           io.stderr,
		ExtraFiles:       []*os.File{io.executed}, // initExecuted
	}
	err = ct.Start(init)
	io.closePayloadEnds()
	if err != nil {
		if reason := missing(); reason != nil {
			err = reason
		} else {
			err = startError(err, p.Process.Args[0])
		}
		return nil, errors.Join(err, ct.Destroy())
	}
	c := &container{ct: ct, init: init, gate: s.path("state", p.Container, "exec.fifo")}
	if err := c.inspect(); err != nil {
		return nil, errors.Join(err, c.destroy())
	}
	return c, nil
}

// withHome returns env with a home directory. Without one libcontainer reads
// the image's /etc/passwd, and if that is a fifo never returns (the class of
// CVE-2024-9676).
func withHome(env []string) []string {
	for _, e := range slices.Backward(env) { // the last one counts
		if v, ok := strings.CutPrefix(e, "HOME="); ok && v != "" {
			return env
		} else if ok {
			break
		}
	}
	return append(slices.Clone(env), "HOME=/")
}

func (c *container) inspect() error {
	var err error
	if c.pid, err = c.init.Pid(); err != nil {
		return err
	}
	state, err := c.ct.State()
	if err != nil {
		return fmt.Errorf("container state: %w", err)
	}
	c.cgroups = state.CgroupPaths
	// The monitor has no capability to open it against its mode. Nobody else
	// can reach it: it is on the scratch, which the container has left.
	return os.Chmod(c.gate, 0o666)
}

// destroy kills what runs and removes the cgroups.
func (c *container) destroy() error {
	pid, err := c.init.Pid()
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill container: %w", err)
	}
	c.init.Wait() // its exit status says nothing after SIGKILL
	return c.ct.Destroy()
}

func groups(ids []uint32) []int {
	var out []int
	for _, id := range ids {
		out = append(out, int(id))
	}
	return out
}

// startError tells a payload that cannot be executed from a container that
// cannot be made. libcontainer carries init's errors as text; the text matched
// here is exec.LookPath's, as this program's own init wrote it.
func startError(err error, arg0 string) error {
	_, cause, found := strings.Cut(err.Error(), "error during container init: exec: "+strconv.Quote(arg0)+": ")
	if found {
		return execError(arg0, cause)
	}
	return fault.Wrap(fault.Unavailable, "launch.container", fmt.Errorf("start container: %w", err), "")
}

// execError classifies the reason for which arg0 was not executed.
func execError(arg0, cause string) error {
	for _, missing := range []string{"executable file not found in $PATH", unix.ENOENT.Error(), fs.ErrNotExist.Error()} {
		if strings.HasSuffix(cause, missing) {
			return &sandbox.StartError{Code: 127, Err: fault.New(fault.NotFound, "launch.not-found",
				fmt.Sprintf("%q: %s", arg0, cause), "name a program that is in the image")}
		}
	}
	return &sandbox.StartError{Code: 126, Err: fault.New(fault.Invalid, "launch.not-executable",
		fmt.Sprintf("%q: %s", arg0, cause), "name a program of this architecture with execute permission")}
}
