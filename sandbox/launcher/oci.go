package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/cgroups/systemd"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// OCI is the main function of ward-launch as ward-oci starts it to create a
// container, or to start a process in one. It works in its caller's namespaces,
// where the paths of a bundle mean something and its hooks run, and does not
// stay: what it has started is then a child of ward-oci's own caller.
func OCI() {
	err := ociLaunch()
	if err == nil {
		os.Exit(0)
	}
	ociFail(err)
}

func ociFail(err error) {
	m := sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err)}
	if err := sandbox.Send(sandbox.FDControl, m); err != nil {
		fmt.Fprintln(os.Stderr, "ward-launch:", err, "while reporting:", m.Error.Cause)
	}
	os.Exit(1)
}

// ociLaunch is a whole start, top to bottom: nothing is made before plan and
// receipt are accepted, and the container exists for nobody before its monitor
// watches it.
func ociLaunch() error {
	ociLog()
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	plan, index, err := acceptOCI()
	if err != nil {
		return err
	}
	if plan.Op == sandbox.OCIExec {
		return ociExec(plan, index)
	}
	return ociCreate(plan)
}

// ociLog has libcontainer's warnings go to the caller's log file.
func ociLog() {
	logrus.SetOutput(os.NewFile(sandbox.FDOCILog, "log"))
	logrus.SetFormatter(new(logrus.JSONFormatter))
	logrus.SetLevel(logrus.WarnLevel)
}

// acceptOCI is accept for the plans of OCI callers. Index is the intent's place
// in the log.
func acceptOCI() (plan sandbox.OCIPlan, index int64, err error) {
	raw, err := readSealed(sandbox.FDPlan, sandbox.MaxOCIPlan)
	if err != nil {
		return plan, 0, fmt.Errorf("plan: %w", err)
	}
	proof, err := readSealed(sandbox.FDReceipt, receipt.MaxSize)
	if err != nil {
		return plan, 0, fmt.Errorf("receipt: %w", err)
	}
	if plan, err = sandbox.DecodeOCIPlan(raw); err != nil {
		return plan, 0, err
	}
	if plan.Build != sandbox.Build {
		return plan, 0, fault.New(fault.Unavailable, "launcher.build",
			fmt.Sprintf("the plan is of build %q and this launcher of build %q", plan.Build, sandbox.Build),
			"install ward-oci and ward-launch from the same build")
	}
	if err := sandbox.DefaultFloor().CheckOCI(plan); err != nil {
		return plan, 0, err
	}
	st, err := statement(plan.AuditDir, audit.OCIIntent, plan.Run, raw, proof)
	return plan, st.Index, err
}

// ociCreate makes the container, waiting before its payload, and hands it to
// its monitor.
func ociCreate(plan sandbox.OCIPlan) error {
	var spec specs.Spec
	if err := json.Unmarshal([]byte(plan.Spec), &spec); err != nil {
		return fault.Wrap(fault.Invalid, "oci.spec", err, "")
	}
	config, err := ociConfig(plan, &spec)
	if err != nil {
		return ociError("", err)
	}
	if err := ociNoteCgroups(plan.StateDir, config.Cgroups); err != nil {
		return ociError("", err)
	}
	sources, err := openSources(plan, config)
	if err != nil {
		return ociError("", err)
	}
	defer sources.close()
	ct, err := libcontainer.Create(filepath.Join(plan.StateDir, sandbox.OCIStateDir), plan.ID, config)
	if err != nil {
		return ociError("", err)
	}
	process, err := ociProcess(plan, spec.Process, sources.theirs)
	if err == nil {
		process.Init = true
		err = ct.Start(process)
		if serr := sources.finish(); serr != nil {
			err = serr
		}
	}
	if err == nil {
		var pid int
		if pid, err = process.Pid(); err == nil {
			err = sources.checkRoot(pid)
		}
	}
	if err == nil {
		err = ociHandOver(plan, ct, process)
	}
	if err == nil {
		return nil
	}
	if process != nil { // else not even made
		if pid, perr := process.Pid(); perr == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = process.Wait() // its exit status says nothing after SIGKILL
		}
	}
	return errors.Join(ociError("", err), ct.Destroy())
}

// ociNoteCgroups puts down where the container's cgroups will be, for who has
// to remove them if this process is killed before libcontainer has a state.
func ociNoteCgroups(dir string, c *cgroups.Cgroup) error {
	m, err := manager.New(c)
	if err != nil {
		return err
	}
	return sandbox.NoteOCICgroups(dir, m.GetPaths())
}

// ociConfig translates the specification with libcontainer's own converter.
func ociConfig(plan sandbox.OCIPlan, spec *specs.Spec) (*configs.Config, error) {
	if plan.SystemdCgroup && !systemd.IsRunningSystemd() {
		return nil, fault.New(fault.Unavailable, "oci.systemd-cgroup", "--systemd-cgroup is asked for, and systemd does not run here: there is no directory /run/systemd/system",
			"set the caller to cgroupfs (containerd: SystemdCgroup = false, podman: --cgroup-manager cgroupfs, Docker: native.cgroupdriver=cgroupfs)")
	}
	// The converter takes the working directory for the bundle.
	if err := os.Chdir(plan.Bundle); err != nil {
		return nil, err
	}
	clearHooks(spec.Hooks)
	ociFilter(spec)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName: plan.ID, UseSystemdCgroup: plan.SystemdCgroup, NoPivotRoot: plan.NoPivot, NoNewKeyring: plan.NoNewKeyring, Spec: spec,
	})
	if err != nil {
		return nil, err
	}
	for _, m := range config.Mounts {
		if m.IsBind() {
			// Options of a file system mean nothing to a bind, and callers give
			// them: the kernel ignores them, libcontainer would refuse.
			m.Data = ""
		}
	}
	for _, d := range config.Devices {
		if d.Type == devices.FifoDevice {
			d.Major, d.Minor = 0, 0 // a fifo has none; libcontainer checks what the kernel made
		}
	}
	return config, nil
}

// clearHooks gives hooks that name no environment an empty one, as the
// specification says, and not this program's.
func clearHooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	//lint:ignore SA1019 prestart is deprecated, and still asked for
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
		for i := range list {
			if list[i].Env == nil {
				list[i].Env = []string{}
			}
		}
	}
}

// ociProcess is the process of a specification with the caller's streams.
func ociProcess(plan sandbox.OCIPlan, p *specs.Process, sources *os.File) (*libcontainer.Process, error) {
	lp, err := newOCIProcess(p)
	if err != nil {
		return nil, err
	}
	for i := range plan.PreserveFDs {
		fd := sandbox.FDOCIExtra + i
		lp.ExtraFiles = append(lp.ExtraFiles, os.NewFile(uintptr(fd), "preserved "+strconv.Itoa(fd)))
	}
	if plan.Op == sandbox.OCICreate {
		// The last two: ociAwaitSources and ocijoin.c take them from there. Where the container shares
		// a PID namespace it is the null device, and nothing is joined.
		join := os.NewFile(sandbox.FDOCIMonitor, "monitor")
		if plan.SharedPID {
			if join, err = os.Open(os.DevNull); err != nil {
				return nil, err
			}
		}
		lp.ExtraFiles = append(lp.ExtraFiles, sources, join)
	}
	if plan.PidfdSocket != "" {
		if lp.PidfdSocket, err = dialFile(plan.PidfdSocket); err != nil {
			return nil, err
		}
	}
	if !p.Terminal {
		lp.Stdin, lp.Stdout, lp.Stderr = os.Stdin, os.Stdout, os.Stderr
		return lp, nil
	}
	if plan.ConsoleSocket == "" {
		lp.ConsoleSocket = os.NewFile(sandbox.FDOCIConsole, "console")
		return lp, nil
	}
	lp.ConsoleSocket, err = dialFile(plan.ConsoleSocket)
	return lp, err
}

// dialFile connects to a caller's socket.
func dialFile(path string) (*os.File, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*net.UnixConn).File()
}

// ociError keeps libcontainer's text, which callers look for, and puts it in a
// class. Its prefix says which command failed, as the callers know it.
func ociError(prefix string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if prefix != "" {
		err = fmt.Errorf("%s: %w", prefix, err)
	}
	class := fault.Unavailable
	if errors.Is(err, libcontainer.ErrNotExist) {
		class = fault.NotFound
	}
	return fault.Wrap(class, "oci.runtime", err, "")
}
