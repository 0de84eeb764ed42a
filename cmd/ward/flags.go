package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/internal/fault"
)

// dockerFlags are flags of docker run that ward does not have yet. Naming
// them lets the error say "not there yet" and not "no such thing".
var dockerFlags = strings.Fields(`annotation attach blkio-weight blkio-weight-device cgroup-parent cgroupns cpu-count cpu-percent
	cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpuset-cpus cpuset-mems detach-keys
	device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
	disable-content-trust expose gpus health-cmd health-interval health-retries health-start-interval
	health-start-period health-timeout init io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory
	link link-local-ip log-driver log-opt mac-address memory-reservation memory-swappiness network-alias
	no-healthcheck oom-kill-disable oom-score-adj pid platform privileged publish publish-all quiet restart
	runtime shm-size sig-proxy storage-opt tty ulimit use-api-socket userns uts`)

var dockerShort = map[string]string{"t": "tty", "p": "publish", "P": "publish-all", "a": "attach", "c": "cpu-shares", "q": "quiet"}

var unknownShort = regexp.MustCompile(`unknown shorthand flag: '(.)'`)

// flagError names the flag it is about and says whether Docker has it.
func flagError(cmd *cobra.Command, err error) error {
	name := ""
	var missing *pflag.NotExistError
	if errors.As(err, &missing) {
		name = missing.GetSpecifiedName()
	}
	if m := unknownShort.FindStringSubmatch(err.Error()); m != nil {
		name = m[1]
		if long, ok := dockerShort[name]; ok {
			name = long
		}
	}
	remedy := "see " + cmd.CommandPath() + " --help"
	if (cmd.Name() == "run" || cmd.Name() == "create") && slices.Contains(dockerFlags, name) {
		return fault.New(fault.Invalid, "flag.unsupported", fmt.Sprintf("the flag --%s is not there yet", name), "run without it; "+remedy)
	}
	return fault.New(fault.Invalid, "flag.unknown", err.Error(), remedy)
}
