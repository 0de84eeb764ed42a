package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/runc/libcontainer/capabilities"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	libseccomp "github.com/seccomp/libseccomp-golang"

	"github.com/ward-project/ward/sandbox"
)

// ociFeatures prints what this runtime can do, in the OCI's form.
func ociFeatures() error {
	yes, no := true, false
	major, minor, patch := libseccomp.GetLibraryVersion()
	f := features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks: configs.KnownHookNames(), MountOptions: specconv.KnownMountOptions(),
		Annotations: map[string]string{
			"org.ward.version":                           sandbox.Build,
			"io.github.seccomp.libseccomp.version":       fmt.Sprintf("%d.%d.%d", major, minor, patch),
			"org.opencontainers.runc.checkpoint.enabled": "false",
		},
		Linux: &features.Linux{
			Namespaces: specconv.KnownNamespaces(), Capabilities: capabilities.KnownCapabilities(),
			Cgroup:   &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			MemoryPolicy:    &features.MemoryPolicy{Modes: specconv.KnownMemoryPolicyModes(), Flags: specconv.KnownMemoryPolicyFlags()},
			NetDevices:      &features.NetDevices{Enabled: &yes},
			Seccomp: &features.Seccomp{Enabled: &yes, Actions: seccomp.KnownActions(), Operators: seccomp.KnownOperators(),
				Archs: seccomp.KnownArchs(), KnownFlags: seccomp.KnownFlags(), SupportedFlags: seccomp.SupportedFlags()},
		},
		PotentiallyUnsafeConfigAnnotations: []string{"bundle", "org.systemd.property.", "org.ward.image."},
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "    ")
	return e.Encode(f)
}

// ociExample writes a config.json to begin with.
func ociExample(r sandbox.OCIRequest) error {
	if r.Root != "" { // the bundle
		if err := os.Chdir(r.Root); err != nil {
			return err
		}
	}
	spec := specconv.Example()
	if r.Rootless {
		specconv.ToRootless(spec)
	}
	b, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile("config.json", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		//lint:ignore ST1005 the words callers know
		return errors.New("File config.json exists. Remove it first")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
