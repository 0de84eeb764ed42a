package launcher

import (
	"errors"

	"github.com/opencontainers/cgroups"
)

// removeCgroups removes the container's cgroup from every hierarchy. They are
// empty: the payload was the first process of its PID namespace.
func removeCgroups(paths map[string]string) error {
	var all error
	for _, p := range paths {
		all = errors.Join(all, cgroups.RemovePath(p))
	}
	return all
}
