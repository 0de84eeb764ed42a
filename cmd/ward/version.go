package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return say(cmd, fmt.Sprintf("ward %s\n  plan version %d\n  %s %s/%s", sandbox.Build, sandbox.PlanVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}

func newInfo(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info", Short: "Describe this host and this ward", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			store, err := a.store(cmd.Context())
			if err != nil {
				return err
			}
			imgs, damaged := store.List(cmd.Context())
			if damaged != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(damaged.Error()))
			}
			states := map[string]int{}
			err = a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				cs, err := eng.List(cmd.Context())
				for _, c := range cs {
					states[state(c)]++
				}
				return err
			})
			if err != nil {
				return err
			}
			p, err := a.policies()
			if err != nil {
				return err
			}
			h := policy.ThisHost()
			info := row{
				"ServerVersion": sandbox.Build, "Containers": states["running"] + states["exited"] + states["created"],
				"ContainersRunning": states["running"], "ContainersStopped": states["exited"], "Images": len(imgs),
				"Driver": "overlay", "CgroupVersion": h.Cgroup, "KernelVersion": h.Kernel, "OSType": h.OS, "Architecture": h.Arch,
				"NCPU": h.CPUs, "MemTotal": h.Memory, "DockerRootDir": l.Lib, "TrustDir": l.Trust(), "PolicyDir": l.Policy(),
				"AuditDir": l.Audit(), "PolicyLevel": p.Level(), "PolicyRevision": p.Revision(), "Rootless": h.Rootless, "LandlockABI": landlockABI(),
			}
			if format != "" {
				return listing(cmd.OutOrStdout(), format, nil, []row{info})
			}
			for _, k := range []string{"ServerVersion", "Containers", "ContainersRunning", "ContainersStopped", "Images", "Driver", "CgroupVersion", "LandlockABI",
				"KernelVersion", "OSType", "Architecture", "NCPU", "MemTotal", "DockerRootDir", "AuditDir", "TrustDir", "PolicyDir", "PolicyLevel", "PolicyRevision"} {
				if err := say(cmd, fmt.Sprintf("%-18s %v", k+":", info[k])); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template")
	return cmd
}

// landlockABI is the version of Landlock that this kernel offers, 0 for none
// (landlock_create_ruleset(2)). Below 6 nothing keeps a container on the host's
// network from the host's abstract sockets.
func landlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}
