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

// dockerFlags are the flags of docker run. Naming those that ward does not have
// yet lets the error say "not there yet" and not "no such thing".
var dockerFlags = strings.Fields(`add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
	cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus
	cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops
	device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint env
	env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval
	health-start-period health-timeout hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation
	kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation
	memory-swap memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid
	pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size
	sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume
	volume-driver volumes-from workdir`)

var dockerShort = map[string]string{"t": "tty", "p": "publish", "P": "publish-all", "a": "attach", "q": "quiet"}

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
