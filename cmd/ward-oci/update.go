package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// maxResources bounds the JSON of an update.
const maxResources = 256 << 10

func newUpdate(a *app) *cobra.Command {
	var req sandbox.OCIRequest
	values := map[string]*string{}
	var file string
	cmd := &cobra.Command{
		Use: "update [flags] ID", Short: "change the limits of a container", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := resources(file, values)
			if err != nil {
				return err
			}
			g, err := a.gate()
			if err != nil {
				return err
			}
			req.Root, req.ID, req.Resources = a.root, args[0], string(text)
			return g.Update(cmd.Context(), req, a.files())
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&file, "resources", "r", "", "read the limits from this `file` as JSON; - is standard input")
	for name, what := range map[string]string{
		"blkio-weight": "block IO weight, 10 to 1000", "cpu-period": "CPU period in microseconds", "cpu-quota": "CPU time in a period, microseconds",
		"cpu-burst": "CPU burst in microseconds", "cpu-share": "CPU shares", "cpu-rt-period": "period of real-time CPU", "cpu-rt-runtime": "real-time CPU in a period",
		"cpuset-cpus": "processors", "cpuset-mems": "memory nodes", "cpu-idle": "1 for SCHED_IDLE", "memory": "memory, in bytes or as 512m",
		"memory-reservation": "memory reservation", "memory-swap": "memory and swap together; -1 is no limit", "pids-limit": "number of processes",
	} {
		values[name] = fs.String(name, "", what)
	}
	for _, old := range []string{"kernel-memory", "kernel-memory-tcp"} {
		fs.String(old, "", "")
		_ = fs.MarkHidden(old) // the kernel has it no more; callers still say it
	}
	fs.StringVar(&req.L3Cache, "l3-cache-schema", "", "Intel RDT L3 cache schema")
	fs.StringVar(&req.MemBw, "mem-bw-schema", "", "Intel RDT memory bandwidth schema")
	return cmd
}

// resources are the limits of the file, or else those of the flags.
func resources(file string, values map[string]*string) ([]byte, error) {
	if file == "" {
		return fromFlags(values)
	}
	f := os.Stdin
	if file != "-" {
		var err error
		if f, err = os.Open(file); err != nil {
			return nil, fault.Wrap(fault.Invalid, "oci.update", err, "")
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, maxResources+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxResources {
		return nil, fault.New(fault.Invalid, "oci.size", fmt.Sprintf("the limits are larger than %d bytes", maxResources), "")
	}
	var r specs.LinuxResources
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fault.Wrap(fault.Invalid, "oci.update", err, "")
	}
	return json.Marshal(r)
}

func fromFlags(values map[string]*string) ([]byte, error) {
	r := specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, BlockIO: &specs.LinuxBlockIO{}, Pids: &specs.LinuxPids{}}
	r.CPU.Cpus, r.CPU.Mems = *values["cpuset-cpus"], *values["cpuset-mems"]
	for name, to := range map[string]**uint64{
		"cpu-burst": &r.CPU.Burst, "cpu-period": &r.CPU.Period, "cpu-rt-period": &r.CPU.RealtimePeriod, "cpu-share": &r.CPU.Shares,
	} {
		if v := *values[name]; v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return nil, usage("invalid value for %s: %v", name, err)
			}
			*to = &n
		}
	}
	for name, to := range map[string]**int64{
		"cpu-quota": &r.CPU.Quota, "cpu-rt-runtime": &r.CPU.RealtimeRuntime, "cpu-idle": &r.CPU.Idle, "pids-limit": &r.Pids.Limit,
	} {
		if v := *values[name]; v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, usage("invalid value for %s: %v", name, err)
			}
			*to = &n
		}
	}
	for name, to := range map[string]**int64{"memory": &r.Memory.Limit, "memory-swap": &r.Memory.Swap, "memory-reservation": &r.Memory.Reservation} {
		switch v := *values[name]; v {
		case "":
		case "-1":
			n := int64(-1)
			*to = &n
		default:
			n, err := units.RAMInBytes(v)
			if err != nil {
				return nil, usage("invalid value for %s: %v", name, err)
			}
			*to = &n
		}
	}
	if v := *values["blkio-weight"]; v != "" {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return nil, usage("invalid value for blkio-weight: %v", err)
		}
		w := uint16(n)
		r.BlockIO.Weight = &w
	}
	return json.Marshal(r)
}
