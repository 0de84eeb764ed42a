package launcher

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/ward-project/ward/sandbox"
)

// clampedRlimits lowers each limit to this process's own hard one, as the gate
// has already done with its own: the two may not be the same.
func clampedRlimits(want []sandbox.Rlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, w := range want {
		r, err := sandbox.ClampRlimit(w)
		if err != nil {
			return nil, err
		}
		n, ok := sandbox.RlimitNumber(r.Type)
		if !ok { // zero would be another limit
			return nil, fmt.Errorf("resource limit %q is not known", r.Type)
		}
		out = append(out, configs.Rlimit{Type: n, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}
