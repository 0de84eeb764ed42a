package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

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
				"AuditDir": l.Audit(), "PolicyLevel": p.Level(), "PolicyRevision": p.Revision(), "Rootless": h.Rootless, "LandlockABI": sandbox.LandlockABI(),
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
