package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ociExec starts another process in a container. It is born into the
// container's PID namespace, and so ends with its monitor like everything
// there; its parent becomes the caller of ward-oci.
func ociExec(plan sandbox.OCIPlan, index int64) error {
	var p specs.Process
	if err := json.Unmarshal([]byte(plan.Spec), &p); err != nil {
		return fault.Wrap(fault.Invalid, "oci.spec", err, "")
	}
	ct, err := libcontainer.Load(filepath.Join(plan.StateDir, sandbox.OCIStateDir), plan.ID)
	if err != nil {
		return ociError("", err)
	}
	// What was loaded is of this run, or of one that has ended (Status).
	if err := ociSameRun(plan.StateDir, plan.Run); err != nil {
		return err
	}
	status, err := ct.Status()
	switch {
	case err != nil:
		return ociError("", err)
	case status == libcontainer.Stopped:
		return ociError("", errors.New("cannot exec in a stopped container"))
	case status == libcontainer.Paused && !plan.IgnorePaused:
		return ociError("", errors.New("cannot exec in a paused container (use --ignore-paused to override)"))
	}
	process, err := ociProcess(plan, &p, nil)
	if err != nil {
		return ociError("", err)
	}
	if process.SubCgroupPaths, err = subCgroups(plan.SubCgroups); err != nil {
		return ociError("", err)
	}
	if err := ociAnnounce(plan, index); err != nil {
		return ociError("", err)
	}
	if err := ct.Run(process); err != nil {
		return ociError("", err)
	}
	pid, err := process.Pid()
	if err == nil {
		err = ociAdopt(plan, pid)
	}
	if err == nil && plan.PIDFile != "" {
		err = writePIDFile(plan.PIDFile, pid)
	}
	if err == nil {
		err = sandbox.Send(sandbox.FDControl, sandbox.Message{Kind: sandbox.MessageReady, PID: pid})
	}
	if err != nil {
		_ = process.Signal(unix.SIGKILL)
		_, _ = process.Wait() // its exit status says nothing after SIGKILL
		return ociError("", err)
	}
	return nil
}

// ociSameRun refuses to enter a container that has taken the place of the one
// that the request is for.
func ociSameRun(dir, run string) error {
	st, err := sandbox.ReadStatus(dir)
	if err != nil {
		return err
	}
	if st.Run != run {
		return otherRun()
	}
	return nil
}

func otherRun() error {
	return fault.New(fault.Denied, "oci.run", "the container is another one than this was allowed for", "try again: it was made anew meanwhile")
}

// subCgroups reads --cgroup values: [controller[,controller…]:]path.
func subCgroups(values []string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, v := range values {
		controllers, path, named := strings.Cut(v, ":")
		if !named {
			if len(values) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", v)
			}
			out[""] = v
			continue
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if _, twice := out[c]; twice || c == "" {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (each <controller> once, by its name)", v)
			}
			out[c] = path
		}
	}
	return out, nil
}
