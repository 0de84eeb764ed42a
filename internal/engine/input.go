package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// inputFor is what policy decides about: the final specification, the image,
// the evidence for it, who asks, and the machine.
func inputFor(req Request, img images.Image, ev verify.Evidence, p sandbox.Plan) policy.Input {
	os, arch, _ := strings.Cut(img.Platform, "/")
	host, repo, tag := splitReference(img.Reference)
	in := policy.Input{
		Point: "run",
		Now:   time.Now().UTC(),
		Actor: actorOf(req.Actor),
		Image: policy.Image{
			Ref: img.Reference, Host: host, Repo: repo, Tag: tag, Checksum: img.Digest, Index: img.Index, ID: img.ID,
			Platform: img.Platform, OS: os, Arch: arch,
			Labels: img.Config.Labels, Env: img.Config.Env, User: img.Config.User, CreatedTime: img.Created,
			WorkingDir: img.Config.WorkingDir, Volumes: img.Config.Volumes,
		},
		Evidence: rawJSON(ev), Predicates: ev.Predicates(),
		Run: policy.Run{
			Name: p.Name, Hostname: p.Hostname, Args: p.Process.Args, EnvNames: envNames(p.Process.Env), Cwd: p.Process.Cwd,
			User:         policy.User{UID: p.Process.UID, GID: p.Process.GID, Groups: p.Process.Groups},
			Capabilities: p.Process.Capabilities, NoNewPrivs: p.Process.NoNewPrivs, ReadOnly: !p.Root.Writable,
			Init:    p.Process.Init,
			Network: string(p.Network), Seccomp: policy.Seccomp{Profile: p.Seccomp.Profile, Digest: p.Seccomp.Digest,
				Narrows: p.Seccomp.Digest != "" && len(p.Seccomp.Beyond) == 0, Extra: p.Seccomp.Beyond},
			Landlock: policy.Landlock{ABI: p.Landlock.ABI, Paths: p.Landlock.Paths, AbstractSockets: p.Landlock.AbstractSockets, TCP: p.Landlock.TCP,
				TCPBind: p.Landlock.TCPBind, TCPConnect: p.Landlock.TCPConnect, Missing: string(p.Landlock.Missing)},
			Limits:      policyLimits(p),
			SecurityOpt: req.securityOpt(), Labels: req.Labels,
			MaskedPaths: p.MaskedPaths, ReadonlyPaths: p.ReadonlyPaths,
			Requested: policy.Requested{CapAdd: req.CapAdd, CapDrop: req.CapDrop, Network: string(req.Network), User: req.User},
		},
		Host: policy.ThisHost(),
	}
	for _, s := range p.Sysctls {
		in.Run.Sysctls = append(in.Run.Sysctls, policy.Sysctl{Name: s.Name, Value: s.Value})
	}
	for _, d := range p.Devices {
		in.Run.Devices = append(in.Run.Devices, policy.Device{Source: d.Source, Target: d.Target, Access: d.Access})
	}
	for _, m := range p.Mounts {
		in.Run.Mounts = append(in.Run.Mounts, policy.Mount{
			Type: string(m.Type), Name: m.Name, Source: hostSource(m, p.Host.VolumeDir), Target: m.Target, ReadOnly: m.ReadOnly, Exec: m.Exec,
			// The engine gets no further with an image that is not verified.
			Checksum: m.Digest, Verified: m.Type == sandbox.MountImage && m.Digest != "",
		})
	}
	return in
}

// hostSource is the host's path that a mount shows, as policy knows it. A sealed
// plan says where a named volume lies, which is ward's own place and none of
// the host's: the floor lets it lie nowhere else.
func hostSource(m sandbox.Mount, volumes string) string {
	if m.Type == sandbox.MountVolume && volumes != "" && strings.HasPrefix(m.Source, volumes+"/") {
		return ""
	}
	return m.Source
}

func (r Request) securityOpt() []string {
	var out []string
	if r.Seccomp != "" {
		out = append(out, "seccomp="+r.Seccomp)
	}
	if r.LandlockOff {
		out = append(out, "landlock=off")
	}
	if r.AllowNewPrivs {
		out = append(out, "no-new-privileges=false")
	}
	return out
}

// splitReference takes a full reference apart: host/repo[:tag][@digest].
func splitReference(ref string) (host, repo, tag string) {
	ref, _, _ = strings.Cut(ref, "@")
	host, repo, _ = strings.Cut(ref, "/")
	if i := strings.LastIndex(repo, ":"); i >= 0 {
		repo, tag = repo[:i], repo[i+1:]
	}
	return host, repo, tag
}

// denial turns a decision that does not allow into the refusal people read:
// every reason, the first one's code as the rule, every fix as the remedy.
func denial(d policy.Decision) error {
	var cause, fix []string
	rs := d.Reasons()
	for _, r := range rs {
		cause = append(cause, r.Msg)
		if r.Fix != "" {
			fix = append(fix, r.Fix)
		}
	}
	rule := "policy.undecided"
	if len(rs) > 0 {
		rule = rs[0].Code
	}
	return fault.New(fault.Denied, rule, fmt.Sprintf("denied by policy %s: %s", d.Level(), strings.Join(cause, "; ")), strings.Join(fix, "; or "))
}
