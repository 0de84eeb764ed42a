package sandbox

import (
	"fmt"
	"reflect"
	"slices"
)

// ExecPlanVersion is the version of ExecPlan's encoding.
const ExecPlanVersion = 1

// ExecPlan is everything about one more process in a container that runs, as
// Plan is about the container. It names the plan the container runs by, and
// nothing in it goes beyond that one.
type ExecPlan struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
	// Container and Run are where it is to run, Exec is the process's own id:
	// 64 lower-case hex digits each.
	Container string `json:"container"`
	Run       string `json:"run"`
	Exec      string `json:"exec"`
	// ContainerPlan is the digest of the container's plan.
	ContainerPlan string  `json:"container_plan"`
	Process       Process `json:"process"`
	Seccomp       Seccomp `json:"seccomp"`
	Host          Host    `json:"host"`
}

// Encode returns the plan's one canonical encoding, as Plan.Encode does.
func (p ExecPlan) Encode() ([]byte, error) { return encode(p.normal(), MaxPlan) }

// DecodeExecPlan reads an encoded plan, as strictly as DecodePlan.
func DecodeExecPlan(b []byte) (ExecPlan, error) {
	p, err := decode(b, MaxPlan, ExecPlan.normal)
	if err == nil {
		err = readable(p.Version, ExecPlanVersion)
	}
	if err != nil {
		return ExecPlan{}, err
	}
	return p, nil
}

func (p ExecPlan) normal() ExecPlan {
	n := Plan{Process: p.Process, Seccomp: p.Seccomp}.normal()
	p.Process, p.Seccomp = n.Process, n.Seccomp
	return p
}

// CheckExec returns nil if e is at or above the floor and asks for nothing
// that the container it enters, which runs by c, does not have.
func (f Floor) CheckExec(e ExecPlan, c Plan) error {
	if err := f.Check(c); err != nil {
		return err
	}
	switch {
	case !isHex(e.Exec):
		return below("exec", fmt.Sprintf("%q is not an exec id", e.Exec), "")
	case e.Container != c.Container || e.Run != c.Run || !reflect.DeepEqual(e.Host, c.Host):
		return below("exec", "the plan is for another container or another run of it", "")
	case !reflect.DeepEqual(e.normal().Seccomp, c.normal().Seccomp):
		return below("seccomp", "the process would have another system-call filter than its container", "")
	}
	if e.Process.StdinOpen {
		return below("exec", "input that outlives its client is nothing for a process with one client", "")
	}
	if e.Process.Init {
		return below("exec", "an init is for a container's first process", "")
	}
	for _, name := range e.Process.Capabilities {
		if !slices.Contains(c.Process.Capabilities, name) {
			return below("capabilities", fmt.Sprintf("the container does not have %s", name), "start the container with it")
		}
	}
	if !slices.Equal(e.Process.Rlimits, c.Process.Rlimits) {
		return below("rlimits", "the process would have other resource limits than its container", "")
	}
	// The rest is judged as if it were the container's first process.
	c.Process = e.Process
	return f.Check(c.Landlocked(c.Landlock.ABI, c.Landlock.Missing == LandlockOff))
}
