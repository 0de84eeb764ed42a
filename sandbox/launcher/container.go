package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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
	stage   *stage
	// listener is where the payload's refused calls are answered.
	listener *os.File
}

// prepare has libcontainer make the container of plan and stop before its
// payload: namespaces, mounts, limits, capabilities and filter are then set,
// and the stage waits at its gate.
func prepare(p sandbox.Plan, s *scratch, io *pipes) (*container, error) {
	if err := weighs(p.Limits); err != nil {
		return nil, err
	}
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
	in, err := domainOf(p.Landlock)
	if err != nil {
		return nil, errors.Join(err, ct.Destroy())
	}
	st, err := newStage(p.Process, p.Seccomp, in)
	if err != nil {
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
	}
	io.outfit(init)
	st.outfit(init)
	err = io.started(ct.Start(init))
	st.started()
	if err != nil {
		if reason := missing(p.Limits); reason != nil {
			err = reason
		} else {
			err = fault.Wrap(fault.Unavailable, "launch.container", fmt.Errorf("start container: %w", err), "")
		}
		return nil, errors.Join(err, ct.Destroy())
	}
	c := &container{ct: ct, init: init, stage: st}
	if err := c.inspect(s.path("state", p.Container, "exec.fifo"), p.Process.Args[0]); err != nil {
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

// inspect lets init execute the stage and learns what the monitor needs.
func (c *container) inspect(fifo, arg0 string) error {
	var err error
	if c.pid, err = c.init.Pid(); err != nil {
		return err
	}
	state, err := c.ct.State()
	if err != nil {
		return fmt.Errorf("container state: %w", err)
	}
	c.cgroups = state.CgroupPaths
	// Without blocking: an init that died meanwhile would never open its end.
	gate, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer gate.Close()
	c.listener, err = c.stage.arrived(c.pid, arg0)
	return err
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
