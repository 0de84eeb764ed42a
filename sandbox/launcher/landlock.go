package launcher

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// Of landlock_create_ruleset(2): the scope of abstract sockets, and since when.
const (
	scopeAbstractUnix = 1 << 0
	scopeABI          = 6
)

// landlockScopes says what the stage shuts a process of the container off from
// with Landlock. Abstract sockets belong to a network namespace and have no
// owner or mode: on the host's network every daemon's would be in reach
// (containerd's shim listened on one: CVE-2020-15257). Signals are not scoped:
// each process that is started in a container later has a domain of its own,
// and could not signal the first one. In a network namespace of its own a
// container has no domain: no such sockets are there, and a domain would keep
// those later processes from tracing the container's others.
func landlockScopes(config *configs.Config) (uint64, error) {
	if config.Namespaces.Contains(configs.NEWNET) {
		return 0, nil
	}
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EOPNOTSUPP): // not built in, or not switched on
		return 0, nil
	case errno != 0:
		return 0, fault.New(fault.Unavailable, "launch.landlock", fmt.Sprintf("ask the kernel for its version of Landlock: %v", errno), "")
	case abi < scopeABI:
		return 0, nil
	}
	return scopeAbstractUnix, nil
}
