package oci

import (
	"crypto/rand"
	"encoding/hex"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// plan is the request as the launcher will get it, before it has a place.
func (a *attempt) plan(text []byte) sandbox.OCIPlan {
	r, l := a.req, a.g.c.Layout
	return sandbox.OCIPlan{
		Version: sandbox.OCIPlanVersion, Build: sandbox.Build, Op: sandbox.OCIOp(a.op), Run: a.run, Exec: a.exec, ID: r.ID,
		StateDir: filepath.Join(r.Root, r.ID), Bundle: r.Bundle, Spec: string(text),
		SystemdCgroup: r.SystemdCgroup, NoPivot: r.NoPivot, NoNewKeyring: r.NoNewKeyring, PreserveFDs: r.PreserveFDs,
		ConsoleSocket: r.ConsoleSocket, PidfdSocket: r.PidfdSocket, PIDFile: r.PIDFile,
		SubCgroups: r.SubCgroups, IgnorePaused: r.IgnorePaused,
		AuditDir: l.Audit(), Keep: []string{l.Lib, l.Run, l.Etc},
	}
}

// input is what policy decides about: who asks, the specification as it is,
// and the machine.
func input(a *attempt, text []byte, s *specs.Spec) policy.Input {
	actor, p := a.g.c.Actor, s.Process
	held, inheritable, ambient := capabilities(p)
	shared, network := namespaces(s)
	in := policy.Input{
		Point: policy.PointOCI, Now: time.Now().UTC(),
		Actor: policy.Actor{UID: actor.UID, LoginUID: actor.LoginUID, PID: actor.PID, Exe: actor.Exe, TTY: actor.TTY},
		Run: policy.Run{
			Name: a.req.ID, Hostname: s.Hostname, Args: p.Args, EnvNames: envNames(p.Env), Cwd: p.Cwd,
			User:         policy.User{UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids},
			Capabilities: held, NoNewPrivs: p.NoNewPrivileges, Network: network,
			Seccomp: policy.Seccomp{Profile: "unconfined"}, Landlock: policy.Landlock{Missing: "oci"},
		},
		OCI: policy.OCI{
			Op: a.op, ID: a.req.ID, Bundle: a.req.Bundle, SpecDigest: sandbox.Digest(text),
			Annotations: s.Annotations, SharedPID: shared, Hooks: hooks(s.Hooks), Inheritable: inheritable, Ambient: ambient,
		},
		Host: policy.ThisHost(),
	}
	if s.Root != nil {
		in.Run.ReadOnly, in.OCI.Rootfs = s.Root.Readonly, hostPath(a.req.Bundle, s.Root.Path)
	}
	for _, m := range s.Mounts {
		pm := policy.Mount{Type: m.Type, Source: m.Source, Target: m.Destination, ReadOnly: isReadOnly(m)}
		if isBind(m) {
			pm.Type, pm.Source = "bind", hostPath(a.req.Bundle, m.Source)
		}
		in.Run.Mounts = append(in.Run.Mounts, pm)
	}
	if s.Linux != nil {
		addLinux(&in, s.Linux)
	}
	return in
}

func addLinux(in *policy.Input, l *specs.Linux) {
	in.Run.MaskedPaths, in.Run.ReadonlyPaths = l.MaskedPaths, l.ReadonlyPaths
	if l.Seccomp != nil {
		in.Run.Seccomp.Profile = "oci"
	}
	for _, n := range l.Namespaces {
		in.OCI.Namespaces = append(in.OCI.Namespaces, policy.OCINamespace{Type: string(n.Type), Path: n.Path})
	}
	for name, value := range l.Sysctl {
		in.Run.Sysctls = append(in.Run.Sysctls, policy.Sysctl{Name: name, Value: value})
	}
	for _, d := range l.Devices {
		in.Run.Devices = append(in.Run.Devices, policy.Device{Source: d.Path, Target: d.Path, Access: "rw"})
	}
	if l.Resources != nil {
		in.Run.Limits = limits(l.Resources)
	}
}

// addImage adds the image that was verified.
func addImage(in *policy.Input, img images.Image, ev verify.Evidence) {
	os, arch, _ := strings.Cut(img.Platform, "/")
	ref, _, _ := strings.Cut(img.Reference, "@")
	host, repo, _ := strings.Cut(ref, "/")
	in.Image = policy.Image{Ref: img.Reference, Host: host, Repo: repo, Checksum: img.Digest, Index: img.Index, ID: img.ID,
		Platform: img.Platform, OS: os, Arch: arch, Labels: img.Config.Labels, Env: img.Config.Env, User: img.Config.User, CreatedTime: img.Created}
	if b, err := ev.MarshalJSON(); err == nil {
		in.Evidence, in.Predicates = b, ev.Predicates()
	}
}
